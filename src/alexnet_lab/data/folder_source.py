"""A folder of images as the contents of a store."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from alexnet_lab.data.folders import Listing, fingerprint, list_images
from alexnet_lab.data.images import read_image
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
        DataError: A class has no folder or no file.
    """
    listings = {"train": list_images(root / "train", classes)}
    if (root / test).is_dir():
        listings["test"] = list_images(root / test, classes)
    if val is not None:
        listings["val"] = list_images(root / val, classes)
    parts = {name: _part(root, listing, size, channels) for name, listing in listings.items()}
    marks = "".join(fingerprint(root, listing) for listing in listings.values())
    return Contents(str(root), classes, (channels, size, size), parts, marks)


def _part(root: Path, listing: Listing, size: int, channels: int) -> Part:
    names = [str(path.relative_to(root)) for path in listing.paths]
    read = partial(_read, listing.paths, size, channels)
    return Part(np.array(listing.labels, dtype=np.int64), read, names)


def _read(paths: list[Path], size: int, channels: int, number: int) -> NDArray[np.uint8]:
    return read_image(paths[number], size, channels)
