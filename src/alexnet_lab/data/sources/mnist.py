"""`data=mnist`: 60,000 + 10,000 handwritten digits of 28x28 pixels, in the IDX files of LeCun, Cortes and Burges.

They are read from, and downloaded to, torchvision's folder: `<dir>/MNIST/raw`.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import math
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.base.errors import DataError
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.download import fetch
from alexnet_lab.data.store import Contents, Part

log = logging.getLogger(__name__)

NAMES = [str(digit) for digit in range(10)]

MIRRORS = ["https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"]
"""torchvision's mirrors."""

CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
"""MD5 of the files, as torchvision publishes them."""

UNPACKED = {
    "train-images-idx3-ubyte": (47_040_016, "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": (60_008, "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": (7_840_016, "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": (10_008, "27ae3e4e09519cfbb04c329615203637"),
}
"""Bytes and MD5 of the unpacked files, whose format has no checksum."""

LARGEST = 1 << 30
"""The most bytes of an unpacked file; MNIST's largest has 47 MB."""

UNSIGNED_BYTE = 8
"""The code of the only element type that MNIST uses."""


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Reads an IDX file of bytes, packed with gzip if its name ends with `.gz`.

    The format: two zero bytes, the type of the elements, the number of dimensions; each dimension as a big-endian
    int32; the elements, the last dimension running fastest.

    Raises:
        DataError: The file is no such IDX file, or its size differs from that in its header.
    """
    content = _read_bytes(path)
    head = 4 + 4 * dimensions
    if len(content) < head:
        raise _damaged(path, f"it has {len(content):,} bytes, its head alone takes {head}")
    if content[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
        expected = f"0000{UNSIGNED_BYTE:02x}{dimensions:02x}"
        raise _damaged(path, f"it starts with {content[:4].hex()} instead of {expected}")
    shape = struct.unpack(f">{dimensions}i", content[4:head])
    if min(shape) < 0 or len(content) != head + math.prod(shape):
        raise _damaged(path, f"it has {len(content):,} bytes instead of {head + math.prod(shape):,}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise _damaged(path, f"it has more than {LARGEST:,} bytes")
        return content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"it cannot be unpacked: {error}") from error


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path} is a damaged IDX file: {what}; delete it, and it is downloaded again")


def check_published(path: Path, content: NDArray[np.uint8]) -> None:
    """Checks a file of the published size against the published checksum; warns about another size.

    Raises:
        DataError: It has the size of MNIST's file, but not its content.
    """
    name = path.name.removesuffix(".gz")
    size, checksum = UNPACKED[name]
    head = 4 + 4 * content.ndim
    if head + content.nbytes != size:
        log.warning("%s is not MNIST's published file; errors refer to its content", path)
        return
    whole = hashlib.md5(idx_head(content), usedforsecurity=False)
    whole.update(content.data)
    if whole.hexdigest() != checksum:
        raise DataError(
            f"{path} has the size of MNIST's published file, but not its content (MD5 {whole.hexdigest()} instead of "
            f"{checksum}): damaged, or another data set; delete it, MNIST's is downloaded again"
        )


def idx_head(content: NDArray[np.uint8]) -> bytes:
    """The first bytes of an IDX file of bytes."""
    return struct.pack(f">HBB{content.ndim}i", 0, UNSIGNED_BYTE, content.ndim, *content.shape)


def find_or_fetch(raw: Path, name: str) -> Path:
    """The file `name` (unpacked or `.gz`) in the folder `raw`; downloaded if it is not there.

    Raises:
        DataError: It is not there and cannot be downloaded.
    """
    packed = raw / f"{name}.gz"
    if (raw / name).is_file():
        return raw / name
    if not packed.is_file():
        advice = f"put MNIST's four files ({name}[.gz] among them) into {raw}, or use data=digits, which needs nothing"
        fetch([mirror + packed.name for mirror in MIRRORS], packed, CHECKSUMS[packed.name], advice)
    return packed


def load_mnist(raw: Path) -> Contents:
    """MNIST from the four files in the folder `raw`.

    Raises:
        DataError: A file is missing and cannot be downloaded, or is damaged, or the files do not belong together.
    """
    parts = {"train": _load_part(raw, "train"), "test": _load_part(raw, "t10k")}
    return Contents(str(raw), NAMES, (1, 28, 28), parts)


def _load_part(raw: Path, prefix: str) -> Part:
    images = _load_file(raw, f"{prefix}-images-idx3-ubyte", 3)
    labels = _load_file(raw, f"{prefix}-labels-idx1-ubyte", 1)
    if images.shape != (len(labels), 28, 28) or len(labels) == 0 or labels.max() > 9:
        raise DataError(
            f"the {prefix} files in {raw} are not MNIST's: images of shape {images.shape}, {len(labels)} labels; "
            f"delete them, they are downloaded again"
        )
    return Part(labels.astype(np.int64), images[:, None].__getitem__)


def _load_file(raw: Path, name: str, dimensions: int) -> NDArray[np.uint8]:
    path = find_or_fetch(raw, name)
    content = read_idx(path, dimensions)
    check_published(path, content)
    return content


class MNISTDataModule(ImageDataModule):
    """MNIST with its official test set; see `ImageDataModule` for the fields.

    Example:
        >>> data = MNISTDataModule(dir="data", val_fraction=0.1)
        >>> data.num_classes, data.channels, data.image_size
        (10, 1, 28)
    """

    name = "mnist"
    batch_size = 64
    normalization = "standardize"
    num_classes: Literal[10] = 10
    channels: Literal[1] = 1
    image_size = 28
    stored_size: Literal[28] = 28

    def contents(self) -> Contents:
        """See `load_mnist`."""
        return load_mnist(Path(self.dir) / "MNIST" / "raw")
