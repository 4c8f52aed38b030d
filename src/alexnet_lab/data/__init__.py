"""From image files to batches: sources, the store on disk, the order, the loader, the augmentation.

Each name is imported when it is first used, so that light modules such as `folders` do not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexnet_lab.base.lazy import lazy

if TYPE_CHECKING:
    from alexnet_lab.data.arrays import ArrayDataModule, from_arrays
    from alexnet_lab.data.sources.cifar10 import CIFAR10DataModule
    from alexnet_lab.data.sources.digits import DigitsDataModule
    from alexnet_lab.data.sources.image_folder import ImageFolderDataModule
    from alexnet_lab.data.sources.imagenet import ImageNetDataModule
    from alexnet_lab.data.sources.imagenette import ImageNetteDataModule
    from alexnet_lab.data.sources.mini_imagenet import MiniImageNetDataModule
    from alexnet_lab.data.sources.mnist import MNISTDataModule

__all__ = [
    "ArrayDataModule",
    "CIFAR10DataModule",
    "DigitsDataModule",
    "ImageFolderDataModule",
    "ImageNetDataModule",
    "ImageNetteDataModule",
    "MNISTDataModule",
    "MiniImageNetDataModule",
    "from_arrays",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "ArrayDataModule": "alexnet_lab.data.arrays",
        "CIFAR10DataModule": "alexnet_lab.data.sources.cifar10",
        "DigitsDataModule": "alexnet_lab.data.sources.digits",
        "ImageFolderDataModule": "alexnet_lab.data.sources.image_folder",
        "ImageNetDataModule": "alexnet_lab.data.sources.imagenet",
        "ImageNetteDataModule": "alexnet_lab.data.sources.imagenette",
        "MNISTDataModule": "alexnet_lab.data.sources.mnist",
        "MiniImageNetDataModule": "alexnet_lab.data.sources.mini_imagenet",
        "from_arrays": "alexnet_lab.data.arrays",
    },
)
