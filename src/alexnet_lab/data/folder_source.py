"""A folder of images as the contents of a store."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import numpy as np

from alexnet_lab.base.printable import printable
from alexnet_lab.data.folders import list_images
from alexnet_lab.data.source_files import SourceFiles, look_up
from alexnet_lab.data.store import Contents, Part

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def load_folder(
    root: Path, classes: list[str], size: int, channels: int, *, test: str = "val", val: str | None = None
) -> Contents:
    """The images of `<root>/train/<class>`, and of `<root>/<test>/<class>` as the test set if that folder exists.

    Args:
        root: Of the data set.
        classes: Names of the class folders, in the order of the labels.
        size: Side of the stored images, in pixels.
        channels: 1 or 3.
        test: Name of the folder of the test set.
        val: Name of the folder of the validation set; None: there is none.

    Raises:
        DataError: A class has no folder or no file, or a folder cannot be read.
    """
    begun = time.time_ns()
    folders = {"train": "train"} | ({"test": test} if (root / test).is_dir() else {}) | ({"val": val} if val else {})
    listings = {part: list_images(root / folder, classes) for part, folder in folders.items()}
    names = [f"{folders[part]}/{name}" for part, listing in listings.items() for name in listing.names]
    files = look_up(root, names, since_ns=begun)
    parts, first = {}, 0
    for part, listing in listings.items():
        parts[part] = image_part(files, range(first, first + len(listing.names)), listing.labels, size, channels)
        first += len(listing.names)
    return Contents(str(root), classes, (channels, size, size), parts, files)


def load_joined(
    root: Path, images: dict[str, list[str]], tables: list[str], size: int, channels: int, *, since_ns: int
) -> Contents:
    """Images without an official test set, anywhere below `root`.

    Args:
        root: Of the data set.
        images: File names below `root` by class, in the order of the labels.
        tables: Names of files below `root` that determine the labels; changing them changes the data set.
        size: Side of the stored images, in pixels.
        channels: 1 or 3.
        since_ns: When the files began to be listed, as `time.time_ns()`.
    """
    names = [name for files in images.values() for name in files]
    labels = [label for label, files in enumerate(images.values()) for _ in files]
    files = look_up(root, [*names, *tables], since_ns=since_ns)
    for row in range(len(names), len(files.names)):  # digests of images are added when they are decoded
        files.digests[row] = files.digest(row)
    parts = {"train": image_part(files, range(len(names)), labels, size, channels)}
    return Contents(str(root), list(images), (channels, size, size), parts, files)


def image_part(files: SourceFiles, rows: range, labels: list[int], size: int, channels: int) -> Part:
    """Some of the files as a part of a store; a file's digest is added when it is decoded.

    Args:
        files: All files.
        rows: Those of the part.
        labels: Of each row.
        size: Side of the stored images, in pixels.
        channels: 1 or 3.
    """

    def source_hash() -> str:
        labelled = np.array(labels, dtype=np.int64).tobytes()
        return hashlib.sha256(files.digests[rows.start : rows.stop].tobytes() + labelled).hexdigest()

    def read(number: int) -> NDArray[np.uint8]:
        return files.image(rows[number], size, channels)

    names = [printable(files.names[row]) for row in rows]
    return Part(np.array(labels, dtype=np.int64), read, names, source_hash, rows)
