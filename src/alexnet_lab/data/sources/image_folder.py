"""`data=image_folder`: any images in class folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.ranges import Count, Fraction, Index, Pixels
from alexnet_lab.data.folder_module import FolderDataModule


def required_root(root: str | None) -> Path:
    """The folder that must be named.

    Raises:
        ConfigError: It is not.
    """
    if root is None:
        raise ConfigError("`data.root` is not set: name the folder that holds train/<class>/*.jpg")
    return Path(root)


class ImageFolderDataModule(FolderDataModule):
    """Images of one's own in `<root>/train/<class>/*`; see `FolderDataModule` for the fields."""

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
        test_folder: str = "val",
        val_folder: str | None = None,
        num_classes: Count,
        channels: Literal[1, 3] = 3,
        image_size: Pixels = 224,
        stored_size: Pixels = 256,
        skip_unreadable: bool = False,
        augment: dict[str, Any] | None = None,
        device: Literal["auto", "cpu"] = "auto",
    ) -> None:
        super().__init__(
            name="image_folder",
            dir=dir,
            root=required_root(root),
            classes=classes,
            readable={},
            batch_size=batch_size,
            seed=seed,
            order=order,
            normalization=normalization,
            val_fraction=val_fraction,
            val_seed=val_seed,
            test_fraction=test_fraction,
            test_seed=test_seed,
            test_folder=test_folder,
            val_folder=val_folder,
            num_classes=num_classes,
            channels=channels,
            image_size=image_size,
            stored_size=stored_size,
            skip_unreadable=skip_unreadable,
            augment=augment,
            device=device,
        )
