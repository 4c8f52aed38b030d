"""`data=mini_imagenet`: the 100 classes of Vinyals et al. 2016, or the 16 of the annotated guide to AlexNet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alexnet_lab.base.ranges import Count, Fraction, Index, Pixels
from alexnet_lab.data.folder_module import FolderDataModule
from alexnet_lab.data.folder_source import load_joined
from alexnet_lab.data.folders import chosen_among
from alexnet_lab.data.sources.mini_imagenet_files import chosen_classes, joined

if TYPE_CHECKING:
    from alexnet_lab.data.store import Contents


class MiniImageNetDataModule(FolderDataModule):
    """Mini-ImageNet in `root`, or `<dir>/mini_imagenet`; see `FolderDataModule` for the fields.

    There is no download: the images are ImageNet's, and the user's to get. They may lie as

    - `train/<class>/*`, perhaps with a test set of the same classes in `val/<class>/*`;
    - `train/`, `val/` and `test/`, or the root alone, with class folders none of which is in two of them;
    - `images/*` with `train.csv`, `val.csv` and `test.csv` of the columns filename and label.

    In the last two layouts, the published ones, the sets divide the classes. They are joined, and images of each class
    set apart for test and validation. `classes="guide16"` takes the guide's list, of which its seed, 123, sets the
    guide's tenth apart for validation.
    """

    def __init__(
        self,
        *,
        dir: str = "data",  # noqa: A002 - the key `data.dir` of the config
        root: str | None = None,
        classes: list[str] | Literal["guide16"] | None = None,
        batch_size: Count = 32,
        seed: Index = 0,
        order: Literal["shuffled", "constant"] = "shuffled",
        normalization: Literal["mean_image", "channel_mean", "standardize", "unit", "symmetric"] = "mean_image",
        val_fraction: Fraction = 0.1,
        val_seed: Index = 123,
        test_fraction: Fraction = 0.1,
        test_seed: Index = 0,
        num_classes: Count = 100,
        channels: Literal[1, 3] = 3,
        image_size: Pixels = 224,
        stored_size: Pixels = 256,
        skip_unreadable: bool = False,
        augment: dict[str, Any] | None = None,
        device: Literal["auto", "cpu"] = "auto",
    ) -> None:
        super().__init__(
            name="mini_imagenet",
            dir=dir,
            root=Path(root or Path(dir) / "mini_imagenet"),
            classes=chosen_classes(classes),
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

    def contents(self) -> Contents:
        """Lists the files, of whichever layout."""
        found = joined(self.root)
        if found is None:
            return super().contents()
        names = chosen_among(list(found.images), self.classes, f"no class of {self.root}")
        images = {name: found.images[name] for name in names}
        return load_joined(self.root, images, found.tables, self.stored_size, self.channels)
