"""Lists image folders: `<root>/train/<class>/*` and optionally `<root>/val/<class>/*`.

Imports neither numpy nor torch, because the config counts the classes of a folder before any heavy import.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from alexnet_lab.base.errors import ConfigError, DataError, did_you_mean

log = logging.getLogger(__name__)

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Allowed extensions of an image, in any case: those of torchvision's ImageFolder, and GIF."""

LITTER = ("desktop.ini", "Thumbs.db")
"""Files that file managers create; ignored, like all names that start with a dot."""

LAYOUT = "put the images into {root}/train/<class>/*.jpg (and, if there is a test set, {root}/val/<class>/*.jpg)"


class Listing(NamedTuple):
    """The files of one part of a data set."""

    names: list[str]  # "<class>/<file>" below the part's folder, sorted within each class, class after class
    labels: list[int]  # of each name: its position in the list of classes


def class_names(root: str | Path) -> list[str]:
    """The classes of an image folder: the names of the folders in `<root>/train`, sorted.

    Raises:
        DataError: `<root>/train` is missing, has fewer than two folders, or has one with a broken name or link.
    """
    train = Path(root) / "train"
    if not train.is_dir():
        raise DataError(f"there is no folder {train}: {LAYOUT.format(root=root)}")
    names = class_folders(train)
    if not names:
        raise DataError(f"{train} holds no class folder: {LAYOUT.format(root=root)}")
    if len(names) == 1:
        raise DataError(f"{train} holds only one class folder, `{names[0]}`: a classifier needs at least two")
    return names


def choose_classes(root: str | Path, wanted: list[str] | None) -> list[str]:
    """The classes to train on, in the order of their labels: the `wanted` ones, or all.

    Raises:
        DataError: As `class_names`.
        ConfigError: `wanted` names a class that does not exist, one class twice, or fewer than two.
    """
    return chosen_among(class_names(root), wanted, f"no folder in {Path(root) / 'train'}")


def chosen_among(names: list[str], wanted: list[str] | None, otherwise: str) -> list[str]:
    """The classes `wanted`, or all `names`.

    Args:
        names: All existing classes.
        wanted: In the order of their labels; None: all.
        otherwise: What a class is that does not exist, for the message.

    Raises:
        ConfigError: `wanted` names a class that does not exist, one class twice, or fewer than two.
    """
    if wanted is None:
        return names
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ConfigError(f"`classes` names `{missing[0]}`, which is {otherwise}; {did_you_mean(missing[0], names)}")
    if len(set(wanted)) < len(wanted):
        twice = next(name for name in wanted if wanted.count(name) > 1)
        raise ConfigError(f"`classes` names `{twice}` more than once")
    if len(wanted) < 2:
        raise ConfigError(f"`classes` is {wanted}: a classifier needs at least two")
    return list(wanted)


def check_test_classes(root: str | Path, test: str = "val") -> None:
    """Refuses a test set with a class that the training set lacks: all its images would count as errors.

    Raises:
        DataError: Names the first such class.
    """
    folder = Path(root) / test
    known = class_names(root)
    if folder.is_dir():
        odd = [name for name in class_folders(folder) if name not in known]
        if odd:
            raise DataError(f"{folder} has a folder `{odd[0]}`, which is no class of {Path(root) / 'train'}")


def list_images(part: Path, classes: list[str]) -> Listing:
    """All files of the class folders in `part` (`<root>/train` or `<root>/val`), including those that are no images.

    Raises:
        DataError: A class has no folder or no file in `part`, or a folder cannot be read.
    """
    listing = Listing([], [])
    for label, name in enumerate(classes):
        folder = part / name
        if not folder.is_dir():
            raise DataError(f"{part} has no folder `{name}`, a class of the training set")
        files = visible(folder)
        if not files:
            raise DataError(f"the class folder {folder} is empty; put images there, or leave the class out")
        listing.names.extend(f"{name}/{file}" for file in files)
        listing.labels.extend([label] * len(files))
    return listing


def warn_of_loose_images(folder: Path, classes: Collection[str]) -> None:
    """Warns of images that lie beside the class folders of `folder`, and so belong to no class."""
    loose = [name for name in visible(folder) if name not in classes and Path(name).suffix.lower() in EXTENSIONS]
    if loose:
        log.warning("%s: images beside the class folders are left out: %d, such as %s", folder, len(loose), loose[0])


def visible(folder: Path) -> list[str]:
    """The sorted names in a folder, without hidden ones and litter.

    Raises:
        DataError: It cannot be read.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are enough, and there may be a million
    except OSError as error:
        raise DataError(f"cannot read the folder {folder} ({error.strerror or error})") from error
    return sorted(name for name in names if not name.startswith(".") and name not in LITTER)


def class_folders(folder: Path) -> list[str]:
    """The sorted class folders in a folder; raises for a broken link, which would silently leave out a class."""
    names = []
    for name in visible(folder):
        path = folder / name
        if path.is_symlink() and not path.exists():
            raise DataError(f"{path} is a link to nothing; restore what it points to, or delete it")
        if not os.path.isdir(path):  # noqa: PTH112 - False, not an error, if it cannot be looked up
            continue
        if any("\udc80" <= sign <= "\udcff" for sign in name):  # Python's code for bytes that are not UTF-8
            raise DataError(f"the class folder {path} has a name that is no UTF-8; rename it")
        names.append(name)
    return names
