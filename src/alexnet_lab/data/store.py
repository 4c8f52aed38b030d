"""The store: a data set decoded once, as uint8 arrays on disk that every process memory-maps.

A folder `<dir>/store/<name>/` with `train_images.npy` (N, C, S, S), `train_labels.npy` (N,), the same for an official
`test` set, and `meta.json`. It is built in a temporary folder and renamed when it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from alexnet_lab.base.checked_files import read_json
from alexnet_lab.base.cores import available_cores
from alexnet_lab.base.errors import DataError, RunError, one_line
from alexnet_lab.base.files import is_whole, sealed, sha256, write_json
from alexnet_lab.data.images import strict_decoding
from alexnet_lab.data.preparation_bar import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from alexnet_lab.data.source_files import SourceFiles

log = logging.getLogger(__name__)

FORMAT = 1
"""The version of the folder's format; raised when the meaning of its content changes."""

META_KEYS = {"source", "class_names", "shape", "files", "skipped"}
"""Keys of meta.json besides its format, its checksum and, by part, the hash of the source files (`sources`)."""

CHUNK = 64
"""Images that a thread decodes at once."""


MOST_NAMED = 5
"""The most files that a warning names."""


class Part(NamedTuple):
    """The training or the test images of a source, not yet read."""

    labels: NDArray[np.int64]  # (N,)
    read: Callable[[int], NDArray[np.uint8]]  # number of an image -> (C, S, S); raises if it cannot be read
    names: Sequence[str] = ()  # of the images, for messages; empty: their numbers
    source_hash: Callable[[], str] | None = None  # of the files and labels, after all have been read


class Contents(NamedTuple):
    """The content of a store that is to be made."""

    source: str  # its origin, for readers
    class_names: list[str]
    shape: tuple[int, int, int]  # of an image: (C, S, S)
    parts: dict[str, Part]  # "train", and "test" for an official test set
    files: SourceFiles | None = None  # of the source, if it may change


class Store(NamedTuple):
    """An opened store."""

    path: Path
    meta: dict[str, Any]
    images: dict[str, NDArray[np.uint8]]  # by part: (N, C, S, S), memory-mapped
    labels: dict[str, NDArray[np.int64]]  # by part: (N,)

    @property
    def class_names(self) -> list[str]:
        """In the order of the labels."""
        return self.meta["class_names"]

    @property
    def hash(self) -> str:
        """A hash of all arrays and class names, equal if and only if the images are equal."""
        return self._hash("")

    @property
    def files_hash(self) -> str | None:
        """A hash of the source files, equal for stores of other sizes. None without files."""
        parts = self.meta.get("sources") or {}
        lines = [*(f"{name} {digest}" for name, digest in sorted(parts.items())), *self.class_names]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest() if parts else None

    def rows_hash(self, part: str, rows: NDArray[np.int64], *, by_files: bool = False) -> str | None:
        """A hash of some rows of a part, in order.

        Args:
            part: "train" or "test".
            rows: (n,).
            by_files: Hash the source files, which are the same for stores of other sizes. None without files.
        """
        images = self.meta.get("sources", {}).get(part) if by_files else self._hash(f"{part}_")
        return images and hashlib.sha256(images.encode() + rows.astype("<i8").tobytes()).hexdigest()

    def _hash(self, start: str) -> str:
        files = self.meta["files"].items()
        parts = [f"{name} {entry['sha256']}" for name, entry in sorted(files) if name.startswith(start)]
        return hashlib.sha256("\n".join([*parts, *self.class_names]).encode()).hexdigest()


def exists(path: Path) -> bool:
    """Whether there is a store at `path`, intact or not."""
    return path.is_dir()


def make_store(path: Path, contents: Callable[[], Contents], *, skip_unreadable: bool = False) -> None:
    """Makes the store at `path`, once, for any number of concurrent processes.

    Args:
        path: Of the store.
        contents: Finds the source and describes it; called only if the store is missing.
        skip_unreadable: Leave out images that cannot be read, instead of stopping.

    Raises:
        DataError: The source reports a problem, an image cannot be read, or the folder cannot be written.
    """
    if exists(path):
        return
    with _locked(path):
        if exists(path):  # another process has made it
            return
        found = _readable(contents)
        with _writable(path):
            for stale in path.parent.glob(f".{path.name}.*.part"):  # of a killed process
                shutil.rmtree(stale)
            _build(path, found, skip_unreadable)


