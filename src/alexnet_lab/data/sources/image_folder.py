"""`data=image_folder`: any images in class folders."""

from __future__ import annotations

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.data.folder_module import FolderDataModule


class ImageFolderDataModule(FolderDataModule):
    """The user's images in `<root>/train/<class>/*`; `root` has no default. See `FolderDataModule` for the fields.

    Example:
        >>> data = ImageFolderDataModule(root="pets", num_classes=37, image_size=128, stored_size=144)
        >>> data.channels, data.image_size
        (3, 128)
    """

    name = "image_folder"
    test_folder: str = "val"
    val_folder: str | None = None

    def __post_init__(self) -> None:
        if self.root is None:
            raise ConfigError("`data.root` is not set: name the folder that holds train/<class>/*.jpg")
        super().__post_init__()
