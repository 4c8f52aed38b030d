"""Image folders, listed: `<root>/train/<class>/*` and perhaps `<root>/val/<class>/*`.

Imports neither numpy nor torch: the config counts the classes of a folder before anything heavy is loaded.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from alexnet_lab.base.errors import ConfigError, DataError, did_you_mean

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
"""What an image's name may end with, in any case."""

LITTER = ("desktop.ini", "Thumbs.db")
"""Files that file managers leave behind; ignored, as are all whose name starts with a dot."""

LAYOUT = "put the images into {root}/train/<class>/*.jpg (and, if there is a test set, {root}/val/<class>/*.jpg)"


class Listing(NamedTuple):
    """The files of one part of a data set."""

    paths: list[Path]  # sorted within each class, class after class
    labels: list[int]  # of each path, its position in the list of classes


def class_names(root: str | Path) -> list[str]:
    """The classes of an image folder: the names of the folders in `<root>/train`, sorted.

    Raises:
        DataError: `<root>/train` is missing, holds no folder, or only one.
    """
    train = Path(root) / "train"
    if not train.is_dir():
        raise DataError(f"there is no folder {train}: {LAYOUT.format(root=root)}")
    names = sorted(entry.name for entry in _visible(train) if entry.is_dir())
    if not names:
        raise DataError(f"{train} holds no class folder: {LAYOUT.format(root=root)}")
    if len(names) == 1:
        raise DataError(f"{train} holds only one class folder, `{names[0]}`: a classifier needs at least two")
    return names


def choose_classes(root: str | Path, wanted: list[str] | None) -> list[str]:
    """The classes to train on, in the order of their labels: those `wanted`, or all there are.

    Raises:
        DataError: As `class_names`.
        ConfigError: `wanted` names a class that is not there, one class twice, or fewer than two.
    """
    names = class_names(root)
    if wanted is None:
        return names
    missing = [name for name in wanted if name not in names]
    if missing:
        hint = did_you_mean(missing[0], names)
        raise ConfigError(f"`classes` names `{missing[0]}`, which is no folder in {Path(root) / 'train'}; {hint}")
    if len(set(wanted)) < len(wanted):
        twice = next(name for name in wanted if wanted.count(name) > 1)
        raise ConfigError(f"`classes` names `{twice}` more than once")
    if len(wanted) < 2:
        raise ConfigError(f"`classes` is {wanted}: a classifier needs at least two")
    return list(wanted)


def check_test_classes(root: str | Path, test: str = "val") -> None:
    """Refuses a test set with a class that the training set does not have: it could only be got wrong.

    Raises:
        DataError: With the first such class.
    """
    folder = Path(root) / test
    known = class_names(root)
    if folder.is_dir():
        odd = sorted(entry.name for entry in _visible(folder) if entry.is_dir() and entry.name not in known)
        if odd:
            raise DataError(f"{folder} has a folder `{odd[0]}`, which is no class of {Path(root) / 'train'}")


def list_images(part: Path, classes: list[str]) -> Listing:
    """All files of the class folders in `part` (`<root>/train` or `<root>/val`), those that are no images too.

    Raises:
        DataError: A class has no folder or no file in `part`.
    """
    listing = Listing([], [])
    for label, name in enumerate(classes):
        folder = part / name
        if not folder.is_dir():
            raise DataError(f"{part} has no folder `{name}`, a class of the training set")
        files = [Path(entry.path) for entry in _visible(folder)]
        if not files:
            raise DataError(f"the class folder {folder} is empty; put images there, or leave the class out")
        listing.paths.extend(sorted(files))
        listing.labels.extend([label] * len(files))
    return listing


def fingerprint(root: Path, listing: Listing) -> str:
    """Changes when a file is added, taken away, renamed or changes its size; reads no file."""
    digest = hashlib.sha256()
    for path, label in zip(listing.paths, listing.labels, strict=True):
        digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0{label}\n".encode())
    return digest.hexdigest()


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".") and entry.name not in LITTER]
