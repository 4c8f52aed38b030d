"""A file of an image folder that has changed is noticed, however it was changed; nothing else is read again."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from alexnet_lab.base.errors import DataError
from alexnet_lab.data import CIFAR10DataModule, ImageFolderDataModule
from alexnet_lab.data.source_files import NAME, TICK_NS, SourceFiles, look_up
from alexnet_lab.data.sources.cifar10 import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LONG_AGO = 10**18  # ns

NO_TEXT = os.fsdecode(b"caf\xe9")
"""A name that is no UTF-8."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of BMP files, all of one size, written at one time long ago."""
    rng = np.random.default_rng(4)
    for name in ("apple", "pear"):
        folder = tmp_path / "pictures" / "train" / name
        folder.mkdir(parents=True)
        for number in range(6):
            path = folder / f"{number}.bmp"
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
            os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return tmp_path / "pictures"


def prepared(root: Path, **fields: Any) -> ImageFolderDataModule:
    module = ImageFolderDataModule(
        dir=str(root.parent), root=str(root), num_classes=2, image_size=6, stored_size=8, batch_size=2, channels=1,
        **fields,
    )  # fmt: skip
    module.prepare_data()
    module.setup()
    return module


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fills with the name of each file whose content is read to compare it."""
    seen: list[str] = []
    plain = SourceFiles.digest

    def counted(self: SourceFiles, row: int) -> Any:
        seen.append(self.names[row])
        return plain(self, row)

    monkeypatch.setattr(SourceFiles, "digest", counted)
    return seen


def settle(module: ImageFolderDataModule) -> None:
    """Makes the table one that was written long after the files."""
    with np.load(module.store_path / NAME) as archive:
        table: dict[str, Any] = dict(archive)
    table["seen_ns"] = time.time_ns() + 10 * TICK_NS
    np.savez(module.store_path / NAME, **table)


def one(root: Path) -> Path:
    return root / "train" / "apple" / "0.bmp"


def other(root: Path) -> Path:
    return root / "train" / "pear" / "0.bmp"


def with_times_of(path: Path, change: Callable[[], object]) -> None:
    """Changes a file and sets its times back, as `touch -r` does."""
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def inverted(content: bytes) -> bytes:
    return content[:-64] + bytes(255 - byte for byte in content[-64:])


def edit_in_place(root: Path) -> None:
    content = inverted(one(root).read_bytes())
    with_times_of(one(root), lambda: one(root).write_bytes(content))


def swap_by_renaming(root: Path) -> None:
    one(root).rename(root / "spare")
    other(root).rename(one(root))
    (root / "spare").rename(other(root))


def swap_by_copying(root: Path) -> None:
    """`cp -p`."""
    shutil.copy2(one(root), root / "spare")
    shutil.copy2(other(root), one(root))
    shutil.copy2(root / "spare", other(root))
    (root / "spare").unlink()


def replace(root: Path) -> None:
    """As rsync does it: a new file with the old times, renamed into place."""
    spare = root / "spare"
    spare.write_bytes(inverted(one(root).read_bytes()))
    os.utime(spare, ns=(LONG_AGO, LONG_AGO))
    spare.rename(one(root))


def link(root: Path) -> None:
    one(root).unlink()
    one(root).symlink_to(other(root))


CHANGES = [edit_in_place, swap_by_renaming, swap_by_copying, replace, link]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("late", [False, True])
def test_changed_content_is_noticed(change, late, root, caplog):
    before = prepared(root)
    if late:
        settle(before)
    change(root)
    assert {path.stat().st_mtime_ns for path in root.rglob("*.bmp")} == {LONG_AGO}
    caplog.set_level("INFO", "alexnet_lab")
    after = prepared(root)
    assert after.store_hash != before.store_hash
    assert "have changed: preparing them again (the content of train/apple/0.bmp" in caplog.text
    assert prepared(root).store_hash == after.store_hash


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_part_of_the_state_counts(which, root, reads):
    """Where a file system keeps no change time, or reuses inodes, the other checks must suffice."""
    module = prepared(root)
    settle(module)
    with np.load(module.store_path / NAME) as archive:
        table: dict[str, Any] = dict(archive)
    table["states"][3, which + 1] += 1
    np.savez(module.store_path / NAME, **table)
    reads.clear()
    assert prepared(root).store_hash == module.store_hash
    assert reads == ["train/apple/3.bmp"]


def touch(root: Path) -> None:
    for path in root.rglob("*.bmp"):
        path.touch()


def move_away_and_back(root: Path) -> None:
    shutil.copytree(root / "train", root / "copy")
    shutil.rmtree(root / "train")
    (root / "copy").rename(root / "train")


@pytest.mark.parametrize("change", [touch, move_away_and_back, lambda root: one(root).chmod(0o600)])
def test_equal_content_keeps_the_store(change, root, reads):
    before = prepared(root)
    settle(before)
    written = (before.store_path / "meta.json").stat()
    change(root)
    assert prepared(root).store_hash == before.store_hash
    assert (before.store_path / "meta.json").stat() == written
    settle(before)
    reads.clear()
    prepared(root)
    assert reads == []


def test_files_that_did_not_change_are_not_read(root, reads):
    module = prepared(root)
    assert len(reads) == 12
    settle(module)
    reads.clear()
    one(root).touch()
    prepared(root)
    assert reads == ["train/apple/0.bmp"]


def test_a_file_as_fresh_as_the_table_is_not_trusted(root, reads):
    """It may have been written again within one tick of the clock, after it was read."""
    module = prepared(root)
    with np.load(module.store_path / NAME) as archive:
        table: dict[str, Any] = dict(archive)
    edit_in_place(root)
    table["states"] = look_up(root, [f"train/{name}/{n}.bmp" for name in ("apple", "pear") for n in range(6)]).states
    np.savez(module.store_path / NAME, **table)
    assert prepared(root).store_hash != module.store_hash
    assert "train/apple/0.bmp" in reads


def other_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def other_table(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, names=np.zeros(3))


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"nothing"), other_array, other_table]
)
def test_a_store_without_its_table_is_made_again(damage, root, caplog):
    caplog.set_level("INFO", "alexnet_lab")
    module = prepared(root)
    damage(module.store_path / NAME)
    assert prepared(root).store_hash == module.store_hash
    assert (
        "preparing them again (it was prepared by an earlier version, or its list of files is damaged)" in caplog.text
    )
    assert (module.store_path / NAME).stat().st_size > 100


def test_a_repaired_file_is_taken_in(root):
    content = one(root).read_bytes()
    with_times_of(one(root), lambda: one(root).write_bytes(b"x" * len(content)))
    before = prepared(root, skip_unreadable=True)
    with_times_of(one(root), lambda: one(root).write_bytes(content))
    assert [sum(len(labels) for labels in module.store.labels.values()) for module in (
        before, prepared(root, skip_unreadable=True)
    )] == [11, 12]  # fmt: skip


def test_a_changed_copy_of_cifar10_is_noticed(tmp_path):
    for part in ("train", "test"):
        for name in NAMES:
            folder = tmp_path / "cifar10" / part / name
            folder.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / f"{number}.bmp")

    def module() -> CIFAR10DataModule:
        made = CIFAR10DataModule(dir=str(tmp_path), batch_size=4)
        made.prepare_data()
        made.setup()
        return made

    before = module()
    assert module().store_hash == before.store_hash
    path = tmp_path / "cifar10" / "train" / "bird" / "0.bmp"
    content = inverted(path.read_bytes())
    with_times_of(path, lambda: path.write_bytes(content))
    assert module().store_hash != before.store_hash


# What is no image, or has no proper name


def spoil(root: Path, how: str) -> str:
    """Puts something odd beside the images of a class; returns how it is named in messages."""
    folder = root / "train" / "pear"
    if how == "link":
        (folder / "x.png").symlink_to("nowhere")
    elif how == "loop":
        (folder / "x.png").symlink_to("x.png")
    elif how == "folder":
        (folder / "x.png").mkdir()
    elif how == "pipe":
        os.mkfifo(folder / "x.png")
    else:
        (folder / f"{NO_TEXT}.png").write_bytes(b"no image")
        return "train/pear/caf\\udce9.png"
    return "train/pear/x.png"


@pytest.mark.parametrize("how", ["link", "loop", "folder", "pipe", "name"])
def test_what_is_no_image_is_named_or_left_out(how, root, caplog):
    named = spoil(root, how)
    with pytest.raises(DataError) as caught:
        prepared(root)
    assert str(caught.value).startswith(f"cannot read {named}: ")
    for _ in range(2):
        module = prepared(root, skip_unreadable=True)
        assert module.num_train + module.num_val + module.num_test == 12
        assert [note.split(": ")[0] for note in module.store.meta["skipped"]] == [named]
    assert caplog.text.count(f"left out 1 of 13 images that cannot be read: {named}: ") == 1


def test_an_image_whose_name_is_no_text_is_used(root):
    other(root).rename(other(root).with_name(f"{NO_TEXT}.bmp"))
    module = prepared(root)
    assert module.num_train + module.num_val + module.num_test == 12
    settle(module)
    assert prepared(root).store_hash == module.store_hash


def test_a_class_folder_whose_name_is_no_text_is_refused(root):
    (root / "train" / "pear").rename(root / "train" / NO_TEXT)
    with pytest.raises(DataError, match=r"the class folder .*train/caf\\udce9 has a name that is no UTF-8; rename"):
        prepared(root)


def test_a_class_that_is_a_link_to_nothing_is_refused(root):
    (root / "train" / "plum").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"train/plum is a link to nothing; restore what it points to, or delete it"):
        prepared(root)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_that_loses_all_its_images_is_refused(part, root):
    if part == "val":
        shutil.copytree(root / "train", root / "val")
    for path in (root / part / "pear").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=rf"no image of a class can be read \({part}/pear/0\.bmp: .*\); repair its"):
        prepared(root, skip_unreadable=True)


def test_a_class_with_a_single_image_is_a_warning(root, caplog):
    for path in list((root / "train" / "pear").iterdir())[1:]:
        path.unlink()
    prepared(root)
    assert "class `pear` has a single image to train on" in caplog.text


def test_a_class_without_an_image_to_train_on_is_refused(root):
    for path in list((root / "train" / "pear").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match=r"class `pear` has no image to train on: all are set apart for validation"):
        prepared(root, test_fraction=0.6)
