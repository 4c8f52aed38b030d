"""Makes a store: decodes the images of a source in threads, and writes them in their order.

The store grows in `<dir>/store/.<hash>.part` and is renamed when it is complete. A preparation that was interrupted
continues there, at the first image that is not written or whose file has changed since. A store whose source files
have changed takes the images of unchanged files from its predecessor instead of decoding them again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from alexnet_lab.base.cores import available_cores
from alexnet_lab.base.errors import DataError, one_line
from alexnet_lab.base.files import sealed, sha256, write_json
from alexnet_lab.base.read_ahead import read_ahead
from alexnet_lab.data.array_writer import ArrayWriter
from alexnet_lab.data.images import strict_decoding
from alexnet_lab.data.preparation_bar import progress_bar
from alexnet_lab.data.source_files import SourceFiles, is_unchanged, remember
from alexnet_lab.data.store import FORMAT, Contents, Part, exists, read_meta
from alexnet_lab.data.verification import verified_store

log = logging.getLogger(__name__)

MOST_NAMED = 5
"""Files that a warning names."""

CHUNK = 16
"""Images that a thread decodes in one go."""

MOST_THREADS = 16


def make_store(
    path: Path,
    contents: Callable[[], Contents],
    *,
    folder: Path | None = None,
    look_up_all: bool = False,
    skip_unreadable: bool = False,
) -> None:
    """Makes the store at `path`, once, for any number of concurrent processes; or again if its folder has changed.

    Args:
        path: Of the store.
        contents: Finds the source and says what it holds; called only if the store has to be made or compared.
        folder: The image folder that a store was made from; None: a store that exists stays as it is.
        look_up_all: Look up every file of a large folder too: see `source_files`.
        skip_unreadable: Leave out images that cannot be read, instead of stopping.

    Raises:
        DataError: The source's own complaints; an image cannot be read; the folder cannot be written.
    """
    if not exists(path):
        with _locked(path):
            if not exists(path):  # no other process has made it
                _build(path, _readable(path, contents), skip_unreadable)
    elif folder is not None and (look_up_all or not is_unchanged(path, folder)):
        replace_store(path, _readable(path, contents), skip_unreadable=skip_unreadable)


def replace_store(path: Path, contents: Contents, *, skip_unreadable: bool = False) -> None:
    """Makes the store at `path` again if the source files have changed.

    Processes that mapped the old store keep it until they end.
    """
    files = contents.files
    if files is None:
        return
    reason = files.change_since(path)
    if reason is None:
        remember(path, files, contents.num_images)
        return
    log.info("the files in %s have changed: preparing them again (%s)", contents.source, reason)
    before = read_meta(path)
    with _locked(path):
        if read_meta(path) != before and files.change_since(path) is None:
            return  # another process has made it
        _build(path, _reusing(path, contents, files), skip_unreadable)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Locks a store or a folder in preparation; waits while another process works on it."""
    lock = FileLock(path.parent / f".{path.name.lstrip('.')}.lock")
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


def _readable(path: Path, contents: Callable[[], Contents]) -> Contents:
    """Reports a source file that cannot be read, or a disk that an unpacked archive fills."""
    with _writable(path):
        try:
            return contents()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
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
    """Writes the store beside its place, and moves it there."""
    folder = _folder_in_preparation(path, contents)
    with _locked(folder), _writable(path):
        try:
            unchanged = _unchanged_images(folder, contents)
            for stale in path.parent.glob(f".{path.name}.*.part"):  # of earlier versions
                shutil.rmtree(stale)
            if not any(unchanged.values()):
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            if contents.files is not None:
                contents.files.save(folder)  # for a start after an interruption
            _fill(folder, contents, unchanged, skip_unreadable)
            _swap(folder, path)
        except BaseException:
            if contents.file_rows:
                log.info("the images that are prepared stay in %s; the next start continues there", folder)
            else:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _folder_in_preparation(path: Path, contents: Contents) -> Path:
    """The same for both values of `skip_unreadable`."""
    facts = repr((contents.source, contents.class_names, contents.shape, list(contents.parts)))
    return path.parent / f".{hashlib.sha256(facts.encode()).hexdigest()[:16]}.part"


def _fill(folder: Path, contents: Contents, unchanged: dict[str, int], skip: bool) -> None:
    """Writes all files of a store."""
    files, skipped = {}, []
    for name, part in contents.parts.items():
        rows = contents.file_rows.get(name)
        digests = None if rows is None or contents.files is None else contents.files.digests[rows]
        writer = ArrayWriter(folder, name, len(part.labels), contents.shape, digests)
        files[writer.path.name], notes = _write_images(writer, name, part, unchanged.get(name, 0), skip)
        skipped += notes
        labels = folder / f"{name}_labels.npy"
        np.save(labels, np.delete(part.labels, sorted(writer.failures)).astype(np.int64))
        files[labels.name] = {"bytes": labels.stat().st_size, "sha256": sha256(labels)}
    meta = {
        "format": FORMAT,
        "source": contents.source,
        "sources": {name: part.source_hash() for name, part in contents.parts.items() if part.source_hash},
        "class_names": contents.class_names,
        "shape": list(contents.shape),
        "files": dict(sorted(files.items())),
        "skipped": skipped,
    }
    write_json(folder / "meta.json", sealed(meta))
    if contents.files is not None:
        contents.files.save(folder)
        remember(folder, contents.files, contents.num_images)
    for file in folder.glob("*.jsonl"):
        file.unlink()


