"""The store: made once and whole, checked when it is opened."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from alexnet_lab.base.errors import DataError
from alexnet_lab.base.files import sha256
from alexnet_lab.data import array_writer, store_writing
from alexnet_lab.data.source_files import look_up
from alexnet_lab.data.store import Contents, Part, open_store
from alexnet_lab.data.store_writing import make_store, replace_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGES = np.random.default_rng(0).integers(0, 256, (150, 1, 4, 4), dtype=np.uint8)
LABELS = np.arange(150) % 3


def contents() -> Contents:
    train = Part(LABELS[:100], IMAGES[:100].__getitem__)
    test = Part(LABELS[100:], IMAGES[100:].__getitem__)
    return Contents("made up", ["a", "b", "c"], (1, 4, 4), {"train": train, "test": test})


def damaged_contents(bad: tuple[int, ...]) -> Contents:
    def read(number: int) -> np.ndarray:
        if number in bad:
            raise OSError("image file is truncated")
        return IMAGES[number]

    part = Part(LABELS, read, [f"train/{number}.jpg" for number in range(150)])
    return Contents("made up", ["a", "b", "c"], (1, 4, 4), {"train": part})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "toy-4"


def leftovers(path: Path) -> list[str]:
    return [entry.name for entry in path.parent.iterdir() if entry.name.endswith(".part")]


def test_it_holds_what_the_source_gave(path):
    make_store(path, contents)
    store = open_store(path, verify=True)
    assert np.array_equal(store.images["train"], IMAGES[:100])
    assert np.array_equal(store.images["test"], IMAGES[100:])
    assert np.array_equal(store.labels["train"], LABELS[:100])
    assert np.array_equal(store.labels["test"], LABELS[100:])
    assert store.class_names == ["a", "b", "c"]
    assert isinstance(store.images["train"], np.memmap)


def test_its_bytes_do_not_depend_on_the_number_of_threads(tmp_path, monkeypatch):
    hashes = set()
    for threads in (1, 2, 7):
        monkeypatch.setattr(store_writing, "available_cores", lambda threads=threads: threads)
        make_store(tmp_path / str(threads), contents)
        hashes.add(open_store(tmp_path / str(threads), verify=True).hash)
    assert len(hashes) == 1


def test_the_hash_depends_on_class_names_and_images(tmp_path):
    make_store(tmp_path / "one", contents)
    make_store(tmp_path / "two", lambda: contents()._replace(class_names=["c", "b", "a"]))
    make_store(tmp_path / "three", lambda: damaged_contents(()))
    assert len({open_store(tmp_path / name, verify=False).hash for name in ("one", "two", "three")}) == 3


def test_it_is_made_only_once(path):
    make_store(path, contents)
    make_store(path, lambda: pytest.fail("the source was asked again"))


def _prepare(path: Path, log: Path, barrier) -> None:
    def slow_contents() -> Contents:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return contents()

    barrier.wait()
    make_store(path, slow_contents)
    open_store(path, verify=True)


def test_two_processes_at_once_make_it_once(path, tmp_path):
    context = multiprocessing.get_context("forkserver")
    barrier = context.Barrier(2)
    processes = [context.Process(target=_prepare, args=(path, tmp_path / "log", barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len((tmp_path / "log").read_text().split()) == 1
    assert leftovers(path) == []


def test_what_a_killed_process_left_behind_is_cleared_away(path):
    stale = path.parent / f".{path.name}.abc.part"
    stale.mkdir(parents=True)
    (stale / "train_images.npy").write_bytes(b"half")
    make_store(path, contents)
    assert leftovers(path) == []


def test_an_interrupt_leaves_nothing(path):
    def read(number: int) -> np.ndarray:
        raise KeyboardInterrupt

    def interrupted() -> Contents:
        return contents()._replace(parts={"train": Part(LABELS, read)})

    with pytest.raises(KeyboardInterrupt):
        make_store(path, interrupted)
    assert not path.exists()
    assert leftovers(path) == []


def test_an_unreadable_image_is_named_and_stops_it(path):
    with pytest.raises(DataError) as caught:
        make_store(path, lambda: damaged_contents((70,)))
    assert str(caught.value) == (
        "cannot read train/70.jpg: image file is truncated; repair or delete, or set data.skip_unreadable=true"
    )
    assert not path.exists()
    assert leftovers(path) == []


def test_unreadable_images_are_counted(path):
    with pytest.raises(DataError, match=r"cannot read train/3\.jpg: image file is truncated and 2 more of 150;"):
        make_store(path, lambda: damaged_contents((149, 70, 3)))


def test_unreadable_images_can_be_left_out(path, caplog):
    make_store(path, lambda: damaged_contents((3, 70, 149)), skip_unreadable=True)
    store = open_store(path, verify=True)
    kept = np.setdiff1d(np.arange(150), [3, 70, 149])
    assert np.array_equal(store.images["train"], IMAGES[kept])
    assert np.array_equal(store.labels["train"], LABELS[kept])
    assert store.meta["skipped"] == [f"train/{n}.jpg: image file is truncated" for n in (3, 70, 149)]
    assert "left out 3 of 150 images that cannot be read: train/3.jpg" in caplog.text


def test_a_warning_names_few_of_many_images(path, caplog):
    make_store(path, lambda: damaged_contents(tuple(range(0, 150, 10))), skip_unreadable=True)
    assert "train/40.jpg: image file is truncated; and 10 more, which meta.json lists" in caplog.text
    assert "train/50.jpg" not in caplog.text


def test_leaving_out_everything_is_refused(path):
    message = r"^none of the 150 images can be read: train/0\.jpg: image file is truncated; repair them$"
    with pytest.raises(DataError, match=message):
        make_store(path, lambda: damaged_contents(tuple(range(150))), skip_unreadable=True)


def test_an_opened_store_survives_its_replacement(path):
    make_store(path, contents)
    old = open_store(path, verify=True)
    replace_store(path, damaged_contents(())._replace(files=look_up(path, ["a"])))
    assert np.array_equal(old.images["train"], IMAGES[:100])
    assert len(open_store(path, verify=True).images["train"]) == 150
    assert leftovers(path) == []


def test_a_store_of_the_same_files_is_not_replaced(path):
    make_store(path, lambda: contents()._replace(files=look_up(path, ["a"])))
    replace_store(path, damaged_contents((0, 1))._replace(files=look_up(path, ["a"])))  # the same, and unreadable
    assert len(open_store(path, verify=True).images["train"]) == 100


def _flip_byte(path: Path) -> None:
    content = bytearray((path / "train_images.npy").read_bytes())
    content[-1] ^= 1
    (path / "train_images.npy").write_bytes(content)


def _cut(path: Path) -> None:
    os.truncate(path / "test_images.npy", 100)


def _remove(path: Path) -> None:
    (path / "train_labels.npy").unlink()


def _break_json(path: Path) -> None:
    (path / "meta.json").write_text('{"format": 1, ')


def _remove_json(path: Path) -> None:
    (path / "meta.json").unlink()


def _other_format(path: Path) -> None:
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps(meta | {"format": 99}))


def _without_checksum(key: str, value: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        meta = json.loads((path / "meta.json").read_text()) | {key: value}
        (path / "meta.json").write_text(json.dumps({name: meta[name] for name in meta if name != "checksum"}))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_checksum("files", 3), "meta.json cannot be read: `files` is 3 .*"),
        (_without_checksum("files", {"train_images.npy": {"bytes": 1}}), "meta.json cannot be read: .*sha256.*"),
        (_without_checksum("shape", [1]), "meta.json cannot be read: `shape` is .*"),
        (_without_checksum("class_names", None), "meta.json cannot be read: `class_names` is None .*"),
        (_flip_byte, r"train_images\.npy has changed \(its checksum differs\)"),
        (_cut, r"test_images\.npy has 100 bytes instead of 928"),
        (_remove, r"train_labels\.npy is missing"),
        (_break_json, r"meta\.json cannot be read \(Expecting property name.*"),
        (_remove_json, r"meta\.json cannot be read \(.*No such file.*"),
        (_other_format, "its format is 99, this version reads 1"),
    ],
)
def test_damage_is_reported_with_what_to_delete(path, damage, message):
    make_store(path, contents)
    damage(path)
    with pytest.raises(
        DataError, match=rf"the store .*toy-4 is damaged: {message}; delete .*toy-4, the next start makes it again"
    ):
        open_store(path, verify=True)


def test_opening_without_preparing_is_reported(path):
    with pytest.raises(DataError, match=r"there is no store .*toy-4; prepare_data\(\)"):
        open_store(path, verify=False)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "store").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"cannot write .*toy-4 \(.*\); set data\.dir \(or ALEXNET_LAB_DATA\) to a"):
        make_store(tmp_path / "store" / "toy-4", contents)


def test_a_read_only_folder_is_reported(path, monkeypatch):
    def refuse(*_args: object, **_kwargs: object) -> str:  # root may write anywhere: so the refusal is played
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(DataError, match=r"cannot write .*toy-4 \(Permission denied\); set data\.dir"):
        make_store(path, contents)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_really_read_only_folder_is_reported(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(DataError, match=r"cannot write .*toy-4 \(Permission denied\); set data\.dir"):
        make_store(tmp_path / "store" / "toy-4", contents)
    tmp_path.chmod(0o755)


def test_a_full_disk_is_reported_and_leaves_nothing(path, monkeypatch):
    def refuse(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(array_writer.os, "posix_fallocate", refuse)
    with pytest.raises(DataError, match=r"the disk is full: .*toy-4 could not be written; make room or set data\.dir"):
        make_store(path, contents)
    assert not path.exists()
    assert leftovers(path) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/somewhere/train.idx"), r"cannot read /somewhere/train"),
        (OSError(errno.ENOSPC, "No space left on device"), r"the disk is full: .*toy-4 .*set data\.dir"),  # unpacking
    ],
)
def test_a_source_that_cannot_be_read_or_unpacked_is_reported(path, error, message):
    def refuse() -> Contents:
        raise error

    with pytest.raises(DataError, match=message):
        make_store(path, refuse)
    make_store(path, contents)
    with pytest.raises(DataError, match=message):  # to compare the folder with the store
        make_store(path, refuse, folder=path.parent)


def folder_contents(root: Path, reads: list[int], *, fails: tuple[int, ...] = (), stop: int | None = None) -> Contents:
    """20 "files" of a folder, the images above; `reads` notes which were decoded, `stop` interrupts."""
    names = sorted(path.name for path in root.iterdir())
    files = look_up(root, names)._replace(seen_ns=time.time_ns() + 10**10)  # old enough to be trusted

    def read(number: int) -> np.ndarray:
        if number == stop:
            raise KeyboardInterrupt
        files.digests[number] = files.digest(number)
        reads.append(number)
        if number in fails:
            raise OSError("image file is truncated")
        return IMAGES[int(names[number])]

    part = Part(LABELS[: len(names)], read, names, lambda: files.digests.tobytes().hex(), range(len(names)))
    return Contents("a folder", ["a", "b", "c"], (1, 4, 4), {"train": part}, files)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of 40 files; a shard holds four images, and threads decode two at once."""
    monkeypatch.setattr(array_writer, "SHARD_BYTES", 64)
    monkeypatch.setattr(store_writing, "CHUNK", 2)
    monkeypatch.setattr(store_writing, "available_cores", lambda: 1)
    root = tmp_path / "images"
    root.mkdir()
    for number in range(40):
        (root / f"{number:03}").write_text(str(number))
    return root


