"""Listing of image folders: classes, files, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from alexnet_lab.base.errors import ConfigError, DataError
from alexnet_lab.data import folders


def test_classes_are_the_folders_of_train_in_order(make_folder):
    root = make_folder(classes=("pear", "apple", "Quince"))
    (root / "train" / ".hidden").mkdir()
    (root / "train" / "notes.txt").write_text("no class")
    assert folders.class_names(root) == ["Quince", "apple", "pear"]


def test_counting_classes_loads_nothing_heavy():
    code = (
        "import sys; import alexnet_lab.data.folders; "
        "print([m for m in ('torch', 'numpy', 'lightning', 'PIL') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_missing_folder_is_reported_with_what_to_put_where(tmp_path):
    with pytest.raises(DataError, match=re.escape(f"there is no folder {tmp_path / 'no' / 'train'}: put the images")):
        folders.class_names(tmp_path / "no")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="holds no class folder: put the images into"):
        folders.class_names(tmp_path)


def test_one_class_is_refused(make_folder):
    root = make_folder(classes=("apple",))
    with pytest.raises(DataError, match=r"only one class folder, `apple`: a classifier needs at least two"):
        folders.class_names(root)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["apple", "pera"], "`classes` names `pera`, which is no folder in .*; did you mean `pear`?"),
        (["apple", "pear", "apple"], "`classes` names `apple` more than once"),
        (["apple"], r"`classes` is \['apple'\]: a classifier needs at least two"),
    ],
)
def test_a_wrong_choice_of_classes_is_refused(make_folder, wanted, message):
    root = make_folder()
    with pytest.raises(ConfigError, match=message):
        folders.choose_classes(root, wanted)


def test_chosen_classes_keep_their_order(make_folder):
    root = make_folder(classes=("apple", "pear", "plum"))
    assert folders.choose_classes(root, ["plum", "apple"]) == ["plum", "apple"]
    assert folders.choose_classes(root, None) == ["apple", "pear", "plum"]


def test_files_are_sorted_and_hidden_ones_and_litter_ignored(make_folder):
    root = make_folder(count=3)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (root / "train" / "apple" / name).touch()
    listing = folders.list_images(root / "train", ["pear", "apple"])
    assert [name.removesuffix(".png") for name in listing.names] == [
        *("pear/00", "pear/01", "pear/02"),
        *("apple/00", "apple/01", "apple/02"),
    ]
    assert listing.labels == [0, 0, 0, 1, 1, 1]


def test_an_empty_class_is_refused(make_folder):
    root = make_folder()
    (root / "train" / "quince").mkdir()
    with pytest.raises(DataError, match=r"the class folder .*quince is empty"):
        folders.list_images(root / "train", ["apple", "quince"])


def test_a_test_set_without_a_class_is_refused(make_folder):
    root = make_folder(parts=("train", "val"))
    with pytest.raises(DataError, match="val has no folder `plum`, a class of the training set"):
        folders.list_images(root / "val", ["apple", "plum"])


def test_a_test_set_with_a_class_of_its_own_is_refused(make_folder):
    root = make_folder(parts=("train", "val"))
    (root / "val" / "plum").mkdir()
    with pytest.raises(DataError, match=r"val has a folder `plum`, which is no class of"):
        folders.check_test_classes(root)
