"""The directory of one run: who may write to it, and the files that describe the run."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from alexnet_lab.base import shell
from alexnet_lab.base.checked_files import check_record, read_json, read_rows, read_yaml
from alexnet_lab.base.csv_tables import from_one
from alexnet_lab.base.errors import RunError
from alexnet_lab.base.files import is_whole, sealed, sha256, write_json, write_text
from alexnet_lab.base.locks import claimed_folder
from alexnet_lab.base.places import is_published, with_variable, without_variable
from alexnet_lab.run.run_files import RESULT_VERSION, Earlier, Manifest, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTINUED_BY = "continued_by"
"""The field of a result that names the config by which a run is being continued."""

CLAIMED: set[str] = set()
"""The directories that this process works in."""


class RunDirectory:
    """A run directory and the places of its files (design: what a run leaves)."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.result = self.path / "result.json"
        self.metrics = self.path / "metrics.csv"
        self.manifest = self.path / "manifest.json"
        self.log = self.path / "train.log"
        self.preview = self.path / "augmentation.png"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.previous = self.checkpoints / "previous.ckpt"  # until the run is completed

    def read_config(self) -> dict[str, Any]:
        """The run's own config.

        Raises:
            RunError: The directory is none of a run, or its config is damaged.
        """
        if not self.path.is_dir():
            raise RunError(f"there is no run directory {self.path}")
        try:
            config = read_yaml(self.config)
        except FileNotFoundError:
            raise RunError(f"{self.path} is no run directory: it has no config.yaml") from None
        if not isinstance(config, dict):
            raise RunError(f"{self.config} holds no config")
        return without_variable(config)

    def read_result(self) -> dict[str, Any] | None:
        """What `result.json` says, checked against its schema, or None where there is none.

        Raises:
            RunError: It cannot be read, is damaged, or comes from a newer version.
        """
        try:
            content = read_json(self.result)
        except FileNotFoundError:
            return None
        if not isinstance(content, dict) or "status" not in content:
            raise RunError(f"{self.result} holds no result")
        result = check_record(Result, content, self.result)
        if not is_whole(content):
            raise RunError(f"{self.result} is damaged: its checksum is not that of its content")
        return result

    def readable_result(self) -> dict[str, Any]:
        """What `result.json` says; empty where there is none, or none that can be read."""
        try:
            return self.read_result() or {}
        except RunError:
            return {}

    def continued(self, config: dict[str, Any]) -> dict[str, Any]:
        """The fields of result.json of a run that is continued.

        Args:
            config: By which it is; see `is_continued_by`.

        Returns:
            `continued_by`, and `history` if the run was completed before: in short what it had reached each time.
        """
        result = self.read_result() or {}
        now = [{key: result.get(key) for key in Earlier.model_fields}] if result.get("status") == "completed" else []
        history = [*(result.get("history") or []), *now]
        return {CONTINUED_BY: digest(config)} | ({"history": history} if history else {})

    def is_completed(self) -> bool:
        """Whether it holds a finished run."""
        return (self.read_result() or {}).get("status") == "completed"

    def in_use(self) -> bool:
        """Whether another process works on the run; none does where no lock can be taken.

        That is a disk that can only be read, or a folder that its process has just removed since it wrote nothing.
        """
        if os.path.realpath(self.path) in CLAIMED or not (self.path / ".lock").exists():
            return False
        try:
            with FileLock(self.path / ".lock", blocking=False):
                return False
        except Timeout:
            return True
        except OSError:
            return False

    def read_manifest(self) -> dict[str, Any]:
        """Where the run came from, as `manifest.json` says; empty where there is none.

        Raises:
            RunError: It cannot be read or is damaged.
        """
        try:
            return check_record(Manifest, read_json(self.manifest), self.manifest)
        except FileNotFoundError:
            return {}

    def read_metrics(self) -> list[dict[str, str]]:
        """The rows of `metrics.csv`, values as text, epochs from 1; empty where there is none.

        Raises:
            RunError: It cannot be read, is damaged, or is not what a completed run left.
        """
        rows = read_rows(self.metrics)
        if rows and "epoch" not in rows[0]:
            raise RunError(f"{self.metrics} cannot be read: it has no column `epoch`")
        self.check_file(self.metrics)
        return from_one(rows)

    def pictures(self) -> list[Path]:
        """The pictures that training leaves, for a tracker."""
        return sorted(self.path.glob("*.png"))

    @contextlib.contextmanager
    def claimed(self, *, resume: bool = False) -> Iterator[None]:
        """Locks the directory for this run within the block.

        Args:
            resume: Continue the run that is there; False requires an empty directory.

        Raises:
            RunError: It holds a run already, is in use by another process, or cannot be written.
        """
        taken = f"run_dir {self.path} is in use by another process; choose another run_dir"
        with claimed_folder(self.path, ".lock", taken=taken, what="run_dir"):
            CLAIMED.add(os.path.realpath(self.path))
            try:
                if not resume:
                    self._check_free()
                self._clear_parts()
                yield
            finally:
                CLAIMED.discard(os.path.realpath(self.path))

    def _check_free(self) -> None:
        """A finished run is never overwritten; one that failed before its first checkpoint may be started again."""
        result = self.read_result()
        if result is not None and result.get("status") == "completed":
            raise RunError(f"run_dir {self.path} holds a finished run; choose another run_dir, or delete it")
        if self.can_be_resumed():
            line = shell.command("train.py", shell.override("resume", self.path))
            raise RunError(f"run_dir {self.path} holds an unfinished run; resume it: {line}")
        others = [item.name for item in self.path.iterdir() if item.name != ".lock"]
        if others and not self.config.exists():
            raise RunError(f"run_dir {self.path} is not empty (it holds {min(others)}); choose another run_dir")

    def _clear_parts(self) -> None:
        """Deletes the incomplete files of a killed run."""
        for folder in (self.path, self.checkpoints):
            for part in folder.glob(".*.part"):
                part.unlink(missing_ok=True)

    def can_be_resumed(self) -> bool:
        """Whether a checkpoint is there."""
        return any(path.is_file() for path in (self.last, self.previous, self.best))

    def is_continued_by(self, config: dict[str, Any]) -> bool:
        """Whether a command has continued the run by this config, so that nobody has edited `config.yaml` since."""
        return (self.read_result() or {}).get(CONTINUED_BY) == digest(config)

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes the resolved config, in the order of its groups; see `base.places` for a published run's."""
        written = with_variable(config) if is_published(self.path) else config
        write_text(self.config, yaml.safe_dump(written, sort_keys=False, allow_unicode=True))

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes result.json, whole or not at all; that of a completed run says what its files hold."""
        record = result | {"version": RESULT_VERSION}
        if result["status"] == "completed":
            files = (self.config, self.metrics, self.best)
            record["files"] = {str(file.relative_to(self.path)): sha256(file) for file in files if file.is_file()}
        write_json(self.result, sealed(record))

    def check_file(self, file: Path) -> str | None:
        """Compares a file of a completed run with its SHA-256 in result.json.

        Returns:
            The SHA-256; None where result.json has none.

        Raises:
            RunError: It is not what the run left.
        """
        expected = ((self.read_result() or {}).get("files") or {}).get(str(file.relative_to(self.path)))
        try:
            same = expected is None or sha256(file) == expected
        except OSError as error:
            raise RunError(f"{file} cannot be read: {error.strerror or error}") from error
        if not same:
            raise RunError(
                f"{file} is not what the run left (its SHA-256 differs from that in {self.result.name}); "
                f"bring it back, or train again"
            )
        return expected


def digest(config: dict[str, Any]) -> str:
    """Of a config's values."""
    return hashlib.sha256(yaml.safe_dump(config).encode()).hexdigest()
