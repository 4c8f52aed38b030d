"""`data=mini_imagenet` in its three layouts, and what is refused of each."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from commands import call, compose_raw
from PIL import Image

from alexnet_lab.base.errors import ConfigError, DataError
from alexnet_lab.config import check_train
from alexnet_lab.data import MiniImageNetDataModule
from alexnet_lab.data.sources.mini_imagenet_files import GUIDE16

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DIVIDED = {"train": ["ant", "bee", "cat"], "val": ["dog"], "test": ["eel", "fox"]}
"""Six classes of a small mini-ImageNet, by set."""

EACH = 4
"""Images of a class."""


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


def grey(name: str, number: int) -> int:
    """A value that identifies each image."""
    return 10 * (ord(name[0]) - ord("a")) + number


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """The layout of class folders in three sets."""
    for part, names in DIVIDED.items():
        for name in names:
            for number in range(EACH):
                picture(tmp_path / "mini_imagenet" / part / name / f"{number}.png", grey(name, number))
    return tmp_path / "mini_imagenet"


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """The layout of `images/` and three csv files, whose rows are in no order."""
    root = tmp_path / "mini_imagenet"
    for part, names in DIVIDED.items():
        rows = [(f"{name}{number}.png", name) for number in range(EACH) for name in reversed(names)]
        for file, name in rows:
            picture(root / "images" / file, grey(name, int(file[3])))
        (root / f"{part}.csv").write_text("filename,label\n" + "".join(f"{file},{name}\n" for file, name in rows))
    return root


def module(root: Path, **fields: Any) -> MiniImageNetDataModule:
    sizes: Any = {"num_classes": 6, "image_size": 8, "stored_size": 8, "batch_size": 2, "normalization": "unit"}
    return MiniImageNetDataModule(dir=str(root.parent), **(sizes | fields))


def ready(root: Path, **fields: Any) -> MiniImageNetDataModule:
    made = module(root, **fields)
    made.prepare_data()
    made.setup()
    return made


def described(made: MiniImageNetDataModule) -> list[tuple[str, int]]:
    """Class and value of each stored image."""
    labels, images = made.store.labels["train"], made.store.images["train"]
    return [(made.class_names[label], int(image[0, 0, 0])) for label, image in zip(labels, images, strict=True)]


ALL = [(name, grey(name, number)) for name in ["ant", "bee", "cat", "dog", "eel", "fox"] for number in range(EACH)]


@pytest.mark.parametrize(("layout", "part"), [("divided", "val"), ("same classes", "train")])
def test_images_beside_the_class_folders_are_named(layout, part, folders, caplog):
    if layout == "same classes":
        shutil.rmtree(folders / "test")
        shutil.rmtree(folders / "val")
    picture(folders / part / "loose.png", 1)
    module(folders, num_classes=6 if layout == "divided" else 3).prepare_data()
    assert f"{folders / part}: images beside the class folders are left out: 1, such as loose.png" in caplog.text


@pytest.mark.parametrize("layout", ["folders", "flat", "tables"])
def test_sets_that_divide_the_classes_are_joined_and_split_by_image(layout, request):
    root = request.getfixturevalue("tables" if layout == "tables" else "folders")
    if layout == "flat":
        for part in DIVIDED:
            for folder in (root / part).iterdir():
                folder.rename(root / folder.name)
            (root / part).rmdir()
    made = ready(root, test_fraction=0.25, val_fraction=0.34)
    assert described(made) == ALL
    counts = {
        part: np.bincount(made.store.labels["train"][getattr(made.split, part)]) for part in ("train", "val", "test")
    }
    assert [counts["test"].tolist(), counts["val"].tolist(), counts["train"].tolist()] == [[1] * 6, [1] * 6, [2] * 6]
    assert compose_raw("data=mini_imagenet", "model=alexnet", f"data.dir={root.parent}")["data"]["num_classes"] == 6


def test_a_set_of_the_same_classes_in_val_stays_the_test_set(make_folder, tmp_path):
    make_folder("mini_imagenet", parts=("train", "val"))
    made = ready(tmp_path / "mini_imagenet", num_classes=2)
    assert (made.num_train + made.num_val, made.num_test) == (12, 12)


@pytest.mark.parametrize(("parts", "tested"), [(("val", "test"), "val/"), (("test",), "a part of train/")])
def test_a_folder_test_of_the_same_classes_is_named_as_unused(parts, tested, make_folder, tmp_path, caplog):
    make_folder("mini_imagenet", parts=("train", *parts))
    module(tmp_path / "mini_imagenet", num_classes=2).prepare_data()
    root = tmp_path / "mini_imagenet"
    assert f"{root}: test/ is not used, the test set is {tested}; data=image_folder has data.test" in caplog.text


def test_some_classes_may_be_chosen_in_any_layout(tables):
    made = ready(tables, classes=["fox", "ant"], num_classes=2)
    assert made.class_names == ["fox", "ant"]
    assert described(made) == [item for name in ("fox", "ant") for item in ALL if item[0] == name]
    words = ("data=mini_imagenet", "model=alexnet", f"data.root={tables}")
    assert compose_raw(*words, "data.classes=[fox,ant]")["data"]["num_classes"] == 2
    with pytest.raises(ConfigError, match=r"`classes` names `foxx`, which is no class of .*; did you mean `fox`"):
        module(tables, classes=["foxx", "ant"]).prepare_data()


def test_the_guides_list_has_a_name():
    config = check_train(compose_raw("data=mini_imagenet", "model=alexnet", "data.classes=guide16"))
    assert (config.data["classes"], config.data["num_classes"]) == ("guide16", 16)
    assert MiniImageNetDataModule(classes="guide16", num_classes=16).classes == GUIDE16
    outcome = call(check_train, "train", "data=mini_imagenet", "model=alexnet", "data.classes=guide")
    assert outcome.code == 2
    assert "`data.classes` is" in outcome.err
    assert "guide16" in outcome.err


def test_without_images_it_has_the_published_number_of_classes(tmp_path):
    assert compose_raw("data=mini_imagenet", "model=alexnet", f"data.dir={tmp_path}")["data"]["num_classes"] == 100


def test_a_changed_label_rebuilds_the_store(tables):
    before = ready(tables).store_hash
    text = (tables / "train.csv").read_text()
    (tables / "train.csv").write_text(text.replace("ant0.png,ant", "ant0.png,bee"))
    again = ready(tables)
    assert again.store_hash != before
    assert described(again)[EACH - 1] == ("bee", grey("ant", 0))
    assert ready(tables).store_hash == again.store_hash


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(change((root / name).read_text()))


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing_image": (
        lambda root: (root / "images" / "bee1.png").unlink(),
        r"images has no bee1\.png, which line 6 of train\.csv names; restore it or delete the line",
    ),
    "two_missing_images": (
        lambda root: [(root / "images" / f"bee{number}.png").unlink() for number in (1, 2)],
        r"\(and 1 more are missing\)",
    ),
    "missing_csv": (lambda root: (root / "val.csv").unlink(), r"has no val\.csv: put the images into"),
    "missing_csvs": (
        lambda root: [(root / f"{name}.csv").unlink() for name in DIVIDED],
        r"has no train\.csv: put the images into",
    ),
    "missing_images": (lambda root: shutil.rmtree(root / "images"), r"has no images/: put the images into"),
    "duplicate_row": (
        edit("train.csv", lambda text: text + "ant0.png,ant\n"),
        r"line 14 of train\.csv names ant0\.png, as line 4 of train\.csv does; delete one of the two",
    ),
    "two_labels": (
        edit("test.csv", lambda text: text + "ant0.png,fox\n"),
        r"line 10 of test\.csv names ant0\.png, as line 4 of train\.csv does",
    ),
    "class_in_two_csvs": (
        edit("val.csv", lambda text: text.replace("dog0.png,dog", "dog0.png,ant")),
        r"the class ant is in train\.csv and in val\.csv, but mini-ImageNet divides its classes; .*data=image_folder",
    ),
    "wrong_columns": (
        edit("val.csv", lambda text: text.replace("filename,label", "file,class")),
        r"val\.csv begins with file,class; allowed: the line filename,label",
    ),
    "no_header": (
        edit("val.csv", lambda text: text.partition("\n")[2]),
        r"val\.csv begins with dog0\.png,dog; allowed: the line filename,label",
    ),
    "short_row": (
        edit("val.csv", lambda text: text + "dog9.png\n"),
        r"line 6 of .*val\.csv is dog9\.png; allowed: a file name and a label",
    ),
    "no_label": (edit("val.csv", lambda text: text + "dog9.png,\n"), r"line 6 of .*val\.csv is dog9\.png,; allowed"),
    "empty_csv": (edit("val.csv", lambda _: ""), r"val\.csv begins with nothing; allowed: the line filename,label"),
    "only_a_header": (edit("val.csv", lambda _: "filename,label\n"), r"val\.csv names no image"),
    "not_text": (
        lambda root: (root / "val.csv").write_bytes(b"filename,label\n\xff,\xfe\n"),
        r"cannot read .*val\.csv",
    ),
    "outside": (
        edit("val.csv", lambda text: text + "../secret.png,dog\n"),
        r"images has no \.\./secret\.png, which line 6 of val\.csv names",
    ),
    "both_layouts": (
        lambda root: picture(root / "train" / "ant" / "0.png", 1),
        r"holds both train/ and train\.csv: two layouts of one data set; move one away",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_bad_tables_are_refused_in_one_line_and_nothing_is_stored(name, tables):
    spoil, message = HOSTILE[name]
    (tables.parent / "secret.png").touch()
    spoil(tables)
    with pytest.raises(DataError, match=message) as raised:
        module(tables).prepare_data()
    assert "\n" not in str(raised.value)
    stored = tables.parent / "store"
    assert not stored.exists() or not [path for path in stored.iterdir() if path.is_dir()]


def test_a_bad_table_is_reported_before_a_run_begins(tables, tmp_path):
    (tables / "val.csv").write_text("")
    run = tmp_path / "run"
    outcome = call(
        check_train, "train", "data=mini_imagenet", "model=alexnet", f"data.dir={tmp_path}", f"run_dir={run}"
    )
    assert outcome.code == 1
    assert outcome.err.startswith("error: ")
    assert "val.csv begins with nothing" in outcome.err
    assert not run.exists()


def test_a_byte_order_mark_and_dos_line_ends_are_read(tables):
    text = (tables / "val.csv").read_text()
    (tables / "val.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert described(ready(tables)) == ALL


def test_a_class_in_two_folders_is_refused(folders):
    picture(folders / "test" / "dog" / "9.png", 1)
    with pytest.raises(
        DataError, match=r"the class dog is in val/ and in test/, but mini-ImageNet divides its classes"
    ):
        module(folders).prepare_data()


@pytest.mark.parametrize("missing", DIVIDED)
def test_a_missing_set_is_refused(missing, folders):
    shutil.rmtree(folders / missing)
    others = " and ".join(part for part in DIVIDED if part != missing)
    with pytest.raises(DataError, match=rf"has no folder {missing}/, but {others} divide the classes: restore it"):
        module(folders).prepare_data()


def test_an_empty_class_folder_is_refused(folders):
    shutil.rmtree(folders / "val" / "dog")
    (folders / "val" / "dog").mkdir()
    with pytest.raises(DataError, match=r"the class folder .*val/dog is empty"):
        module(folders).prepare_data()
