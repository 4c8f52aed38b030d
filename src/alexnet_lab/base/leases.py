"""GPU leases: locks in a folder of this user. The operating system releases the locks of a killed process.

A lease is a lock on a *slot* of each GPU. Another lock, the door, is held while slots are checked and taken, so no
process holds some of its GPUs while it waits for the others. The processes of a job share the locks of its lease, which
ends with the last of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from alexnet_lab.base.errors import RunError

SHARED = "ALEXNET_LAB_LEASE"
"""The variable that names the locks of a lease to the workers that share it."""


def default_folder() -> Path:
    """Where this user's locks lie: on this machine, not on a disk that others share."""
    return Path(tempfile.gettempdir()) / f"alexnet-lab-gpus-{os.getuid()}"


class Lease(NamedTuple):
    """Some GPUs that a job may use."""

    gpus: tuple[str, ...]  # their UUIDs
    locks: tuple[Path, ...]
    handles: tuple[int, ...]

    def release(self) -> None:
        """Ends this process's share of the lease, as the end of the process does."""
        for handle in self.handles:
            os.close(handle)


def take(gpus: Sequence[str], count: int, per_gpu: int = 1, folder: Path | None = None) -> Lease | None:
    """Takes some of the GPUs, the least used first; None if too few are free at the moment.

    A GPU is free if fewer than `per_gpu` jobs use it, and each of them allows as many.

    Args:
        gpus: UUIDs of those that may be taken.
        count: How many are needed.
        per_gpu: How many jobs may share one.
        folder: Of the locks; None: `default_folder`.

    Raises:
        RunError: The folder cannot be written, or belongs to another user.
    """
    place = _prepared(folder or default_folder())
    with FileLock(place / "door.lock"):
        used = {gpu: _used(place, gpu, per_gpu) for gpu in gpus}
        free = sorted((gpu for gpu in gpus if used[gpu] < per_gpu), key=lambda gpu: used[gpu])
        if len(free) < count:
            return None
        slots = [_take_slot(place, gpu, per_gpu) for gpu in free[:count]]
    locks, handles = zip(*slots, strict=True)
    return Lease(tuple(free[:count]), locks, handles)


def share() -> None:
    """Makes this process share the lease that its environment names, until the process ends."""
    for lock in filter(None, os.environ.get(SHARED, "").split(os.pathsep)):
        with contextlib.suppress(OSError):  # someone has cleaned the temporary folder
            fcntl.flock(os.open(lock, os.O_RDWR), fcntl.LOCK_SH | fcntl.LOCK_NB)


def _prepared(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise RunError(f"the locks of the GPUs, {folder}, cannot be written: {error.strerror or error}") from error
    if owner != os.getuid() or folder.is_symlink():
        raise RunError(f"{folder}, for the locks of the GPUs, belongs to another user; set TMPDIR to a folder of yours")
    return folder


def _used(folder: Path, gpu: str, per_gpu: int) -> int:
    """The number of slots of a GPU that are taken; `per_gpu` if a job with another `per_gpu` uses the GPU."""
    taken = [lock for lock in folder.glob(f"{gpu}.*.lock") if _try(lock) is None]
    return len(taken) if all(lock.name.startswith(f"{gpu}.{per_gpu}.") for lock in taken) else per_gpu


def _take_slot(folder: Path, gpu: str, per_gpu: int) -> tuple[Path, int]:
    """The lock of the first free slot and its handle, held so that workers can share it."""
    for slot in range(per_gpu):
        lock = folder / f"{gpu}.{per_gpu}.{slot}.lock"
        handle = _try(lock, keep=True)
        if handle is not None:
            fcntl.flock(handle, fcntl.LOCK_SH)
            return lock, handle
    raise AssertionError("unreachable: the slots were counted under the same door")


def _try(lock: Path, *, keep: bool = False) -> int | None:
    """A handle of a lock that no other process holds, closed unless `keep` is set; None if another one holds it."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    if not keep:
        os.close(handle)
    return handle
