"""What the data sets in image folders share: `<root>/train/<class>/*`, perhaps `<root>/val/<class>/*`."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from alexnet_lab.base.errors import DataError
from alexnet_lab.data.checks import check_folders, check_names
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.folder_source import load_folder
from alexnet_lab.data.folders import check_test_classes, choose_classes
from alexnet_lab.data.store import Contents, exists, make_store, replace_store

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


class FolderDataModule(ImageDataModule):
    """Images in class folders; `val/` is the test set, and where there is none a part is set apart as one.

    The store is made anew when files were added, removed, renamed or changed; once made, it does not need the folder.

    Args:
        name: Of the data set, for the store.
        dir: Folder of the data sets; stores are in `<dir>/store`.
        root: The folder that holds `train/`.
        classes: Which of its classes, in the order of their labels; None takes all.
        readable: Names for people, by the names of the class folders.
        batch_size: See `ImageDataModule`, as for the fields that follow.
        seed: See there.
        normalization: See there.
        val_fraction: See there.
        val_seed: See there.
        test_fraction: Share of the images that becomes the test set if there is no `val/`.
        test_seed: Of that choice.
        test_folder: Name of the test set's folder in `root`. Another than `val` has to be there.
        val_folder: Name of a folder in `root` to validate on, for which `val_fraction` has to be 0; None: validation is
            split off the training images.
        num_classes: See `ImageDataModule`.
        channels: 1 turns the images grey.
        image_size: See `ImageDataModule`.
        stored_size: The shorter side is scaled to this, and the centre square stored.
        skip_unreadable: Leave out files that are no images, instead of stopping.
        augment: See `ImageDataModule`.
        device: See there.

    Raises:
        ConfigError: As `ImageDataModule`; or one folder is to be used twice.
    """

    def __init__(
        self,
        *,
        name: str,
        dir: str,  # noqa: A002 - the key `data.dir` of the config
        root: Path,
        classes: list[str] | None,
        readable: dict[str, str],
        batch_size: int,
        seed: int,
        order: str,
        normalization: str,
        val_fraction: float,
        val_seed: int,
        test_fraction: float,
        test_seed: int,
        num_classes: int,
        channels: int,
        image_size: int,
        stored_size: int,
        skip_unreadable: bool,
        augment: dict[str, Any] | None,
        device: str,
        test_folder: str = "val",
        val_folder: str | None = None,
    ) -> None:
        super().__init__(
            dir=dir,
            batch_size=batch_size,
            seed=seed,
            order=order,
            normalization=normalization,
            val_fraction=val_fraction,
            val_seed=val_seed,
            num_classes=num_classes,
            channels=channels,
            image_size=image_size,
            stored_size=stored_size,
            augment=augment,
            device=device,
            skip_unreadable=skip_unreadable,
            test_fraction=test_fraction,
            test_seed=test_seed,
        )
        check_names("data.classes", classes)
        check_folders(test_folder, val_folder, val_fraction)
        self.name = name
        self.root = root
        self.classes = classes
        self.readable = readable
        self.test_folder = test_folder
        self.val_folder = val_folder

    def store_name(self) -> str:
        """Holds a hash of all that decides on the arrays, except the content of the folder."""
        facts: tuple[Any, ...] = (str(self.root.resolve()), self.classes, self.channels, self.skip_unreadable)
        if (self.test_folder, self.val_folder) != ("val", None):
            facts = (*facts, self.test_folder, self.val_folder)
        return f"{self.name}-{self.stored_size}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"

    def contents(self) -> Contents:
        """Lists the files; see `load_folder`."""
        for folder in filter(None, (self.test_folder, self.val_folder)):
            check_test_classes(self.root, folder)
            if folder != "val" and not (self.root / folder).is_dir():
                raise DataError(f"there is no folder {self.root / folder}; put <class>/*.jpg there")
        folders = choose_classes(self.root, self.classes)
        found = load_folder(
            self.root, folders, self.stored_size, self.channels, test=self.test_folder, val=self.val_folder
        )
        return found._replace(class_names=[self.readable.get(name, name) for name in folders])

    def make_store(self) -> None:
        """Makes the store if it is not there, or if the folder is no longer what it was made from."""
        if not exists(self.store_path):
            make_store(self.store_path, self.contents, skip_unreadable=self.skip_unreadable)
            return
        if not self.root.is_dir():
            log.info("there is no folder %s, but its images are in the store %s", self.root, self.store_path)
            return
        replace_store(self.store_path, self.contents(), skip_unreadable=self.skip_unreadable)
