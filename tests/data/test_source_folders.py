"""The calls of a start on a prepared store of a large image folder do not grow with its files; changes are noticed."""

from __future__ import annotations

import builtins
import io
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from alexnet_lab.data import ImageFolderDataModule, ImageNetteDataModule, MiniImageNetDataModule, source_files
from alexnet_lab.data.source_files import TICK_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from alexnet_lab.data.datamodule import ImageDataModule

FIELDS: dict[str, Any] = {"num_classes": 2, "image_size": 6, "stored_size": 8, "batch_size": 2}


@pytest.fixture(autouse=True)
def _large_from_10_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_files, "MANY", 10)
    monkeypatch.setattr(source_files, "SAMPLE", 4)


def write(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (grey, grey, 0)).save(path)


def folders(root: Path, count: int) -> ImageDataModule:
    for part, name in (("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")):
        for number in range(count // 4):
            write(root / part / name / f"{number}.bmp", number)
    return ImageFolderDataModule(dir=str(root.parent), root=str(root), **FIELDS)


def imagenette(root: Path, count: int) -> ImageDataModule:
    folders(root, count)
    return ImageNetteDataModule(dir=str(root.parent), root=str(root), **FIELDS)


def mini_imagenet(root: Path, count: int) -> ImageDataModule:
    """The layout with csv files."""
    for number in range(count):
        write(root / "images" / f"{number}.bmp", number)
    for part, name in (("train", "a"), ("val", "b"), ("test", "c")):
        own = range({"a": 0, "b": 1, "c": 2}[name], count, 3)
        (root / f"{part}.csv").write_text("filename,label\n" + "".join(f"{number}.bmp,{name}\n" for number in own))
    fields: dict[str, Any] = FIELDS | {"num_classes": 3}
    return MiniImageNetDataModule(dir=str(root.parent), root=str(root), **fields)


SOURCES = [folders, imagenette, mini_imagenet]


def settled(module: ImageDataModule) -> ImageDataModule:
    """Prepares the store; its records become those of a start long after the files were written."""
    module.prepare_data()
    for name in ("files.npz", source_files.FOLDERS):
        with np.load(module.store_path / name) as archive:
            table: dict[str, Any] = dict(archive)
        table["seen_ns"] = time.time_ns() + 10 * TICK_NS
        np.savez(module.store_path / name, **table)
    return module


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts the calls that look at files and folders."""
    counts: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        original = getattr(module, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)

    for module, name in (
        (os, "stat"),
        (os, "lstat"),
        (os, "listdir"),
        (os, "scandir"),
        (builtins, "open"),
        (io, "open"),
    ):
        count(module, name)
    yield counts
    monkeypatch.undo()


def start(module: ImageDataModule, **fields: Any) -> ImageDataModule:
    """A later start with the same data."""
    again = type(module)(dir=module.dir, root=module.root, **FIELDS | {"num_classes": module.num_classes} | fields)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue] - `root` is of image folders
    again.prepare_data()
    again.setup()
    return again


@pytest.mark.parametrize("source", SOURCES)
def test_calls_of_a_start_do_not_grow_with_the_files(source, tmp_path, calls):
    found = []
    for count in (24, 96):
        module = settled(source(tmp_path / f"{count}" / "images", count))
        calls.clear()
        start(module)
        found.append(calls.copy())
    assert found[0] == found[1]
    assert found[0]["listdir"] == found[0]["scandir"] == 0
    assert found[0]["stat"] < 60
    start(module, verify="full")
    assert calls["stat"] > 96


def add(root: Path) -> None:
    write(root / "train" / "a" / "new.bmp", 200)


def remove(root: Path) -> None:
    (root / "train" / "a" / "3.bmp").unlink()


def rename(root: Path) -> None:
    (root / "val" / "b" / "3.bmp").rename(root / "val" / "b" / "new.bmp")


def replace(root: Path) -> None:
    write(root / "spare.bmp", 200)
    (root / "spare.bmp").rename(root / "train" / "a" / "3.bmp")


def new_class(root: Path) -> None:
    write(root / "train" / "c" / "0.bmp", 200)
    write(root / "val" / "c" / "0.bmp", 200)


def no_test_set(root: Path) -> None:
    (root / "val").rename(root / "unused")


def convert_all(root: Path) -> None:
    for path in root.rglob("*.bmp"):
        Image.new("RGB", (8, 8), (0, 0, 200)).save(path)


@pytest.mark.parametrize("change", [add, remove, rename, replace, new_class, no_test_set, convert_all])
def test_changed_folder_is_noticed(change: Callable[[Path], None], tmp_path: Path) -> None:
    root = tmp_path / "images"
    before = settled(folders(root, 48))
    written = (before.store_path / "meta.json").stat().st_ino
    assert (start(before).store_path / "meta.json").stat().st_ino == written
    change(root)
    after = start(before, num_classes=3 if change is new_class else 2)
    assert (after.store_path / "meta.json").stat().st_ino != written


def test_table_of_labels_that_changed_is_noticed(tmp_path):
    root = tmp_path / "images"
    before = settled(mini_imagenet(root, 24))
    before.setup()
    text = (root / "train.csv").read_text()
    (root / "train.csv").write_text(text.replace("0.bmp,a\n", "", 1))
    (root / "images" / "0.bmp").unlink()
    assert start(before).num_train < before.num_train


def test_single_file_overwritten_in_place_is_found_by_a_full_verification(tmp_path):
    root = tmp_path / "images"
    before = settled(folders(root, 48))
    before.setup()
    write(root / "train" / "a" / "3.bmp", 200)  # not in the sample
    assert start(before).store_hash == before.store_hash
    assert start(before, verify="full").store_hash != before.store_hash


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive"])
def test_without_its_record_all_files_are_looked_up(content, tmp_path, calls):
    module = settled(folders(tmp_path / "images", 48))
    record = module.store_path / source_files.FOLDERS
    record.unlink()
    if content is not None:
        record.write_bytes(content)
    calls.clear()
    start(module)
    assert calls["stat"] > 48
    assert record.stat().st_size > 100


def test_folder_changed_while_it_was_listed_is_not_trusted(tmp_path):
    module = folders(tmp_path / "images", 48)
    module.prepare_data()  # its files are as fresh as the record
    assert not source_files.is_unchanged(module.store_path, tmp_path / "images")


def test_small_folder_is_looked_up_file_by_file(tmp_path, monkeypatch):
    monkeypatch.setattr(source_files, "MANY", 48)
    module = folders(tmp_path / "images", 48)
    module.prepare_data()
    assert not (module.store_path / source_files.FOLDERS).exists()