def replace_store(path: Path, contents: Contents, *, skip_unreadable: bool = False) -> None:
    """Makes the store at `path` again if the source files have changed.

    Processes that mapped the old store keep it until they end.
    """
    files = contents.files
    reason = files and files.change_since(path)
    if files is None or reason is None:
        return
    log.info("the files in %s have changed: preparing them again (%s)", contents.source, reason)
    before = read_meta(path)
    with _locked(path):
        if read_meta(path) != before and files.change_since(path) is None:
            return  # another process has made it
        with _writable(path):
            _build(path, contents, skip_unreadable)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Locks a store; waits while another process makes it."""
    lock = FileLock(path.parent / f".{path.name}.lock")
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            log.info("another process is preparing %s; waiting for it", path)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _readable(contents: Callable[[], Contents]) -> Contents:
    """Reports a source file that cannot be read."""
    try:
        return contents()
    except OSError as error:
        raise DataError(f"cannot read {error.filename or 'the data set'} ({error.strerror or error})") from error


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Reports a folder that cannot be written, or a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DataError(f"the disk is full: {path} could not be written; make room or set data.dir") from error
        reason = error.strerror or error
        raise DataError(
            f"cannot write {path} ({reason}); set data.dir (or ALEXNET_LAB_DATA) to a folder you may write to"
        ) from error


def _build(path: Path, contents: Contents, skip_unreadable: bool) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        temporary.chmod(0o755)
        skipped = [
            failure
            for name, part in contents.parts.items()
            for failure in _write_part(temporary, name, part, contents.shape, skip_unreadable)
        ]
        write_json(temporary / "meta.json", sealed(_meta(temporary, contents, skipped)))
        if contents.files is not None:
            contents.files.save(temporary)
        _swap(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _swap(new: Path, path: Path) -> None:
    """Puts the folder `new` at `path`; the old one is moved away first and then deleted."""
    old = new.with_suffix(".old.part")
    if exists(path):
        path.replace(old)
    new.replace(path)
    shutil.rmtree(old, ignore_errors=True)


def _meta(folder: Path, contents: Contents, skipped: list[str]) -> dict[str, Any]:
    files = {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in sorted(folder.glob("*.npy"))}
    return {
        "format": FORMAT,
        "source": contents.source,
        "sources": {name: part.source_hash() for name, part in contents.parts.items() if part.source_hash},
        "class_names": contents.class_names,
        "shape": list(contents.shape),
        "files": files,
        "skipped": skipped,
    }


def _write_part(folder: Path, name: str, part: Part, shape: tuple[int, int, int], skip: bool) -> list[str]:
    """Writes images and labels of one part; returns what was left out, as "file: reason".

    Raises:
        DataError: An image cannot be read and `skip` is not set, or a class has no readable image.
    """
    path = folder / f"{name}_images.npy"
    failures = _decode_all(path, name, part, shape)
    kept = np.setdiff1d(np.arange(len(part.labels)), np.array(sorted(failures), dtype=np.int64))
    notes = [f"{part.names[i] if part.names else i}: {failures[i]}" for i in sorted(failures)]
    if failures:
        others = f" and {len(notes) - 1} more of {len(part.labels)}" if len(notes) > 1 else ""
        if not skip or len(kept) == 0:
            raise DataError(f"cannot read {notes[0]}{others}; repair or delete, or set data.skip_unreadable=true")
        _check_classes(part.labels, kept, notes)
        rest = f"; and {len(notes) - MOST_NAMED} more, which meta.json lists" if len(notes) > MOST_NAMED else ""
        named = "; ".join(notes[:MOST_NAMED]) + rest
        log.warning("left out %d of %d images that cannot be read: %s", len(notes), len(part.labels), named)
        _keep_rows(path, kept)
    np.save(folder / f"{name}_labels.npy", part.labels[kept].astype(np.int64))
    return notes


def _check_classes(labels: NDArray[np.int64], kept: NDArray[np.int64], notes: list[str]) -> None:
    """Raises if a class of a part has lost all its images and could be neither learned nor tested."""
    lost = np.setdiff1d(labels, labels[kept])
    if len(lost):
        failures = np.setdiff1d(np.arange(len(labels)), kept)
        first = notes[int(np.flatnonzero(labels[failures] == lost[0])[0])]
        raise DataError(f"no image of a class can be read ({first}); repair its images, or leave the class out")


def _decode_all(path: Path, name: str, part: Part, shape: tuple[int, int, int]) -> dict[int, str]:
    """Writes all images of a part to an array on disk; returns number -> reason for those that cannot be read.

    Threads decode (Pillow and the copy release the GIL) and write each image at its own place, so the file does not
    depend on the number of threads.
    """
    n = len(part.labels)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, *shape))
    _reserve(path)

    def decode(start: int) -> dict[int, str]:
        failures = {}
        for i in range(start, min(start + CHUNK, n)):
            try:
                array[i] = part.read(i)
            except Exception as error:  # Pillow raises anything for a damaged file
                failures[i] = one_line(error) or type(error).__name__
        return failures

    failures: dict[int, str] = {}
    starts = range(0, n, CHUNK)
    pool = ThreadPoolExecutor(_num_threads())
    try:
        with strict_decoding(), progress_bar(f"preparing {name}", n) as advance:
            for start, found in zip(starts, pool.map(decode, starts), strict=True):
                failures |= found
                advance(min(CHUNK, n - start))
    finally:
        pool.shutdown(cancel_futures=True)  # after an interrupt, do not decode the rest
    array.flush()
    return failures


def _keep_rows(path: Path, kept: NDArray[np.int64]) -> None:
    """Rewrites an array on disk with some of its rows, without loading it."""
    source = np.load(path, mmap_mode="r")
    shorter = path.with_suffix(".short")
    target = np.lib.format.open_memmap(shorter, mode="w+", dtype=source.dtype, shape=(len(kept), *source.shape[1:]))
    for start in range(0, len(kept), CHUNK):
        target[start : start + CHUNK] = source[kept[start : start + CHUNK]]
    target.flush()
    shorter.replace(path)


def _reserve(path: Path) -> None:
    """Reserves the disk space: a full disk under a mapped file would kill the process without a message."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _num_threads() -> int:
    """One per core that this process may use, up to 16."""
    return min(available_cores(), 16)


