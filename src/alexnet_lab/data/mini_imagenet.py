"""`data=mini_imagenet`: 16 classes of ImageNet, as the annotated guide to AlexNet trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from alexnet_lab.base.ranges import Count, Fraction, Index, Share
from alexnet_lab.data.folder_module import FolderDataModule

CLASSES = [
    "tench",
    "goldfish",
    "great_white_shark",
    "tiger_shark",
    "hammerhead",
    "electric_ray",
    "stingray",
    "cock",
    "hen",
    "ostrich",
    "brambling",
    "goldfinch",
    "house_finch",
    "junco",
    "indigo_bunting",
    "robin",
]
"""The guide's classes: the first 16 of ImageNet."""


class MiniImageNetDataModule(FolderDataModule):
    """The 16 classes in `root`, or `<dir>/mini_imagenet`; see `FolderDataModule` for the fields.

    There is no download: the images are ImageNet's, and the user's to get. `classes` is the guide's list unless set;
    a tenth is set apart for validation with the guide's seed, 123.
    """

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
        test_fraction: Share = 0.1,
        test_seed: Index = 0,
        num_classes: Count = 16,
        channels: Literal[1, 3] = 3,
        image_size: Count = 224,
        stored_size: Count = 256,
        skip_unreadable: bool = False,
        augment: dict[str, Any] | None = None,
        device: Literal["auto", "cpu"] = "auto",
    ) -> None:
        super().__init__(
            name="mini_imagenet",
            dir=dir,
            root=Path(root or Path(dir) / "mini_imagenet"),
            classes=CLASSES if classes is None else classes,
            readable={},
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
