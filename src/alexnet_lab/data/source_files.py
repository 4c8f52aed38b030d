"""The list of files that a store was made from, used to detect changes: `files.npz` in the store's folder.

As in build systems, a file with the recorded size, times and inode is unchanged; for any other file the content
decides. The content also decides for files written just before the list was made (git calls them racy), because they
may have been written again within the same tick of the file system's clock.

A source of up to `MANY` files is looked up file by file at each start. Of a larger one, a start looks up the folders,
whose times change when a file in them is added, removed, renamed or replaced, and a sample of the files
(`folders.npz`). If these have their recorded states, nothing is listed. A single file that was overwritten in place may
be missed; `data.verify=full` looks up all files.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader, BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.base.files import atomic_path, stamp
from alexnet_lab.base.printable import printable
from alexnet_lab.data.images import read_image
from alexnet_lab.data.preparation_bar import progress_bar

log = logging.getLogger(__name__)

NAME = "files.npz"
"""The file name in a store's folder."""

TICK_NS = 2_000_000_000
"""The coarsest clock of a file system in use: FAT's, two seconds."""

DIGEST_BYTES = 16

NO_FILE = (-1, 0, 0, 0)
"""The state of anything but a regular file: a folder, a pipe, a broken link."""

THREADS = 16
"""The number of threads that read files; they mostly wait for the disk."""


class SourceFiles(NamedTuple):
    """The state of files below a folder at one time."""

    root: Path
    names: Sequence[str]  # relative to `root`, (N,)
    states: NDArray[np.int64]  # (N, 4): size in bytes, modification and change time in ns, inode; or NO_FILE
    digests: NDArray[np.uint8]  # (N, 16), of the content; zeros until it is read, or if it cannot be read
    seen_ns: int  # the time of the states

    def read(self, rows: NDArray[np.int64], title: str) -> None:
        """Computes the digests of some rows, with a progress bar."""
        with ThreadPoolExecutor(THREADS) as pool, progress_bar(title, len(rows)) as advance:
            for row, digest in zip(rows, pool.map(self.digest, rows), strict=True):
                self.digests[row] = digest
                advance(1)

    def digest(self, row: int) -> NDArray[np.uint8]:
        """The hash (16,) of a file's content; zeros if it cannot be read."""
        with contextlib.suppress(OSError):
            if self.states[row, 0] >= 0:
                with self.opened(row) as file:
                    return digest_of(file)
        return np.zeros(DIGEST_BYTES, np.uint8)

    def opened(self, row: int) -> BufferedReader | BytesIO:
        """The content of a file; raises OSError if it cannot be read."""
        return (self.root / self.names[row]).open("rb")

    def image(self, row: int, size: int, channels: int) -> NDArray[np.uint8]:
        """Decodes a file to (channels, size, size), and adds its digest; raises as `read_image`."""
        self.digests[row] = self.digest(row)
        return read_image(self.root / self.names[row], size, channels)

    def save(self, folder: Path) -> None:
        """Writes the table atomically; raises OSError."""
        with atomic_path(folder / NAME) as part, part.open("wb") as file:
            names = np.frombuffer(joined(self.names), np.uint8)
            np.savez(file, names=names, states=self.states, digests=self.digests, seen_ns=np.int64(self.seen_ns))

    def change_since(self, folder: Path) -> str | None:
        """Describes what has changed since the table in `folder` was written; if nothing, updates it and returns None.

        Reads the content of files whose state differs from the table's, and of files that were too fresh then.
        """
        table = _load(folder / NAME)
        if table is None:
            return "it was prepared by an earlier version, or its list of files is damaged"
        names, states, digests, seen_ns = table
        if names != joined(self.names):
            return "files were added, removed or renamed"
        doubtful = np.flatnonzero((states != self.states).any(axis=1) | too_fresh(states, seen_ns))
        self.digests[:] = digests
        if not len(doubtful):
            return None
        self.read(doubtful, "checking")
        changed = doubtful[(self.digests[doubtful] != digests[doubtful]).any(axis=1)]
        if len(changed):
            first = printable(self.names[int(changed[0])])
            return f"the content of {first}{f' and {len(changed) - 1:,} more' if len(changed) > 1 else ''} has changed"
        try:
            self.save(folder)
        except OSError as error:  # read-only: the same files are read again next time
            log.debug("%s was not brought up to date: %s", folder / NAME, error)
        return None

    def unchanged_rows(self, folder: Path) -> NDArray[np.int64]:
        """The row (N,) that each file has in the table in `folder`; -1 if it is not there as it is now.

        Fills in the digests of those that are.
        """
        rows = np.full(len(self.names), -1)
        table = _load(folder / NAME)
        if table is None:
            return rows
        names, states, digests, seen_ns = table
        known = {name: row for row, name in enumerate(names.split(b"\0"))}
        fresh = too_fresh(states, seen_ns)
        for row, name in enumerate(self.names):
            before = known.get(os.fsencode(name), -1)
            if before >= 0 and not fresh[before] and (states[before] == self.states[row]).all():
                rows[row] = before
                self.digests[row] |= digests[before]  # zeros if it was not read yet
        return rows