def same_files(first: Path, second: Path) -> bool:
    names = {path.name for path in first.iterdir()}
    return names == {path.name for path in second.iterdir()} and all(
        (first / name).read_bytes() == (second / name).read_bytes() for name in names - {"files.npz"}
    )


@pytest.mark.parametrize("killed", [False, True])
def test_an_interrupted_preparation_continues(path, folder, killed):
    with pytest.raises(KeyboardInterrupt):
        make_store(path, lambda: folder_contents(folder, [], stop=30))
    (work,) = path.parent.glob(".*.part")
    if killed:  # while it wrote
        with (work / "train_images.npy").open("r+b") as file:
            file.seek(128 + 16 * 10)
            file.write(b"\0" * 16)
    reads: list[int] = []
    make_store(path, lambda: folder_contents(folder, reads))
    assert sorted(reads) == list(range(8 if killed else 28, 40))
    make_store(path.parent / "whole", lambda: folder_contents(folder, []))
    assert same_files(path, path.parent / "whole")
    assert np.array_equal(open_store(path, verify=True).images["train"], IMAGES[:40])
    assert leftovers(path) == []


def test_a_preparation_continues_before_the_first_changed_file(path, folder):
    with pytest.raises(KeyboardInterrupt):
        make_store(path, lambda: folder_contents(folder, [], stop=30))
    (folder / "017").write_text("another")
    reads: list[int] = []
    make_store(path, lambda: folder_contents(folder, reads))
    assert sorted(reads) == list(range(16, 40))


