"""`data=cifar10`: 50,000 + 10,000 images of 32x32 pixels in ten classes (Krizhevsky 2009).

Read from the first of these that exists: the prepared store; the official `<dir>/cifar-10-batches-py`; a folder
copy `<dir>/cifar10/{train,test}/<class>/*.{png,jpg}`; the network.
"""

from __future__ import annotations

import io
import logging
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.base.errors import DataError
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.download import fetch, md5, unpack
from alexnet_lab.data.folder_module import load_folder
from alexnet_lab.data.folders import class_names
from alexnet_lab.data.store import Contents, Part, exists, read_meta

log = logging.getLogger(__name__)

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

COPY = "cifar10"
"""The folder of a copy as image files, `<dir>/cifar10`."""

URLS = ["https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"]
ARCHIVE_CHECKSUM = "c58f30108f718f92721af3b95e74349a"

TRAIN_CHECKSUMS = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
TEST_CHECKSUMS = {"test_batch": "40351d587109b95175f43aff81a1287e"}
"""MD5 of the archive and its files, as torchvision publishes them."""

_RECONSTRUCT = np.zeros(0).__reduce__()[0]

ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,  # its name since numpy 2
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
"""The only names in the official files: numpy's way to rebuild an array. A pickle with any other name is refused."""


class ArrayUnpickler(pickle.Unpickler):
    """Rebuilds plain containers and numpy arrays, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The object for a name in the pickle.

        Raises:
            pickle.UnpicklingError: The official files do not contain this name.
        """
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no CIFAR-10 file does")
        return ALLOWED[module, name]


def read_batch_file(path: Path, checksum: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 3, 32, 32) and labels (N,) of an official batch file.

    Raises:
        DataError: The file's MD5 differs from the published one, or its content is something else.
    """
    found = md5(path) if path.is_file() else "missing"
    if found != checksum:
        raise DataError(f"{path} is not the official file (MD5 {found} instead of {checksum}); delete {path.parent}")
    try:
        batch = ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        images = np.asarray(batch[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        return images, np.asarray(batch[b"labels"], dtype=np.int64)
    except (pickle.UnpicklingError, KeyError, TypeError, ValueError, EOFError) as error:
        raise DataError(f"{path} is no CIFAR-10 batch: {error}") from error


def load_batches(folder: Path) -> Contents:
    """CIFAR-10 from the official `cifar-10-batches-py`.

    Raises:
        DataError: A file is missing or not the official one.
    """
    parts = {"train": _load_part(folder, TRAIN_CHECKSUMS), "test": _load_part(folder, TEST_CHECKSUMS)}
    return Contents(str(folder), NAMES, (3, 32, 32), parts)


def _load_part(folder: Path, checksums: dict[str, str]) -> Part:
    batches = [read_batch_file(folder / name, checksum) for name, checksum in checksums.items()]
    images = np.concatenate([images for images, _ in batches])
    return Part(np.concatenate([labels for _, labels in batches]), images.__getitem__)


def load_copy(root: Path) -> Contents:
    """CIFAR-10 from a folder copy with the ten official class names.

    Raises:
        DataError: Its classes differ, or one of the folders `train` and `test` is missing.
    """
    found = class_names(root)
    if found != sorted(NAMES):
        odd = sorted(set(found) ^ set(NAMES))
        raise DataError(
            f"{root / 'train'} is no copy of CIFAR-10: its classes differ in {', '.join(odd)}; "
            f"the ten are {', '.join(NAMES)}"
        )
    if not (root / "test").is_dir():
        raise DataError(f"there is no folder {root / 'test'}: a copy of CIFAR-10 needs its test set too")
    return load_folder(root, NAMES, 32, 3, test="test")


def load_cifar10(folder: Path) -> Contents:
    """CIFAR-10 from `folder`, or downloaded.

    Raises:
        DataError: The files are damaged, or missing without a network.
    """
    official, copy = folder / "cifar-10-batches-py", folder / COPY
    if official.is_dir():
        return load_batches(official)
    if copy.is_dir():
        log.info("CIFAR-10 is read from the copy %s; if its files are JPEG, accuracies are of that copy", copy)
        return load_copy(copy)
    advice = (
        f"put the folder cifar-10-batches-py, or images as cifar10/{{train,test}}/<class>/*.png, into {folder}, "
        f"or use data=digits, which needs nothing"
    )
    archive = folder / "cifar-10-python.tar.gz"
    fetch(URLS, archive, ARCHIVE_CHECKSUM, advice)
    unpack(archive, "cifar-10-batches-py", official)
    return load_batches(official)


class CIFAR10DataModule(ImageDataModule):
    """CIFAR-10 with its official test set; see `ImageDataModule` for the fields.

    Example:
        >>> data = CIFAR10DataModule(dir="data", batch_size=128)
        >>> data.num_classes, data.channels, data.image_size
        (10, 3, 32)
    """

    name = "cifar10"
    num_classes: Literal[10] = 10
    channels: Literal[3] = 3
    image_size = 32
    stored_size: Literal[32] = 32
    skip_unreadable: bool = False

    def store_name(self) -> str:
        """The usual name; a store without a copy's unreadable files has its own."""
        return f"{super().store_name()}{'-skipping' if self.skip_unreadable else ''}"

    def make_store(self) -> None:
        """Makes the store if it is missing, or if it was made from a folder copy that has changed since."""
        copy = Path(self.dir) / COPY
        if exists(self.store_path) and Path(read_meta(self.store_path)["source"]).name == COPY and copy.is_dir():
            self.make_store_of(lambda: load_copy(copy), copy)
        else:
            super().make_store()

    def contents(self) -> Contents:
        """See `load_cifar10`."""
        return load_cifar10(Path(self.dir))
