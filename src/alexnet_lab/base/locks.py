"""Locks for folders that one process uses at a time."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from alexnet_lab.base.errors import RunError


def free_folder(path: Path) -> Path:
    """Creates a new folder: `path`, or `path_2`, `path_3`, ... if it exists. No two processes get the same one.

    Raises:
        RunError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = path if number == 1 else path.with_name(f"{path.name}_{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error
    raise AssertionError("unreachable")


@contextlib.contextmanager
def claimed_folder(folder: Path, lock_name: str, *, taken: str, what: str) -> Iterator[None]:
    """Locks a folder for this process within the block; removes it if nothing was written.

    Args:
        folder: Created if missing.
        lock_name: Of the lock file in it.
        taken: The message if another process has it.
        what: Its name in the message if it cannot be written.

    Raises:
        RunError: Another process has it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / lock_name)
        lock.acquire(blocking=False)
    except Timeout:
        raise RunError(taken) from None
    except OSError as error:
        raise RunError(f"{what} {folder} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / lock_name).unlink(missing_ok=True)  # while locked: a waiting process sees that it is gone
            folder.rmdir()  # only if nothing was written
        lock.release()
