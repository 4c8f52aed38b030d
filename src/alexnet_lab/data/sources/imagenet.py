"""`data=imagenet`: ILSVRC-2012 from its official archives, which are read in place.

1,281,167 training and 50,000 validation images of 1,000 classes (Russakovsky et al. 2015). The validation images are
the test set, as in every paper; the labels of the official test set are not public.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.base.errors import DataError
from alexnet_lab.base.files import stamp
from alexnet_lab.base.ranges import PositiveInt, UnitInterval
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.folder_module import image_part
from alexnet_lab.data.images import decoded
from alexnet_lab.data.source_files import DIGEST_BYTES, SourceFiles, digest_of
from alexnet_lab.data.store import Contents


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    offset: int  # of its content, in bytes from the start of the archive
    size: int  # bytes


def members(archive: Path) -> list[Member]:
    """The files of a tar archive, in its order; only headers are read.

    Raises:
        DataError: It cannot be read, is no tar archive, or is cut short.
    """
    with _opened(archive) as file:
        return list(_members(file, 0))


def nested_members(archive: Path) -> dict[str, list[Member]]:
    """The files of each tar archive in a tar archive, by the name of the inner one; offsets count in the outer one.

    Raises:
        DataError: As `members`, of the outer or an inner archive.
    """
    with _opened(archive) as file:
        return {inner.name: list(_members(file, inner.offset)) for inner in list(_members(file, 0))}


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[BinaryIO]:
    """The opened archive; within the block, its faults become DataError."""
    try:
        file = archive.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {archive} ({error.strerror or error})") from error
    try:
        with file:
            yield file
    except (tarfile.TarError, OSError, EOFError) as error:
        size = archive.stat().st_size
        raise DataError(
            f"{archive} is no whole tar archive ({error}; it has {size:,} bytes); download it again"
        ) from error


def _members(file: BinaryIO, start: int) -> Iterator[Member]:
    """The files of the archive that starts at a byte of a file."""
    size = os.fstat(file.fileno()).st_size
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if member.isfile():
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"{member.name} is cut short")
                yield Member(member.name, member.offset_data, member.size)


class ArchivedFiles(SourceFiles):
    """Files in archives below a folder; a name is that of its archive, a slash, and its own.

    A file's state is its size, the times of its archive, and its place there instead of an inode.
    """

    def opened(self, row: int) -> io.BytesIO:
        """The content of a file; raises OSError if it cannot be read."""
        with (self.root / self.names[row].partition("/")[0]).open("rb") as file:
            file.seek(int(self.states[row, 3]))
            return io.BytesIO(file.read(int(self.states[row, 0])))

    def image(self, row: int, size: int, channels: int) -> NDArray[np.uint8]:
        """Decodes a file to (channels, size, size), and adds its digest."""
        content = self.opened(row)
        self.digests[row] = digest_of(content)
        content.seek(0)
        return decoded(content, size, channels)


def archived_files(root: Path, files: Sequence[tuple[str, Member]]) -> ArchivedFiles:
    """The state of files in archives.

    Args:
        root: The folder of the archives.
        files: The name of its archive, and the file.
    """
    seen_ns = time.time_ns()
    stamps = {archive: stamp((root / archive).stat()) for archive in {archive for archive, _ in files}}
    states = [(member.size, *stamps[archive][1:3], member.offset) for archive, member in files]
    names = [f"{archive}/{member.name}" for archive, member in files]
    table = np.array(states, dtype=np.int64).reshape(-1, 4)
    return ArchivedFiles(root, names, table, np.zeros((len(names), DIGEST_BYTES), np.uint8), seen_ns)


TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
"""The official archives; they need a registration at image-net.org."""

META, LABELS = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"
"""In the devkit: the classes, and the class of each validation image by its number."""


class Devkit(NamedTuple):
    """What the devkit says."""

    words: dict[str, str]  # by WordNet id: its synonyms
    val_wnids: list[str]  # of each validation image, in the order of their names


def read_devkit(path: Path) -> Devkit:
    """Reads the classes and the labels of the validation images.

    Raises:
        DataError: The archive cannot be read, or lacks a file.
    """
    from scipy.io import loadmat  # noqa: PLC0415 - takes a third of a second

    try:
        with tarfile.open(path) as archive:
            files = {
                name: archive.extractfile(member)
                for member in archive
                for name in (META, LABELS)
                if member.isfile() and member.name.endswith(f"/{name}")
            }
            meta, labels = (cast("IO[bytes]", files[name]).read() for name in (META, LABELS))
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        leaves = [(int(s["ILSVRC2012_ID"]), str(s["WNID"]), str(s["words"])) for s in synsets if s["num_children"] == 0]
        wnids = {number: wnid for number, wnid, _ in leaves}
        return Devkit({wnid: words for _, wnid, words in leaves}, [wnids[int(line)] for line in labels.split()])
    except (OSError, EOFError, tarfile.TarError, KeyError, ValueError) as error:
        raise DataError(f"{path} is not the devkit of ILSVRC-2012 ({type(error).__name__}: {error})") from error


def readable_names(words: dict[str, str], wnids: list[str]) -> list[str]:
    """The first synonym of each class, with the WordNet id where two classes share it.

    Example:
        >>> readable_names({"n1": "crane", "n2": "crane", "n3": "tench, Tinca tinca"}, ["n1", "n2", "n3"])
        ['crane (n1)', 'crane (n2)', 'tench']
    """
    first = {wnid: words[wnid].partition(",")[0] for wnid in wnids}
    uses = Counter(first.values())
    return [first[wnid] if uses[first[wnid]] == 1 else f"{first[wnid]} ({wnid})" for wnid in wnids]


def load_archives(root: Path, size: int, channels: int) -> Contents:
    """ImageNet from the archives in a folder.

    Args:
        root: The folder.
        size: Side of the stored images, in pixels.
        channels: 1 or 3.

    Raises:
        DataError: An archive is missing, damaged, or of other images than the devkit.
    """
    _check_archives(root)
    devkit = read_devkit(root / DEVKIT)
    by_class = {name.removesuffix(".tar"): files for name, files in nested_members(root / TRAIN).items()}
    wnids = sorted(by_class)
    odd = sorted(set(wnids) ^ set(devkit.words))
    if odd:
        raise DataError(f"{root / TRAIN} and {root / DEVKIT} differ in {len(odd)} classes, for example {odd[0]}")
    val, labelled = sorted(members(root / VAL)), len(devkit.val_wnids)
    if len(val) != labelled:
        raise DataError(f"{root / VAL} has {len(val):,} images, and {root / DEVKIT} labels of {labelled:,}")
    train = [(label, member) for label, wnid in enumerate(wnids) for member in sorted(by_class[wnid])]
    files = archived_files(root, [*((TRAIN, member) for _, member in train), *((VAL, member) for member in val)])
    labels = {"train": [label for label, _ in train], "test": [wnids.index(wnid) for wnid in devkit.val_wnids]}
    rows = {"train": range(len(train)), "test": range(len(train), len(train) + len(val))}
    parts = {name: image_part(files, rows[name], labels[name], size, channels) for name in rows}
    return Contents(str(root), readable_names(devkit.words, wnids), (channels, size, size), parts, files)


def _check_archives(root: Path) -> None:
    missing = [name for name in (TRAIN, VAL, DEVKIT) if not (root / name).is_file()]
    if missing:
        raise DataError(
            f"there is no {root / missing[0]}; put {TRAIN}, {VAL} and {DEVKIT} of image-net.org into {root}, or take "
            f"unpacked images: data=image_folder data.root=FOLDER"
        )


class ImageNetDataModule(ImageDataModule):
    """ILSVRC-2012 from the archives in `root`, or `<dir>/imagenet`; see `ImageDataModule` for the other fields.

    The store is made once. It does not need the archives afterwards, and does not look at them again.

    Attributes:
        root: The folder of the three archives; None: `<dir>/imagenet`.
        skip_unreadable: Leave out files that are no images, instead of stopping.

    Example:
        >>> data = ImageNetDataModule(dir="data", val_fraction=0.0)
        >>> data.num_classes, data.image_size
        (1000, 224)
    """

    name = "imagenet"
    root: str | None = None
    num_classes: PositiveInt = 1000
    val_fraction: UnitInterval = 0.01
    skip_unreadable: bool = False

    def contents(self) -> Contents:
        """Lists the images in the archives; see `load_archives`."""
        return load_archives(Path(self.root or Path(self.dir) / "imagenet"), self.stored_size, self.channels)

    def store_name(self) -> str:
        """Names the size and, if they are not the defaults, the folder and the channels."""
        facts = repr((self.root and str(Path(self.root).resolve()), self.channels, self.skip_unreadable))
        plain = facts == repr((None, 3, False))
        digest = "" if plain else f"-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"
        return f"{self.name}-{self.stored_size}{digest}"
