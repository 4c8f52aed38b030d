"""The data module of image folders: `<root>/train/<class>/*`, optionally `<root>/val/<class>/*`."""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.base.errors import DataError
from alexnet_lab.base.printable import printable
from alexnet_lab.base.ranges import NonNegativeInt, UnitInterval
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.field_rules import check_folders
from alexnet_lab.data.folders import (
    check_test_classes,
    choose_classes,
    class_folders,
    list_images,
    warn_of_loose_images,
)
from alexnet_lab.data.source_files import SourceFiles, look_up
from alexnet_lab.data.store import Contents, Part, exists


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
    for folder in folders.values():
        warn_of_loose_images(root / folder, class_folders(root / folder))
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


log = logging.getLogger(__name__)


class FolderDataModule(ImageDataModule):
    """Images in class folders. `val/` is the test set; without it, a part of the images is split off as one.

    The store is made again when files were added, removed, renamed or changed: see `source_files` for what a start
    looks up. Once made, the store does not need the folder.

    Attributes:
        root: The folder with `train/`; None: `<dir>/<name>`.
        classes: The classes to use, in the order of their labels; None: all.
        test_fraction: Fraction of the images that becomes the test set without a `val/`.
        test_seed: Of that split.
        stored_size: The shorter side is scaled to this, and the centre square stored.
        channels: 1 turns the images grey.
        test_folder: Name of the test set's folder in `root`. Any other than `val` must exist.
        val_folder: Name of a folder in `root` with validation images, which requires `val_fraction` = 0; None:
            validation images are split off the training images.
        readable: Readable names, by the names of the class folders.

    Raises:
        ConfigError: As `ImageDataModule`, or one folder would be used twice.
    """

    root: str | None = None
    classes: list[str] | None = None
    test_fraction: UnitInterval = 0.1
    test_seed: NonNegativeInt = 0
    skip_unreadable: bool = False

    test_folder = "val"
    val_folder = None
    readable: ClassVar[dict[str, str]] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_folders(self.test_folder, self.val_folder, self.val_fraction)

    @property
    def folder(self) -> Path:
        """The folder with `train/`."""
        return Path(self.root or Path(self.dir) / str(self.name))

    def store_name(self) -> str:
        """Contains a hash of everything that determines the arrays, except the content of the folder."""
        facts: tuple[Any, ...] = (str(self.folder.resolve()), self.classes, self.channels, self.skip_unreadable)
        if (self.test_folder, self.val_folder) != ("val", None):
            facts = (*facts, self.test_folder, self.val_folder)
        return f"{self.name}-{self.stored_size}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"

    def contents(self) -> Contents:
        """Lists the files; see `load_folder`."""
        for folder in filter(None, (self.test_folder, self.val_folder)):
            check_test_classes(self.folder, folder)
            if folder != "val" and not (self.folder / folder).is_dir():
                raise DataError(f"there is no folder {self.folder / folder}; put <class>/*.jpg there")
        self._warn_of_unused_sets()
        folders = choose_classes(self.folder, self.classes)
        found = load_folder(
            self.folder, folders, self.stored_size, self.channels, test=self.test_folder, val=self.val_folder
        )
        return found._replace(class_names=[self.readable.get(name, name) for name in folders])

    def _warn_of_unused_sets(self) -> None:
        test = f"{self.test_folder}/" if (self.folder / self.test_folder).is_dir() else "a part of train/"
        for name in ("val", "test"):
            if name not in (self.test_folder, self.val_folder) and (self.folder / name).is_dir():
                log.warning(
                    "%s: %s/ is not used, the test set is %s; data=image_folder has data.test_folder and "
                    "data.val_folder to choose", self.folder, name, test,
                )  # fmt: skip

    def make_store(self) -> None:
        """Makes the store if it is missing, or if the folder has changed since."""
        folder = self.folder if self.folder.is_dir() else None
        if folder is None and exists(self.store_path):
            log.info("there is no folder %s, but its images are in the store %s", self.folder, self.store_path)
        self.make_store_of(self.contents, folder)