def _swap(new: Path, path: Path) -> None:
    """Puts the folder `new` at `path`; what was there is deleted when it is out of the way."""
    old = new.with_suffix(".old.part")
    shutil.rmtree(old, ignore_errors=True)  # of a process that was killed
    if exists(path):
        path.replace(old)
    new.replace(path)
    shutil.rmtree(old, ignore_errors=True)


def _write_images(
    writer: ArrayWriter, name: str, part: Part, unchanged: int, skip: bool
) -> tuple[dict[str, Any], list[str]]:
    """Writes the images of a part; returns their entry in meta.json, and what was left out as "file: reason".

    Raises:
        DataError: An image cannot be read and `skip` is not set; or no image of a class can.
    """
    with writer.open(unchanged, accept_failures=skip), strict_decoding():
        if writer.read:
            log.info("continuing with image %d of %d of %s", writer.read + 1, len(part.labels), name)
        _decode(writer, name, part)
        failures = writer.failures
        notes = [f"{part.names[i] if part.names else i}: {failures[i]}" for i in sorted(failures)]
        if skip and notes and not writer.kept:
            raise DataError(f"none of the {len(part.labels)} images can be read: {notes[0]}; repair them")
        if notes and not skip:
            others = f" and {len(notes) - 1} more of {len(part.labels)}" if len(notes) > 1 else ""
            raise DataError(f"cannot read {notes[0]}{others}; repair or delete, or set data.skip_unreadable=true")
        if notes:
            _check_classes(part.labels, sorted(failures), notes)
            rest = f"; and {len(notes) - MOST_NAMED} more, which meta.json lists" if len(notes) > MOST_NAMED else ""
            named = "; ".join(notes[:MOST_NAMED]) + rest
            log.warning("left out %d of %d images that cannot be read: %s", len(notes), len(part.labels), named)
        return writer.finish(), notes


def _check_classes(labels: NDArray[np.int64], failures: list[int], notes: list[str]) -> None:
    """Raises if a class of a part has lost all its images: it could be neither learned nor tested."""
    lost = np.setdiff1d(labels, np.delete(labels, failures))
    if len(lost):
        first = notes[int(np.flatnonzero(labels[failures] == lost[0])[0])]
        raise DataError(f"no image of a class can be read ({first}); repair its images, or leave the class out")


def _decode(writer: ArrayWriter, name: str, part: Part) -> None:
    """Decodes the images that are missing in threads (Pillow lets go of the interpreter), and adds them in order."""
    count, threads = len(part.labels), min(available_cores(), MOST_THREADS)

    def decode(start: int) -> list[NDArray[np.uint8] | str]:
        return [_image(part, row) for row in range(start, min(start + CHUNK, count))]

    chunks = read_ahead(decode, range(writer.read, count, CHUNK), 2 * threads, threads)
    with contextlib.closing(chunks), progress_bar(f"preparing {name}", count, done=writer.read) as advance:
        for images in chunks:
            for image in images:
                writer.add(image)
            advance(len(images))


def _image(part: Part, row: int) -> NDArray[np.uint8] | str:
    """An image, or the reason why it cannot be read."""
    try:
        return part.read(row)
    except Exception as error:  # Pillow raises anything for a damaged file
        return one_line(error) or type(error).__name__


def _reusing(path: Path, contents: Contents, files: SourceFiles) -> Contents:
    """The same contents; the images of unchanged files are taken from the store at `path`, which is to be replaced."""
    try:
        store = verified_store(path)
    except DataError:
        return contents
    known = {name: range(len(store.labels[name])) for name in contents.parts if name in store.labels}
    if store.meta["skipped"] or store.meta["shape"] != list(contents.shape) or len(known) < len(store.labels):
        return contents
    places = [(name, row) for name, rows in known.items() for row in rows]  # of the files in the table, by row
    before = files.unchanged_rows(path)

    def reading(part: Part) -> Part:
        rows = part.rows

        def read(number: int) -> NDArray[np.uint8]:
            row = -1 if rows is None else before[rows[number]]
            if not 0 <= row < len(places):
                return part.read(number)
            name, place = places[row]
            return store.images[name][place]

        return part._replace(read=read)

    return contents._replace(parts={name: reading(part) for name, part in contents.parts.items()})


def _unchanged_images(folder: Path, contents: Contents) -> dict[str, int]:
    """By part, the number of images, from the first on, whose files are as they were when `folder` was begun."""
    if contents.files is None:
        return {}
    same = contents.files.unchanged_rows(folder) == np.arange(len(contents.files.names))
    return {name: int(np.logical_and.accumulate(same[rows]).sum()) for name, rows in contents.file_rows.items()}
