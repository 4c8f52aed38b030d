"""Lists the layouts of mini-ImageNet: class folders, or `images/` with `train.csv`, `val.csv` and `test.csv`.

Vinyals et al. 2016 and Ravi and Larochelle 2017 divide its 100 classes, not its images, among three sets, to learn
from few examples. A classifier trains and tests on the same classes, so the three sets are joined here, and the stored
index of seeds splits the images. Imports neither numpy nor torch, because the config counts the classes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from alexnet_lab.base.errors import DataError
from alexnet_lab.data.folders import class_folders, class_names, list_images, visible, warn_of_loose_images

GUIDE16 = [
    "tench", "goldfish", "great_white_shark", "tiger_shark", "hammerhead", "electric_ray", "stingray", "cock", "hen",
    "ostrich", "brambling", "goldfinch", "house_finch", "junco", "indigo_bunting", "robin",
]  # fmt: skip
"""The classes of the annotated AlexNet guide, `data.classes=guide16`: the first 16 of ImageNet."""

PUBLISHED_CLASSES = 100
"""Of Vinyals et al.; assumed while there are no images."""

SETS = ("train", "val", "test")
"""The published division, as folders and as csv files."""

COLUMNS = ["filename", "label"]

LAYOUTS = (
    "put the images into {root}/train/<class>/*.jpg (and, if there is a test set of the same classes, "
    "{root}/val/<class>/*.jpg), or into {root}/images/*.jpg with train.csv, val.csv and test.csv beside images/"
)


class Joined(NamedTuple):
    """Images that are in no official training or test set."""

    images: dict[str, list[str]]  # by class, sorted; files below the root
    tables: list[str]  # csv files, below the root, that decide on the labels


def chosen_classes(classes: list[str] | str | None) -> list[str] | None:
    """The list that `data.classes` means; None: all."""
    return list(GUIDE16) if classes == "guide16" else classes  # pyright: ignore[reportReturnType] - its only name


def count_classes(root: Path, classes: list[str] | str | None) -> int:
    """The number of chosen or existing classes.

    Raises:
        DataError: The csv files or folders do not fit together.
    """
    chosen = chosen_classes(classes)
    if chosen and not isinstance(chosen, str):  # OmegaConf's list is no list of Python's
        return len(chosen)
    if not root.is_dir():
        return PUBLISHED_CLASSES
    if _has_tables(root):
        return len(_labelled(root))
    division = _division(root)
    return sum(map(len, division.values())) if division else len(class_names(root))


def joined(root: Path) -> Joined | None:
    """All images by class, if the layout divides the classes; None for `train/<class>` and `val/<class>`.

    Raises:
        DataError: No layout or two, or files that do not fit together: a csv or an image is missing, a row is
            malformed or repeated, a class is in two sets.
    """
    if _has_tables(root):
        return Joined(_listed_images(root), [f"{name}.csv" for name in SETS])
    division = _division(root)
    if division is None:
        return None
    images = {}
    for part, classes in division.items():
        warn_of_loose_images(root / part, classes)
        for name in classes:
            images[name] = [f"{part}/{file}" if part else file for file in list_images(root / part, [name]).names]
    return Joined({name: images[name] for name in sorted(images)}, [])


def _has_tables(root: Path) -> bool:
    """Whether the layout has csv files.

    Raises:
        DataError: There are class folders too, nothing at all, or not all of the csv files.
    """
    tables = [name for name in SETS if (root / f"{name}.csv").is_file()]
    folders = [name for name in SETS if (root / name).is_dir()]
    images = (root / "images").is_dir()
    if not tables and not images:
        return False
    if folders:
        found = f"{tables[0]}.csv" if tables else "images/"
        raise DataError(f"{root} holds both {folders[0]}/ and {found}: two layouts of one data set; move one away")
    missing = [f"{name}.csv" for name in SETS if name not in tables] + ([] if images else ["images/"])
    if missing:
        raise DataError(f"{root} has no {missing[0]}: {LAYOUTS.format(root=root)}")
    return True


def _division(root: Path) -> dict[str, list[str]] | None:
    """The classes by folder, if no two folders share a class; None for training and test sets.

    Raises:
        DataError: There are no class folders; or, of three folders that divide the classes, one is missing or two share
            a class.
    """
    parts = {part: class_folders(root / part) for part in SETS if (root / part).is_dir()}
    if not parts:
        there = class_folders(root) if root.is_dir() else []
        if len(there) < 2:
            raise DataError(f"there is no folder {root / 'train'}: {LAYOUTS.format(root=root)}")
        return {"": there}
    train = set(parts.get("train", ()))
    if not any(names and train.isdisjoint(names) for part, names in parts.items() if part != "train"):
        return None
    for missing in (part for part in SETS if part not in parts):
        raise DataError(f"{root} has no folder {missing}/, but {' and '.join(parts)} divide the classes: restore it")
    owner: dict[str, str] = {}
    for part, names in parts.items():
        for name in names:
            if owner.setdefault(name, part) != part:
                raise _in_two_sets(root, name, f"{owner[name]}/", f"{part}/")
    return parts


def _labelled(root: Path) -> dict[str, dict[str, str]]:
    """The rows of the csv files by class: file name to the row's place, for messages.

    Raises:
        DataError: A csv is empty or malformed, a row is repeated, or a class is in two of them.
    """
    classes: dict[str, dict[str, str]] = {}
    place_of: dict[str, str] = {}
    table_of: dict[str, str] = {}
    for table in (f"{name}.csv" for name in SETS):
        for line, file, label in _rows(root / table):
            here = f"line {line} of {table}"
            if file in place_of:
                raise DataError(f"{root}: {here} names {file}, as {place_of[file]} does; delete one of the two")
            place_of[file] = here
            if table_of.setdefault(label, table) != table:
                raise _in_two_sets(root, label, table_of[label], table)
            classes.setdefault(label, {})[file] = here
    return classes


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, file name and label of each row.

    Raises:
        DataError: The columns differ, there is no row, or one lacks a value.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path} ({error}); it has to be a csv file in UTF-8") from error
    if header != COLUMNS:
        raise DataError(f"{path} begins with {','.join(header) or 'nothing'}; allowed: the line {','.join(COLUMNS)}")
    if not rows:
        raise DataError(f"{path} names no image; restore it")
    for line, row in rows:
        if len(row) != len(COLUMNS) or not all(row):
            raise DataError(f"line {line} of {path} is {','.join(row)}; allowed: a file name and a label")
        yield line, row[0], row[1]


def _listed_images(root: Path) -> dict[str, list[str]]:
    """The files of each class that the csv files name.

    Raises:
        DataError: As `_labelled`; or an image is missing.
    """
    classes = _labelled(root)
    there = set(visible(root / "images"))
    lost = [(file, here) for rows in classes.values() for file, here in rows.items() if file not in there]
    if lost:
        others = f" (and {len(lost) - 1} more are missing)" if len(lost) > 1 else ""
        raise DataError(
            f"{root / 'images'} has no {lost[0][0]}, which {lost[0][1]} names{others}; restore it or delete the line"
        )
    return {label: [f"images/{file}" for file in sorted(classes[label])] for label in sorted(classes)}


def _in_two_sets(root: Path, name: str, first: str, second: str) -> DataError:
    return DataError(
        f"{root}: the class {name} is in {first} and in {second}, but mini-ImageNet divides its classes; "
        f"for training and test images of the same classes take data=image_folder"
    )
