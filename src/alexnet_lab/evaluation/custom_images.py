"""The user's own images: class folders named like the run's classes, or one folder of images without labels."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.base import shell
from alexnet_lab.base.errors import DataError, did_you_mean
from alexnet_lab.base.printable import printable
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.folder_module import image_part
from alexnet_lab.data.folders import EXTENSIONS, visible, warn_of_loose_images
from alexnet_lab.data.images import read_image, strict_decoding
from alexnet_lab.data.loader import Rows
from alexnet_lab.data.source_files import look_up
from alexnet_lab.data.store import Contents, open_store
from alexnet_lab.data.store_writing import make_store
from alexnet_lab.evaluation.predict import UNKNOWN


@dataclass(frozen=True)
class OwnImages:
    """Image files with their labels."""

    root: Path
    names: list[str]  # relative to `root`
    labels: list[int]  # UNKNOWN for all or for none
    skip_unreadable: bool = False

    @property
    def name(self) -> str:
        """The name of the folder, also if `root` is `.`."""
        return self.root.resolve().name

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the names, labels and contents of the files."""
        files = look_up(self.root, self.names)
        files.read(np.arange(len(self.names)), "reading")
        digest = hashlib.sha256(os.fsencode("\0".join(self.names)))
        digest.update(files.digests.tobytes() + np.array(self.labels, dtype="<i8").tobytes())
        return f"{digest.hexdigest()} {self.skip_unreadable}"

    @contextlib.contextmanager
    def rows(self, data: ImageDataModule) -> Iterator[tuple[Rows, list[str]]]:
        """Within the block: the images in the format of the run's store, and their file names.

        Raises:
            DataError: A file cannot be read.
        """
        shape = (data.channels, data.stored_size, data.stored_size)
        files = look_up(self.root, self.names)
        part = image_part(files, range(len(self.names)), self.labels, data.stored_size, data.channels)
        contents = Contents(str(self.root), data.class_names, shape, {"own": part})
        with tempfile.TemporaryDirectory(prefix="alexnet-lab-") as folder:
            path = Path(folder) / "own"
            make_store(path, lambda: contents, skip_unreadable=self.skip_unreadable)
            store = open_store(path, verify=False)
            left_out = {self._skipped(note) for note in store.meta["skipped"]}
            kept = [name for name in self.names if name not in left_out]
            yield Rows(store.images["own"], store.labels["own"], np.arange(len(kept))), kept

    def _skipped(self, note: str) -> str:
        """The name of the file that a note `name: reason` is about."""
        return max((name for name in self.names if note.startswith(f"{printable(name)}: ")), key=len)

    def read(self, names: Sequence[str], data: ImageDataModule) -> NDArray[np.uint8]:
        """Some of the images (n, C, S, S), as stored, for display."""
        with strict_decoding():
            return np.stack([read_image(self.root / name, data.stored_size, data.channels) for name in names])


def find_images(
    root: str, class_names: list[str], aliases: dict[str, str] | None = None, *, skip_unreadable: bool = False
) -> OwnImages:
    """Lists the images of a folder: those of its class folders, or without folders all images in it, unlabelled.

    Args:
        root: The folder. If it contains `train`, `val` and others, name the one to use.
        class_names: The run's classes, in the order of their labels.
        aliases: Other names for them, such as the WordNet numbers of ImageNet's folders.
        skip_unreadable: Leave out files that are no images, instead of stopping.

    Raises:
        DataError: The folder does not exist or has no images, or a folder in it is not named like a class.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise DataError(f"there is no folder {root}: set `data.root` to a folder of images, or of class folders")
    entries = visible(folder)
    folders = [name for name in entries if (folder / name).is_dir() and Path(name).suffix.lower() not in EXTENSIONS]
    if not folders:
        names = [name for name in entries if Path(name).suffix.lower() in EXTENSIONS]
        if not names:
            raise DataError(f"{root} contains no images ({', '.join(EXTENSIONS)}) and no class folders")
        return OwnImages(folder, names, [UNKNOWN] * len(names), skip_unreadable)
    warn_of_loose_images(folder, folders)
    labels = {_composed(name): label for label, name in enumerate(class_names)}
    labels |= {alias: labels[_composed(name)] for alias, name in (aliases or {}).items() if _composed(name) in labels}
    names, found = [], []
    for name in folders:
        if _composed(name) not in labels:
            raise DataError(_unknown_class(folder, name, class_names))
        files = visible(folder / name)
        names += [f"{name}/{file}" for file in files]
        found += [labels[_composed(name)]] * len(files)
    if not names:
        raise DataError(f"the class folders in {root} are empty")
    return OwnImages(folder, names, found, skip_unreadable)


def _composed(name: str) -> str:
    """A name whose letters are one character each: macOS writes the umlauts of folders as two."""
    return unicodedata.normalize("NFC", name)


def _unknown_class(root: Path, name: str, class_names: list[str]) -> str:
    if name in ("train", "val", "test"):
        word = shell.join([shell.override("data.root", root / name)])
        return f"{root} has a folder `{name}`: name the folder to evaluate: {word}"
    hint = did_you_mean(name, class_names)
    return (
        f"{root} has a folder `{name}`, which is no class of the run ({hint}); rename or move it; "
        f"put images of unknown classes into a folder without subfolders"
    )
