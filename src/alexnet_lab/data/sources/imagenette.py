"""`data=imagenette`: ten classes of ImageNet that are easy to distinguish (fast.ai, 2019)."""

from __future__ import annotations

from pathlib import Path

from alexnet_lab.base.ranges import PositiveInt
from alexnet_lab.data.download import fetch, unpack
from alexnet_lab.data.folder_module import FolderDataModule
from alexnet_lab.data.store import Contents

NAMES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}

URLS = ["https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz"]
ARCHIVE_CHECKSUM = "3df6f0d01a2c9592104656642f5e78a3"
"""Of the version with a shorter side of 320 pixels; MD5 as torchvision publishes it."""


def fetch_imagenette(root: Path) -> None:
    """Downloads Imagenette unless `root` exists.

    Raises:
        DataError: There is no network, or the archive is damaged.
    """
    if root.is_dir():
        return
    archive = root.parent / "imagenette2-320.tgz"
    advice = f"put the images into {root}/train/<wnid>/*.JPEG, or use data=digits, which needs nothing"
    fetch(URLS, archive, ARCHIVE_CHECKSUM, advice)
    unpack(archive, "imagenette2-320", root)


class ImageNetteDataModule(FolderDataModule):
    """Imagenette in `root`, or `<dir>/imagenette`; see `FolderDataModule` for the fields.

    Example:
        >>> data = ImageNetteDataModule(dir="data", image_size=128, stored_size=144)
        >>> data.num_classes, data.stored_size
        (10, 144)
    """

    name = "imagenette"
    num_classes: PositiveInt = 10
    readable = NAMES

    def contents(self) -> Contents:
        """Downloads Imagenette if it is not there, and lists its files."""
        fetch_imagenette(self.folder)
        return super().contents()
