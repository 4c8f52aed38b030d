"""A user's own images: class folders named like the run's classes, or one folder of images without labels."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alexnet_lab.base import shell
from alexnet_lab.base.errors import DataError, did_you_mean
from alexnet_lab.data.folders import EXTENSIONS, LITTER
from alexnet_lab.data.images import read_image, strict_decoding
from alexnet_lab.data.loader import Rows
from alexnet_lab.data.store import Contents, Part, make_store, open_store
from alexnet_lab.evaluation.predict import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from alexnet_lab.data.datamodule import ImageDataModule


class OwnImages(NamedTuple):
    """Image files, and what they show."""

    root: Path
    paths: list[Path]
    labels: list[int]  # UNKNOWN for all, or for none
    skip_unreadable: bool = False

    @property
    def fingerprint(self) -> str:
        """Changes when a file is added, taken away, renamed or written anew."""
        digest = hashlib.sha256()
        for path, label in zip(self.paths, self.labels, strict=True):
            state = path.stat()
            digest.update(f"{path.relative_to(self.root)}\0{state.st_size}\0{state.st_mtime_ns}\0{label}\n".encode())
        return f"{digest.hexdigest()} {self.skip_unreadable}"

    @contextlib.contextmanager
    def rows(self, data: ImageDataModule) -> Iterator[tuple[Rows, list[str]]]:
        """The images as the run's data stores its own, and the names of their files; on disk while the block runs.

        Raises:
            DataError: A file cannot be read.
        """
        names = [str(path.relative_to(self.root)) for path in self.paths]
        shape = (data.channels, data.stored_size, data.stored_size)
        read = partial(_read, self.paths, data.stored_size, data.channels)
        part = Part(np.array(self.labels, dtype=np.int64), read, names)
        contents = Contents(str(self.root), data.class_names, shape, {"own": part})
        with tempfile.TemporaryDirectory(prefix="alexnet-lab-") as folder:
            path = Path(folder) / "own"
            make_store(path, lambda: contents, skip_unreadable=self.skip_unreadable)
            store = open_store(path, verify=False)
            notes = store.meta["skipped"]  # "name: reason"
            kept = [name for name in names if not any(note.startswith(f"{name}: ") for note in notes)]
            yield Rows(store.images["own"], store.labels["own"], np.arange(len(kept))), kept

    def read(self, names: Sequence[str], data: ImageDataModule) -> NDArray[np.uint8]:
        """Some of the images (n, C, S, S), as they are stored, to be looked at."""
        with strict_decoding():
            return np.stack([read_image(self.root / name, data.stored_size, data.channels) for name in names])


def _read(paths: list[Path], size: int, channels: int, number: int) -> NDArray[np.uint8]:
    return read_image(paths[number], size, channels)


def find_images(
    root: str, class_names: list[str], aliases: dict[str, str] | None = None, *, skip_unreadable: bool = False
) -> OwnImages:
    """The images of a folder: those of its class folders, or, where it has no folders, all in it without labels.

    Args:
        root: The folder. It may itself hold `train` or `val` beside others; name the one that is meant.
        class_names: The run's classes, in the order of their labels.
        aliases: Other names of them: the WordNet numbers that folders of ImageNet are called by, say.
        skip_unreadable: Leave out files that are no images, instead of stopping.

    Raises:
        DataError: There is no such folder, it holds no images, or a folder in it is called like none of the classes.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise DataError(f"there is no folder {root}: `data.root` names a folder of images, or of class folders")
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in LITTER)
    folders = [path for path in entries if path.is_dir()]
    if not folders:
        paths = [path for path in entries if path.suffix.lower() in EXTENSIONS]
        if not paths:
            raise DataError(f"{root} holds no images ({', '.join(EXTENSIONS)}) and no class folders")
        return OwnImages(folder, paths, [UNKNOWN] * len(paths), skip_unreadable)
    labels = {name: label for label, name in enumerate(class_names)}
    labels |= {alias: labels[name] for alias, name in (aliases or {}).items() if name in labels}
    paths, found = [], []
    for path in folders:
        if path.name not in labels:
            raise DataError(_unknown_class(folder, path.name, class_names))
        files = sorted(item for item in path.iterdir() if not item.name.startswith(".") and item.name not in LITTER)
        paths += files
        found += [labels[path.name]] * len(files)
    if not paths:
        raise DataError(f"the class folders in {root} are empty")
    return OwnImages(folder, paths, found, skip_unreadable)


def _unknown_class(root: Path, name: str, class_names: list[str]) -> str:
    if name in ("train", "val", "test"):
        word = shell.join([shell.override("data.root", root / name)])
        return f"{root} has a folder `{name}`: name the one that is meant: {word}"
    hint = did_you_mean(name, class_names)
    return (
        f"{root} has a folder `{name}`, which is no class of the run ({hint}); rename or move it; "
        f"images of unknown classes go into a folder without folders"
    )