def read_meta(path: Path) -> dict[str, Any]:
    """Reads `meta.json` of the store at `path`.

    Raises:
        DataError: It is missing, not JSON, of another format, or damaged.
    """
    file = path / "meta.json"
    try:
        meta = read_json(file)
    except (OSError, RunError) as error:
        raise _damaged(path, f"{file.name} cannot be read ({error.__cause__ or error})") from error
    if not isinstance(meta, dict) or "format" not in meta:
        raise _damaged(path, f"{file.name} is not that of a store")
    if meta["format"] != FORMAT:
        raise _damaged(path, f"its format is {meta['format']}, this version reads {FORMAT}")
    if not is_whole(meta) or not set(meta) >= META_KEYS:
        raise _damaged(path, f"{file.name} has changed (its checksum differs)")
    return meta


def open_store(path: Path, *, verify: bool) -> Store:
    """Opens the store at `path`.

    Args:
        path: Of the store.
        verify: Check the SHA-256 of each file, not only its size; reads every byte once.

    Raises:
        DataError: There is no store, or it is damaged; the message says what to delete.
    """
    if not exists(path):
        raise DataError(f"there is no store {path}; prepare_data() makes it, but was not called")
    meta = read_meta(path)
    try:
        for name, entry in meta["files"].items():
            _check_file(path, path / name, entry, verify)
        parts = [name.removesuffix("_images.npy") for name in meta["files"] if name.endswith("_images.npy")]
        images = {part: np.load(path / f"{part}_images.npy", mmap_mode="r") for part in parts}
        labels = {part: np.load(path / f"{part}_labels.npy") for part in parts}
    except (OSError, ValueError) as error:  # ValueError: unverified, and no array
        raise _damaged(path, f"a file cannot be read ({error})") from error
    return Store(path, meta, images, labels)


def _check_file(store: Path, file: Path, entry: dict[str, Any], verify: bool) -> None:
    if not file.is_file():
        raise _damaged(store, f"{file.name} is missing")
    size = file.stat().st_size
    if size != entry["bytes"]:
        raise _damaged(store, f"{file.name} has {size:,} bytes instead of {entry['bytes']:,}")
    if verify and sha256(file) != entry["sha256"]:
        raise _damaged(store, f"{file.name} has changed (its SHA-256 differs)")


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"the store {path} is damaged: {what}; delete {path}, the next start makes it again")
