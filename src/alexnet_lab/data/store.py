"""The store: a data set decoded once, as uint8 arrays on disk that every process memory-maps; `store_writing` makes it.

A folder `<dir>/store/<name>/` with `train_images.npy` (N, C, S, S), `train_labels.npy` (N,), the same for an official
`test` set, and `meta.json`. It is built in a temporary folder and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Len
from numpy.typing import NDArray
from pydantic import Field

from alexnet_lab.base.checked_files import Schema, Total, check_record, read_json
from alexnet_lab.base.errors import ConfigError, DataError, RunError
from alexnet_lab.base.files import is_whole, sha256, usable
from alexnet_lab.data.array_writer import damage_of_shards
from alexnet_lab.data.source_files import SourceFiles

__all__ = ["Contents", "Part"]

FORMAT = 1
"""The version of the folder's format; raised when the meaning of its content changes."""


class Shards(Schema):
    """How an array is divided for verification; see `array_writer`."""

    count: Total
    shape: list[Total]
    bytes: Total
    crc32: list[Total]


class File(Schema):
    """An array on disk."""

    bytes: Total
    sha256: str
    shards: Shards | None = None


class Meta(Schema):
    """The fields of meta.json besides its format and its checksum."""

    source: str
    sources: dict[str, str] = Field(default_factory=dict)  # by part, the hash of the source files
    class_names: list[str]
    shape: Annotated[list[Total], Len(3, 3)]
    files: dict[str, File]
    skipped: list[str]


class Part(NamedTuple):
    """The training or the test images of a source, not yet read.

    Example:
        >>> part = Part(np.array([0, 1]), lambda number: np.full((1, 8, 8), number, np.uint8))
        >>> int(part.read(1).max())
        1
    """

    labels: NDArray[np.int64]  # (N,)
    read: Callable[[int], NDArray[np.uint8]]  # number of an image -> (C, S, S); raises if it cannot be read
    names: Sequence[str] = ()  # of the images, for messages; empty: their numbers
    source_hash: Callable[[], str] | None = None  # of the files and labels, after all have been read
    rows: range | None = None  # of the images' files in `Contents.files`; None: not each image has a file


class Contents(NamedTuple):
    """The content of a store that is to be made.

    Example:
        >>> part = Part(np.array([0, 1]), lambda number: np.zeros((1, 8, 8), np.uint8))
        >>> Contents("two black squares", ["left", "right"], (1, 8, 8), {"train": part}).file_rows
        {}
    """

    source: str  # its origin, for readers
    class_names: list[str]
    shape: tuple[int, int, int]  # of an image: (C, S, S)
    parts: dict[str, Part]  # "train", and "test" for an official test set
    files: SourceFiles | None = None  # of the source, if it may change

    @property
    def num_images(self) -> int:
        """The images of all parts."""
        return sum(len(part.labels) for part in self.parts.values())

    @property
    def file_rows(self) -> dict[str, slice]:
        """By part, the rows of its images in `files`; empty unless each image has a file."""
        rows = {name: part.rows for name, part in self.parts.items()}
        if self.files is None or None in rows.values():
            return {}
        return {name: slice(found.start, found.stop) for name, found in rows.items() if found is not None}


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
    """Whether there is a store at `path`, intact or not; raises RunError if that cannot be looked up."""
    return usable(path).is_dir()


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
    if not is_whole(meta):
        raise _damaged(path, f"{file.name} has changed (its checksum differs)")
    try:
        check_record(Meta, meta, file.name)
    except RunError as error:
        raise _damaged(path, str(error)) from error
    return meta


def open_store(path: Path, *, verify: bool) -> Store:
    """Opens the store at `path`.

    Args:
        path: Of the store.
        verify: Check the content of each file, not only its size; reads every byte once.

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
    if not verify:
        return
    if entry.get("shards"):
        damage = damage_of_shards(file, entry["shards"])
    else:
        damage = None if sha256(file) == entry["sha256"] else "its checksum differs"
    if damage is not None:
        raise _damaged(store, f"{file.name} has changed ({damage})")


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"the store {path} is damaged: {what}; delete {path}, the next start makes it again")


def check_fields(store: Store, num_classes: int, channels: int, stored_size: int) -> None:
    """Raises ConfigError unless the store matches the fields of a data module."""
    found = len(store.class_names)
    if found != num_classes:
        raise ConfigError(f"`data.num_classes` is {num_classes}, but {store.path} has {found} classes")
    if store.meta["shape"] != [channels, stored_size, stored_size]:
        found_channels, size, _ = store.meta["shape"]
        raise ConfigError(
            f"`data.channels` is {channels} and `data.stored_size` {stored_size}, "
            f"but {store.path} has images with {found_channels} and {size}"
        )
