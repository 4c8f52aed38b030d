"""Writes files atomically: the old file stays until the new one is complete."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alexnet_lab.base.errors import ConfigError, RunError


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which replaces `path` in one step after the block.

    If the block raises, the temporary file is deleted and `path` stays unchanged. An OSError names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        part = Path(name)
        yield part
        part.chmod(0o644)  # mkstemp's 0600 would hide the file from others who share the folder
        _flush(part)
        part.replace(path)
        _flush(path.parent)
    except BaseException as error:
        if part is not None:
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and (part is None or error.filename in (None, str(part))):
            error.filename = str(path)
        raise


UNUSABLE = (errno.EACCES, errno.ENAMETOOLONG)
"""Errors about a path that a user gives: its folder may not be read, or its name is too long."""


def usable(path: str | Path) -> Path:
    """The path, once `Path.exists()` and its like cannot raise an OSError for it.

    Raises:
        RunError: Its folder may not be read, or its name is too long.
    """
    try:
        os.stat(path)  # noqa: PTH116 - of a text too
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        if isinstance(error, OSError) and error.errno in UNUSABLE:
            raise RunError(f"{path} cannot be used: {error.strerror}") from error
    return Path(path)


def require_folder(folder: Path, what: str, key: str) -> None:
    """Checks that neither a folder to write to nor one above it is something other than a folder.

    Args:
        folder: It may be missing.
        what: What goes there, for the message.
        key: Of the command line, for the message.

    Raises:
        ConfigError: There is no such folder, nor can it be created.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise ConfigError(f"the {what} cannot go to {folder}: {there} is no folder; choose another folder: {key}=DIR")


def try_folder(folder: Path) -> None:
    """Checks that a folder can be written, and removes everything again that this created.

    Raises:
        OSError: The folder cannot be created or written.
    """
    missing = list(itertools.takewhile(lambda path: not path.exists(), (folder, *folder.parents)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target` a hard link to `source` in one step, or a copy if the disk has no links.

    For files that are replaced as a whole and never changed: replacing `source` later does not affect `target`.
    """
    if target.exists() and target.samefile(source):
        return  # a move onto another name of the same file would leave both names
    with atomic_path(target) as part:
        part.unlink()
        try:
            part.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, part)


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` to `path` atomically."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; see `for_json`."""
    write_text(path, json.dumps(for_json(value), indent=2, allow_nan=False) + "\n")


def for_json(value: Any) -> Any:
    """`value` without what JSON lacks: None for NaN and infinities, escapes for the bytes of a path that is no text."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {key: for_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [for_json(item) for item in value]
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value


CHECKSUM = "checksum"
"""The field of a sealed record with the checksum of all others."""


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """Adds a checksum of its content to a record: a flipped bit in a number would still give a number."""
    return record | {CHECKSUM: _checksum(record)}


def is_whole(record: dict[str, Any]) -> bool:
    """Whether a record is unchanged since it was sealed. One without a checksum counts as unchanged."""
    return CHECKSUM not in record or record[CHECKSUM] == _checksum(record)


def _checksum(record: dict[str, Any]) -> str:
    content = for_json({key: value for key, value in record.items() if key != CHECKSUM})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    """Size, modification and change time in ns, and inode: a file for which all are equal has not changed.

    The change time is included because programs can set the modification time (`cp -p`, `touch -r`, rsync), and the
    inode because some file systems keep the times when a file is renamed.
    """
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino & (2**63 - 1)


def _flush(path: Path) -> None:
    """Flushes a file or a directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
