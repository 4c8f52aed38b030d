"""`data=mini_imagenet`: the 100 classes of Vinyals et al. 2016, or the 16 of the annotated guide to AlexNet."""

from __future__ import annotations

import time
from typing import Literal

from alexnet_lab.base.ranges import PositiveInt
from alexnet_lab.data.folder_module import FolderDataModule, load_joined
from alexnet_lab.data.folders import chosen_among
from alexnet_lab.data.sources.mini_imagenet_files import chosen_classes, joined
from alexnet_lab.data.store import Contents


class MiniImageNetDataModule(FolderDataModule):
    """Mini-ImageNet in `root`, or `<dir>/mini_imagenet`; see `FolderDataModule` for the fields.

    There is no download: the images are ImageNet's, and users have to get them. Possible layouts:

    - `train/<class>/*`, optionally with a test set of the same classes in `val/<class>/*`;
    - `train/`, `val/` and `test/`, or the root alone, with class folders that are each in only one of them;
    - `images/*` with `train.csv`, `val.csv` and `test.csv` of the columns filename and label.

    In the last two layouts, the published ones, the sets divide the classes. They are joined, and images of each class
    are split off for test and validation. `classes="guide16"` is the guide's list; with the guide's seed, 123, its
    tenth is split off for validation.

    Example:
        >>> data = MiniImageNetDataModule(dir="data", num_classes=64)
        >>> data.num_classes, data.image_size
        (64, 224)
    """

    name = "mini_imagenet"
    batch_size = 32
    num_classes: PositiveInt = 100
    classes: list[str] | Literal["guide16"] | None = None

    def __post_init__(self) -> None:
        self.classes = chosen_classes(self.classes)
        super().__post_init__()

    def contents(self) -> Contents:
        """Lists the files of any layout."""
        begun = time.time_ns()
        found = joined(self.folder)
        if found is None:
            return super().contents()
        names = chosen_among(list(found.images), chosen_classes(self.classes), f"no class of {self.folder}")
        images = {name: found.images[name] for name in names}
        return load_joined(self.folder, images, found.tables, self.stored_size, self.channels, since_ns=begun)