def test_an_unreadable_file_costs_no_second_preparation(path, folder):
    reads: list[int] = []
    with pytest.raises(DataError, match=r"cannot read 013: image file is truncated; repair or delete"):
        make_store(path, lambda: folder_contents(folder, reads, fails=(13,)))
    assert sorted(reads) == list(range(40))
    make_store(path, lambda: folder_contents(folder, reads, fails=(13,)), skip_unreadable=True)
    assert len(reads) <= 44  # the last shard is not full: its images are decoded again
    store = open_store(path, verify=True)
    assert np.array_equal(store.images["train"], IMAGES[np.delete(np.arange(40), 13)])
    assert store.meta["files"]["train_images.npy"]["sha256"] == sha256(path / "train_images.npy")


def test_a_store_whose_folder_grew_decodes_new_and_changed_files_alone(path, folder):
    make_store(path, lambda: folder_contents(folder, []))
    for name in ("009a", "050", "007"):
        (folder / name).write_text("new")
    (folder / "020").unlink()
    reads: list[int] = []
    monkeyed = {"009a": 77, "050": 50, "007": 7}
    names = sorted(path.name for path in folder.iterdir())
    found = folder_contents(folder, reads)
    assert found.files is not None

    def read(number: int) -> np.ndarray:
        reads.append(number)
        return IMAGES[monkeyed[names[number]]]

    replace_store(path, found._replace(parts={"train": found.parts["train"]._replace(read=read)}))
    assert sorted(names[number] for number in reads) == ["007", "009a", "050"]
    expected = [IMAGES[monkeyed.get(name, int(name[:3]))] for name in names]
    assert np.array_equal(open_store(path, verify=True).images["train"], expected)


def test_the_bytes_are_those_of_numpy(path):
    make_store(path, contents)
    np.save(path / "other.npy", IMAGES[:100])
    assert (path / "other.npy").read_bytes() == (path / "train_images.npy").read_bytes()
