"""The directory of one sweep: its definition, its ledger, one folder per job, and its lock."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from alexnet_lab.base.checked_files import check_record, parse_json, read_json, read_text
from alexnet_lab.base.errors import RunError
from alexnet_lab.base.files import for_json, is_whole, sealed, write_json
from alexnet_lab.base.locks import claimed_folder
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.run.run_files import copies
from alexnet_lab.sweeps.definition import Definition, Job
from alexnet_lab.sweeps.merging import other_content
from alexnet_lab.sweeps.sweep_files import LEDGER_VERSION, LedgerLine, SweepRecord

log = logging.getLogger(__name__)


REQUIRED = ("name", "factor", "base", "metric", "command", "overrides", "config")
"""The fields of sweep.json that get defaults if missing."""


class SweepDirectory:
    """A sweep's directory and the paths of its files."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.definition = self.path / "sweep.json"
        self.ledger = self.path / "ledger.jsonl"
        self.stop = self.path / ".stop"  # exists while the sweep's jobs should stop
        self.summary_csv = self.path / "summary.csv"
        self.summary_md = self.path / "summary.md"

    def run(self, job: Job) -> RunDirectory:
        """The run directory of a job."""
        return RunDirectory(self.path / job.name)

    def check_run(self, job: Job) -> None:
        """Raises RunError if a job's folder contains another run; an unreadable one fails when its turn comes."""
        run = self.run(job)
        try:
            found = other_content(job, run.read_config())
        except RunError:
            return
        if found:
            raise RunError(f"{run.path} contains another run: {'; '.join(found[:3])}; choose another hydra.sweep.dir")

    def check_copies(self, jobs: Iterable[Job]) -> None:
        """Refuses a finished job that is a copy of another one's folder: its result would count twice.

        Raises:
            RunError: Names both folders.
        """
        runs = [self.run(job) for job in jobs]
        found = copies((str(run.path), run.readable_result()) for run in runs)
        for copy, original in found.items():
            raise RunError(f"{copy} is a copy of {original}; delete it to train the job")

    def check_readable(self, job: Job) -> None:
        """Raises RunError if a job's folder contains an unreadable run, which is never overwritten."""
        run = self.run(job)
        try:
            if run.read_result() is not None or run.config.exists():
                run.read_config()
        except RunError as error:
            raise RunError(f"{error}; repair it, or delete {run.path} to train the job again") from error

    def is_done(self, job: Job) -> bool:
        """Whether a job's folder contains its finished run, and the run is readable."""
        try:
            self.check_readable(job)
        except RunError:
            return False
        return self.run(job).is_completed()

    def read(self) -> Definition | None:
        """Reads `sweep.json`; None if it does not exist.

        Raises:
            RunError: It is damaged.
        """
        try:
            content = read_json(self.definition)
        except FileNotFoundError:
            return None
        checked = check_record(SweepRecord, content, self.definition)
        return Definition.from_json({key: checked[key] for key in REQUIRED} | content)

    def write(self, definition: Definition) -> None:
        """Writes sweep.json atomically."""
        write_json(self.definition, definition.to_json())

    def begin(self, definition: Definition) -> bool:
        """Writes the first sweep.json; False if another process has just done so.

        Raises:
            RunError: The directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self.locked():
                if self.definition.exists():
                    return False
                self.write(definition)
        except OSError as error:
            raise RunError(f"the sweep {self.path} cannot be written: {error.strerror or error}") from error
        return True

    def append(self, entry: dict[str, Any]) -> None:
        """Appends one line to the ledger immediately and in one piece; several processes may do so.

        Raises:
            RunError: It cannot be written. Its former content remains.
        """
        line = {"version": LEDGER_VERSION, **entry, "ended": datetime.now(UTC).isoformat(timespec="seconds")}
        text = json.dumps(sealed(for_json(line)), allow_nan=False) + "\n"
        try:
            with self.locked(), self.ledger.open("a+b") as file:
                if file.tell():
                    file.seek(-1, 2)
                    text = text if file.read(1) == b"\n" else "\n" + text  # a killed process left half a line
                file.write(text.encode())
                file.flush()
        except OSError as error:
            raise RunError(f"{self.ledger} cannot be written: {error.strerror or error}") from error

    def entries(self) -> list[dict[str, Any]]:
        """The ledger's lines, in order, without damaged and incomplete ones.

        A job without a line counts as not recorded: the sweep checks its run again.

        Raises:
            RunError: The file cannot be read.
        """
        try:
            lines = read_text(self.ledger, errors="replace").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for number, line in enumerate(lines, start=1):
            try:
                found.append(_entry(line))
            except (RunError, ValueError) as error:
                log.warning("%s: line %d is damaged and ignored: %s", self.ledger, number, error)
        return found

    def latest(self) -> dict[str, dict[str, Any]]:
        """The last line of each job that has one."""
        return {entry["job"]: entry for entry in self.entries()}

    def locked(self) -> FileLock:
        """Within the block no other process appends to the ledger or writes the summary."""
        return FileLock(self.path / ".ledger.lock", timeout=60)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Locks the sweep for this process within the block.

        Raises:
            RunError: Another process runs it, or the directory cannot be written.
        """
        taken = f"another process runs the sweep {self.path}; wait for it, or stop it"
        with claimed_folder(self.path, ".sweep.lock", taken=taken, what="the sweep"):
            yield


def _entry(line: str) -> dict[str, Any]:
    """Parses a line of the ledger; raises ValueError or RunError if it is damaged."""
    entry = parse_json(line)
    checked = check_record(LedgerLine, entry, "the line")
    if not is_whole(entry):
        raise ValueError("its checksum does not match its content")
    return checked