def look_up(root: Path, names: Sequence[str], *, since_ns: int | None = None) -> SourceFiles:
    """The current state of files, by one call of stat each; their content is not read.

    Args:
        root: The folder of the files.
        names: Of the files, relative to `root`.
        since_ns: When they began to be listed, as `time.time_ns()`; None: now.
    """
    seen_ns = since_ns or time.time_ns()
    return SourceFiles(root, names, states_of(root, names), np.zeros((len(names), DIGEST_BYTES), np.uint8), seen_ns)


def states_of(root: Path, names: Sequence[str], *, folders: bool = False) -> NDArray[np.int64]:
    """The states (N, 4) of files, or of files and folders: see `SourceFiles`."""
    start = f"{root}{os.sep}"
    states = [_state(start + name, folders) for name in names]
    return np.array(states, dtype=np.int64).reshape(-1, len(NO_FILE))


def _state(path: str, folders: bool) -> tuple[int, int, int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - a million Path objects would take longer than the calls themselves
    except OSError:
        return NO_FILE
    known = stat.S_ISREG(found.st_mode) or (folders and stat.S_ISDIR(found.st_mode))
    return stamp(found) if known else NO_FILE


def digest_of(content: BufferedReader | BytesIO) -> NDArray[np.uint8]:
    """The hash (16,) of a file's content."""
    digest = hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).digest()
    return np.frombuffer(digest, np.uint8)


def joined(names: Sequence[str]) -> bytes:
    """File names as the bytes that a table contains."""
    return os.fsencode("\0".join(names))


def too_fresh(states: NDArray[np.int64], seen_ns: int) -> NDArray[np.bool_]:
    """Which files (N,) were written just before they were seen, and perhaps again within the same tick."""
    return states[:, 1:3].max(axis=1, initial=0) >= seen_ns - TICK_NS


def read_arrays(path: Path, *names: str) -> list[NDArray[Any]] | None:
    """Some arrays of an `.npz` file; None if one of them is missing or damaged: a zip file has checksums."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return [archive[name] for name in names]
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _load(path: Path) -> tuple[bytes, NDArray[np.int64], NDArray[np.uint8], int] | None:
    """The table in a file; None if it is missing or damaged."""
    table = read_arrays(path, "names", "states", "digests", "seen_ns")
    if table is None:
        return None
    names, states, digests, seen_ns = table
    return names.tobytes(), states, digests, int(seen_ns)


FOLDERS = "folders.npz"
"""The file name in a store's folder of the states of folders and of a sample."""

MANY = 1 << 16
"""Files that take 0.2 s to look up on a local disk; CIFAR-10 has 60,000."""

SAMPLE = 1 << 12
"""Files of a larger source that are looked up, spread evenly: they reveal that a whole data set was converted."""


def remember(folder: Path, files: SourceFiles, images: int) -> None:
    """Records the folders and the sample of a large source in the store at `folder`; nothing of a small one.

    Args:
        folder: Of the store.
        files: Of the source; the first ones are the images.
        images: The number of images.
    """
    if len(files.names) <= MANY:
        return
    names = _watched(files, images)
    table = {"names": np.frombuffer(joined(names), np.uint8), "states": states_of(files.root, names, folders=True)}
    try:
        with atomic_path(folder / FOLDERS) as part, part.open("wb") as file:
            np.savez(file, seen_ns=np.int64(files.seen_ns), **table)
    except OSError as error:  # read-only: the next start looks up all files
        log.debug("%s was not written: %s", folder / FOLDERS, error)


def is_unchanged(folder: Path, root: Path) -> bool:
    """Whether the source below `root` is that of the store at `folder`; False if only a look at all files can tell."""
    table = read_arrays(folder / FOLDERS, "names", "states", "seen_ns")
    if table is None:
        return False
    names, states, seen_ns = table
    watched = os.fsdecode(names.tobytes()).split("\0")
    fresh = too_fresh(states, int(seen_ns)).any()
    return not fresh and np.array_equal(states_of(root, watched, folders=True), states)


def _watched(files: SourceFiles, images: int) -> list[str]:
    """The names of the folders, of the sample, and of the files that are no images; the first names are the images."""
    folders = {os.path.dirname(name) for name in files.names}  # noqa: PTH120 - a million Path objects take seconds
    folders |= {str(parent) for folder in folders for parent in PurePosixPath(folder).parents}
    sample = np.linspace(0, images - 1, min(images, SAMPLE)).astype(int)
    return [*sorted(folders), *(files.names[int(row)] for row in sample), *files.names[images:]]
