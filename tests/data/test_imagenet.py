"""ImageNet from archives that are made here as image-net.org makes them: a tar of tars, a tar, and the devkit."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from alexnet_lab.base.errors import DataError
from alexnet_lab.data import ImageFolderDataModule, ImageNetDataModule
from alexnet_lab.data.sources import imagenet
from alexnet_lab.data.sources.imagenet import DEVKIT, TRAIN, VAL, ArchivedFiles

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = {  # by WordNet id, in the devkit's order, which is not that of the ids
    "n02012849": "crane",
    "n01440764": "tench, Tinca tinca",
    "n03126707": "crane",
}
IMAGES = 6  # of each class
VAL_WNIDS = ["n03126707", "n01440764", "n01440764", "n02012849", "n03126707"]
FIELDS = {"num_classes": 3, "stored_size": 24, "image_size": 16, "batch_size": 4, "val_fraction": 0.2}


def picture(number: int, form: str = "JPEG") -> bytes:
    """An image whose grey level grows with its number."""
    pixels = np.full((30 + number, 40, 3), 10 * number, np.uint8)
    pixels[:, :20] += 30
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def pictures() -> dict[str, dict[str, bytes]]:
    """The training images by class; one is a PNG named JPEG, as in the official archive."""
    return {
        wnid: {
            f"{wnid}_{n}.JPEG": picture(6 * place + n, "PNG" if (place, n) == (1, 2) else "JPEG") for n in range(IMAGES)
        }
        for place, wnid in enumerate(CLASSES)
    }


def val_pictures() -> dict[str, bytes]:
    return {f"ILSVRC2012_val_{n + 1:08d}.JPEG": picture(20 + n) for n in range(len(VAL_WNIDS))}


def devkit() -> bytes:
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    synsets = np.array([(n + 1, wnid, words, 0) for n, (wnid, words) in enumerate(CLASSES.items())]
                       + [(4, "n00001740", "entity", 3)], dtype=kinds)  # fmt: skip
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    numbers = "".join(f"{[*CLASSES].index(wnid) + 1}\n" for wnid in VAL_WNIDS).encode()
    start = "ILSVRC2012_devkit_t12"
    return tar({f"{start}/{imagenet.META}": meta.getvalue(), f"{start}/{imagenet.LABELS}": numbers}, "w:gz")


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    root = tmp_path / "archives"
    root.mkdir()
    inner = {f"{wnid}.tar": tar(files) for wnid, files in pictures().items()}
    (root / TRAIN).write_bytes(tar(inner))
    (root / VAL).write_bytes(tar(dict(reversed(val_pictures().items()))))  # its order does not matter
    (root / DEVKIT).write_bytes(devkit())
    return root


def data_of(root: Path, **fields: object) -> ImageNetDataModule:
    return ImageNetDataModule(**{"dir": str(root.parent), "root": str(root), **FIELDS, **fields})  # pyright: ignore[reportArgumentType]


def test_archives_give_the_images_of_unpacked_folders(root, tmp_path):
    data = data_of(root)
    data.prepare_data()
    data.setup()
    folder = tmp_path / "folder"
    for wnid, files in pictures().items():
        (folder / "train" / wnid).mkdir(parents=True)
        for name, content in files.items():
            (folder / "train" / wnid / name).write_bytes(content)
    for wnid, (name, content) in zip(VAL_WNIDS, val_pictures().items(), strict=True):
        (folder / "val" / wnid).mkdir(parents=True, exist_ok=True)
        (folder / "val" / wnid / name).write_bytes(content)
    unpacked = ImageFolderDataModule(dir=str(tmp_path), root=str(folder), **FIELDS)  # pyright: ignore[reportArgumentType]
    unpacked.prepare_data()
    unpacked.setup()
    assert data.class_names == ["tench", "crane (n02012849)", "crane (n03126707)"]
    assert np.array_equal(data.store.images["train"], unpacked.store.images["train"])
    assert data.store.labels["train"].tolist() == unpacked.store.labels["train"].tolist() == [0] * 6 + [1] * 6 + [2] * 6
    ours, theirs = data.store, unpacked.store  # the latter has the test images class after class
    order = np.argsort(ours.labels["test"], kind="stable")
    assert np.array_equal(ours.images["test"][order], theirs.images["test"])
    assert ours.labels["test"].tolist() == [2, 0, 0, 1, 2]
    assert (data.num_train + data.num_val, data.num_test) == (18, 5)


def test_finished_store_needs_no_archives(root):
    data_of(root).prepare_data()
    for name in (TRAIN, VAL, DEVKIT):
        (root / name).unlink()
    data = data_of(root)
    data.prepare_data()
    data.setup()
    assert data.num_test == 5


def test_interrupted_preparation_continues(root, monkeypatch):
    data_of(root).prepare_data()
    (whole,) = root.parent.glob("store/imagenet-*")
    expected = {path.name: path.read_bytes() for path in whole.glob("*.npy")}
    read: list[int] = []
    original = ArchivedFiles.image

    def interrupted(files: ArchivedFiles, row: int, size: int, channels: int) -> object:
        if row == 17 and 17 not in read:
            read.append(17)
            raise KeyboardInterrupt
        read.append(row)
        return original(files, row, size, channels)

    monkeypatch.setattr(ArchivedFiles, "image", interrupted)
    monkeypatch.setattr("alexnet_lab.data.array_writer.SHARD_BYTES", 4 * 3 * 24 * 24)
    monkeypatch.setattr("alexnet_lab.data.source_files.TICK_NS", 0)
    other = data_of(root, dir=str(root.parent / "other"))
    with pytest.raises(KeyboardInterrupt):
        other.prepare_data()
    before = len(read)
    other.prepare_data()
    assert len(read) - before < 18 + 5  # of 18 training and 5 test images
    (store,) = (root.parent / "other").glob("store/imagenet-*")
    assert {path.name: path.read_bytes() for path in store.glob("*.npy")} == expected


@pytest.mark.parametrize("name", [TRAIN, VAL, DEVKIT])
def test_missing_archive_is_named_with_the_others(name, root):
    (root / name).unlink()
    with pytest.raises(DataError, match=rf"there is no .*{name}; put {TRAIN}, {VAL} and {DEVKIT} of image-net\.org"):
        data_of(root).prepare_data()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", [TRAIN, VAL, DEVKIT])
def test_archive_that_is_cut_short_is_refused(name, share, root):
    content = (root / name).read_bytes().rstrip(b"\0")
    (root / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=name):
        data_of(root).prepare_data()
    assert not [*root.parent.glob("store/imagenet-*")]


def test_other_images_than_those_of_the_devkit_are_refused(root):
    (root / VAL).write_bytes(tar({"ILSVRC2012_val_00000001.JPEG": picture(1)}))
    with pytest.raises(DataError, match=r"has 1 images, and .* labels of 5"):
        data_of(root).prepare_data()
    (root / TRAIN).write_bytes(tar({"n01440764.tar": tar({"a.JPEG": picture(1)})}))
    with pytest.raises(DataError, match="differ in 2 classes, for example n02012849"):
        data_of(root).prepare_data()


def test_file_that_is_no_image_is_named(root):
    files = pictures()
    files["n01440764"]["n01440764_3.JPEG"] = b"no image"
    (root / TRAIN).write_bytes(tar({f"{wnid}.tar": tar(content) for wnid, content in files.items()}))
    with pytest.raises(DataError, match=rf"cannot read {TRAIN}/n01440764_3\.JPEG"):
        data_of(root).prepare_data()
    data = data_of(root, skip_unreadable=True)
    data.prepare_data()
    data.setup()
    assert data.num_train + data.num_val == 17
