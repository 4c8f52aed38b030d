"""`data=imagenette`: ten easily told classes of ImageNet (fast.ai, 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alexnet_lab.base.ranges import Count, Fraction, Index, Pixels
from alexnet_lab.data.download import fetch, md5, unpack
from alexnet_lab.data.folder_module import FolderDataModule

if TYPE_CHECKING:
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
"""Of the version whose shorter side is 320 pixels; MD5 as torchvision publishes it."""


def fetch_imagenette(root: Path) -> None:
    """Downloads Imagenette into `root` if there is nothing.

    Raises:
        DataError: There is no net, or the archive is damaged.
    """
    if root.is_dir():
        return
    archive = root.parent / "imagenette2-320.tgz"
    if not archive.is_file() or md5(archive) != ARCHIVE_CHECKSUM:
        advice = f"put the images into {root}/train/<wnid>/*.JPEG, or use data=digits, which needs nothing"
        fetch(URLS, archive, ARCHIVE_CHECKSUM, advice)
    unpack(archive, "imagenette2-320", root)


class ImageNetteDataModule(FolderDataModule):
    """Imagenette in `root`, or `<dir>/imagenette`; see `FolderDataModule` for the fields."""

    def __init__(
        self,
        *,
        dir: str = "data",  # noqa: A002 - the key `data.dir` of the config
        root: str | None = None,
        classes: list[str] | None = None,
        batch_size: Count = 128,
        seed: Index = 0,
        order: Literal["shuffled", "constant"] = "shuffled",
        normalization: Literal["mean_image", "channel_mean", "standardize", "unit", "symmetric"] = "mean_image",
        val_fraction: Fraction = 0.1,
        val_seed: Index = 123,
        test_fraction: Fraction = 0.1,
        test_seed: Index = 0,
        num_classes: Count = 10,
        channels: Literal[1, 3] = 3,
        image_size: Pixels = 224,
        stored_size: Pixels = 256,
        skip_unreadable: bool = False,
        augment: dict[str, Any] | None = None,
        device: Literal["auto", "cpu"] = "auto",
    ) -> None:
        super().__init__(
            name="imagenette",
            dir=dir,
            root=Path(root or Path(dir) / "imagenette"),
            classes=classes,
            readable=NAMES,
            batch_size=batch_size,
            seed=seed,
            order=order,
            normalization=normalization,
            val_fraction=val_fraction,
            val_seed=val_seed,
            test_fraction=test_fraction,
            test_seed=test_seed,
            num_classes=num_classes,
            channels=channels,
            image_size=image_size,
            stored_size=stored_size,
            skip_unreadable=skip_unreadable,
            augment=augment,
            device=device,
        )

    def contents(self) -> Contents:
        """Downloads Imagenette if it is not there, and lists its files."""
        fetch_imagenette(self.root)
        return super().contents()
