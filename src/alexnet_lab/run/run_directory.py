"""The directory of one run: its lock, and the files that describe the run."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from alexnet_lab.base import shell
from alexnet_lab.base.checked_files import check_record, read_json, read_rows, read_yaml
from alexnet_lab.base.errors import RunError
from alexnet_lab.base.files import is_whole, require_folder, sealed, sha256, usable, write_json, write_text
from alexnet_lab.base.locks import claimed_folder
from alexnet_lab.base.places import is_published, with_variable, without_variable
from alexnet_lab.run.run_files import RESULT_VERSION, Earlier, Manifest, Result

CONTINUED_BY = "continued_by"
"""The field of a result with the hash of the config that resumes a run."""

CLAIMED: set[str] = set()
"""The directories that this process has locked."""


class RunDirectory:
    """A run directory and the paths of its files."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.result = self.path / "result.json"
        self.metrics = self.path / "metrics.csv"
        self.steps = self.path / "steps.csv"  # with logger.every_steps
        self.manifest = self.path / "manifest.json"
        self.log = self.path / "train.log"
        self.preview = self.path / "augmentation.png"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.weights = self.checkpoints / "best.safetensors"  # those of best.ckpt, with the facts that describe them
        self.last = self.checkpoints / "last.ckpt"
        self.previous = self.checkpoints / "previous.ckpt"  # until the run is completed

    def read_config(self) -> dict[str, Any]:
        """The run's own config.

        Raises:
            RunError: The directory is no run's, or its config is damaged.
        """
        if usable(self.path).is_file():
            raise RunError(f"{self.path} is a file; allowed: a run directory")
        if not self.path.is_dir():
            raise RunError(f"there is no run directory {self.path}")
        try:
            config = read_yaml(self.config)
        except FileNotFoundError:
            raise RunError(f"{self.path} is no run directory: it has no config.yaml") from None
        if not isinstance(config, dict):
            raise RunError(f"{self.config} contains no config")
        return without_variable(config)

    def read_result(self) -> dict[str, Any] | None:
        """Reads `result.json`, checked against its schema; None if there is none.

        Raises:
            RunError: It cannot be read, is damaged, or comes from a newer version.
        """
        try:
            content = read_json(self.result)
        except FileNotFoundError:
            return None
        if not isinstance(content, dict) or "status" not in content:
            raise RunError(f"{self.result} contains no result")
        result = check_record(Result, content, self.result)
        if not is_whole(content):
            raise RunError(f"{self.result} is damaged: its checksum does not match its content")
        return result

    def readable_result(self) -> dict[str, Any]:
        """The content of `result.json`; empty if there is none, or it cannot be read."""
        try:
            return self.read_result() or {}
        except RunError:
            return {}

    def continued(self, config: dict[str, Any]) -> dict[str, Any]:
        """The fields of result.json for a run that is being resumed.

        Args:
            config: The config that resumes it; see `is_continued_by`.

        Returns:
            `continued_by`, and `history` if the run was completed before: a short form of each earlier result.
        """
        result = self.read_result() or {}
        now = [{key: result.get(key) for key in Earlier.model_fields}] if result.get("status") == "completed" else []
        history = [*(result.get("history") or []), *now]
        return {CONTINUED_BY: digest(config)} | ({"history": history} if history else {})

    def is_completed(self) -> bool:
        """Whether it contains a finished run."""
        return (self.read_result() or {}).get("status") == "completed"

    def in_use(self) -> bool:
        """Whether another process works on the run; False if no lock can be created.

        That is the case on a read-only disk, or if the process has just removed its folder, having written nothing.
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
        """The run's provenance in `manifest.json`; empty if there is none.

        Raises:
            RunError: It cannot be read or is damaged.
        """
        try:
            return check_record(Manifest, read_json(self.manifest), self.manifest)
        except FileNotFoundError:
            return {}

    def readable_manifest(self) -> dict[str, Any]:
        """The content of `manifest.json`; empty if there is none, or it cannot be read."""
        try:
            return self.read_manifest()
        except RunError:
            return {}

    def read_metrics(self, result: Mapping[str, Any] | None = None) -> list[dict[str, str]]:
        """The rows of `metrics.csv`, values as text, epochs from 1; empty if there is none.

        Args:
            result: As in `check_file`.

        Raises:
            RunError: It cannot be read, is damaged, or differs from what a completed run wrote.
        """
        rows = read_rows(self.metrics)
        if rows and "epoch" not in rows[0]:
            raise RunError(f"{self.metrics} cannot be read: it has no column `epoch`")
        self.check_file(self.metrics, result)
        return rows

    def pictures(self) -> list[Path]:
        """The pictures that training writes, for a logger."""
        return sorted(self.path.glob("*.png"))

    @contextlib.contextmanager
    def claimed(self, *, resume: bool = False) -> Iterator[None]:
        """Locks the directory for this run within the block.

        Args:
            resume: Resume the run in it; False requires an empty directory.

        Raises:
            ConfigError: It cannot be a folder.
            RunError: It contains a run, is in use by another process, or cannot be written.
        """
        require_folder(self.path, "run", "run_dir")
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
        """Refuses to overwrite a finished run; one that failed before its first checkpoint may be started again."""
        if self.is_completed():
            raise RunError(f"run_dir {self.path} contains a finished run; choose another run_dir, or delete it")
        if self.can_be_resumed():
            line = shell.command("train.py", shell.override("resume", self.path))
            raise RunError(f"run_dir {self.path} contains an unfinished run; resume it: {line}")
        others = [item.name for item in self.path.iterdir() if item.name != ".lock"]
        if others and not self.config.exists():
            raise RunError(f"run_dir {self.path} is not empty (it contains {min(others)}); choose another run_dir")

    def _clear_parts(self) -> None:
        """Deletes the incomplete files of a killed run."""
        for folder in (self.path, self.checkpoints):
            for part in folder.glob(".*.part"):
                part.unlink(missing_ok=True)

    def can_be_resumed(self) -> bool:
        """Whether there is a checkpoint."""
        return any(path.is_file() for path in (self.last, self.previous, self.best))

    def is_continued_by(self, config: dict[str, Any]) -> bool:
        """Whether a command has resumed the run with this config, so nobody has edited `config.yaml` since."""
        return (self.read_result() or {}).get(CONTINUED_BY) == digest(config)

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes the resolved config, in the order of its groups; see `base.places` for a published run's."""
        written = with_variable(config) if is_published(self.path) else config
        write_text(self.config, yaml.safe_dump(written, sort_keys=False, allow_unicode=True))

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes result.json atomically; for a completed run it contains the hashes of its files."""
        record = result | {"version": RESULT_VERSION}
        if result["status"] == "completed":
            files = (self.config, self.metrics, self.best, self.weights)
            record["files"] = {str(file.relative_to(self.path)): sha256(file) for file in files if file.is_file()}
        write_json(self.result, sealed(record))

    def check_file(self, file: Path, result: Mapping[str, Any] | None = None) -> str | None:
        """Compares a file of a completed run with its SHA-256 in result.json.

        Args:
            file: In the run's directory.
            result: The content of result.json, if it has been read already.

        Returns:
            The SHA-256, or None if result.json has none.

        Raises:
            RunError: It differs from the file that the run wrote.
        """
        known = self.read_result() if result is None else result
        expected = ((known or {}).get("files") or {}).get(str(file.relative_to(self.path)))
        try:
            same = expected is None or sha256(file) == expected
        except OSError as error:
            raise RunError(f"{file} cannot be read: {error.strerror or error}") from error
        if not same:
            raise RunError(
                f"{file} is not the file that the run wrote (its SHA-256 differs from that in {self.result.name}); "
                f"restore it, or train again"
            )
        return expected


def digest(config: dict[str, Any]) -> str:
    """A hash of a config's values."""
    return hashlib.sha256(yaml.safe_dump(config).encode()).hexdigest()


def is_run(path: str | Path) -> bool:
    """Whether a path is the directory of a run, possibly a damaged one."""
    return Path(path).is_dir() and any(os.path.lexists(Path(path) / name) for name in ("config.yaml", "result.json"))


def run_names(patterns: Sequence[str], key: str) -> list[str]:
    """The names in `patterns`, with each pattern replaced by the run directories that it matches, in sorted order.

    A name is kept as it is if it exists or has no wildcard, so `logs/a[1]` names the directory `logs/a[1]`. Matches of
    a pattern that are not runs (`summary.csv` in a sweep) are skipped.

    Args:
        patterns: Names, or patterns such as `logs/sweeps/ideas/base_seed-*`.
        key: Of the command line, for the message.

    Raises:
        RunError: A pattern matches no run.
    """
    return [name for pattern in patterns for name in _matches(pattern, key)]


def _matches(pattern: str, key: str) -> list[str]:
    if os.path.lexists(pattern) or not glob.has_magic(pattern):
        return [pattern]
    runs = [name for name in sorted(glob.glob(pattern)) if is_run(name)]  # noqa: PTH207 - absolute patterns too
    if not runs:
        raise RunError(f"no runs found by {key}={pattern}; a run is a directory with a config.yaml")
    return runs
