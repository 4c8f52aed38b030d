"""Files are written whole or not at all; what was there before stays until the new one is complete."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; at the end it takes `path`'s place in one step.

    If the block raises, the temporary file is deleted and `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)  # mkstemp's 0600 would hide the file from others who share the folder
        _flush(part)
        part.replace(path)
        _flush(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def try_folder(folder: Path) -> None:
    """Writes a file into a folder and removes it, with the folders that it needed.

    Raises:
        OSError: The folder cannot be made or written.
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
    """Makes `target` another name of the file `source`, in one step; a copy, where the disk knows no links.

    For files that are replaced as a whole and never changed: what becomes of `source` then does not touch `target`.
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
    """Writes `text` to `path`, whole or not at all."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all. NaN and infinities become null."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """`value` with every float that JSON cannot hold (NaN, infinities) replaced by None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return None
    return value


CHECKSUM = "checksum"
"""The field of a sealed record that holds the checksum of all others."""


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """A record for a JSON file with a checksum of its content: a flipped bit in a number would still be a number."""
    return record | {CHECKSUM: _checksum(record)}


def is_whole(record: dict[str, Any]) -> bool:
    """Whether a record that was read is what was sealed. One without a checksum counts as whole."""
    return CHECKSUM not in record or record[CHECKSUM] == _checksum(record)


def _checksum(record: dict[str, Any]) -> str:
    content = finite({key: value for key, value in record.items() if key != CHECKSUM})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    """Size, modification and change time in ns, and inode: a file that still has them was not changed.

    The change time is part of it since programs can set the modification time (`cp -p`, `touch -r`, rsync), and the
    inode since some file systems leave times alone at a rename.
    """
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino & (2**63 - 1)


def _flush(path: Path) -> None:
    """Asks the system to put a file or a directory onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
