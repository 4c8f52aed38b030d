"""Each file that is read is cut, flipped, emptied, swapped and removed: reported in one line, or without effect."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from faults import FLIPS, faults, survey
from PIL import Image

from alexnet_lab.base.errors import DataError, RunError
from alexnet_lab.data.images import read_image, strict_decoding
from alexnet_lab.data.sources import cifar10, mnist
from alexnet_lab.data.split import Shares, stored_split
from alexnet_lab.data.store import Contents, Part, Store, open_store
from alexnet_lab.data.store_writing import make_store
from alexnet_lab.training.checkpoint_io import SafeCheckpointIO, load_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(11)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def equal(one: Any, other: Any) -> bool:
    """Nested containers of arrays, tensors and plain values, bit for bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


# The store


def contents() -> Contents:
    images = RNG.integers(0, 256, (60, 3, 4, 4), dtype=np.uint8)
    labels = np.arange(60) % 3
    parts = {"train": Part(labels, images.__getitem__), "test": Part(labels[:9], images.__getitem__)}
    return Contents("made up", ["ape", "bee", "cow"], (3, 4, 4), parts)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    make_store(tmp_path / "store" / "toy-4", contents)
    return tmp_path / "store" / "toy-4"


def whole(store: Store) -> list[Any]:
    arrays = [{name: np.array(array) for name, array in part.items()} for part in (store.images, store.labels)]
    return [*arrays, store.class_names, store.hash, store.meta["shape"], store.meta["skipped"], store.meta["source"]]


@pytest.mark.parametrize("name", ["train_images.npy", "train_labels.npy", "test_images.npy"])
def test_arrays_of_the_store(store, name):
    other = (store / "test_labels.npy").read_bytes()
    tally = survey(store / name, lambda: whole(open_store(store, verify=True)), other=other, same=equal, naming="toy-4")
    assert tally.harmless == 0


@pytest.mark.parametrize("other", [b'{"format": 1}', b'{"seed": 0}', b"[]", b'{"format": 1, "files": 3}'])
def test_description_of_the_store(store, other):
    survey(store / "meta.json", lambda: whole(open_store(store, verify=True)), other=other, same=equal, naming="toy-4")


@pytest.mark.parametrize("name", ["train_images.npy", "train_labels.npy", "meta.json"])
def test_file_of_the_store_without_permission_is_reported(store, name, monkeypatch):
    """Played, since the superuser may read anything."""
    true_open = io.open

    def refuse(file: Any, *args: Any, **kwargs: Any) -> Any:
        if str(file).endswith(name):
            raise PermissionError(13, "Permission denied", str(file))
        return true_open(file, *args, **kwargs)

    monkeypatch.setattr("io.open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match=r"the store .*toy-4 is damaged: .*cannot be read .*Permission denied"):
        open_store(store, verify=True)


def test_split(store):
    opened, shares = open_store(store, verify=True), Shares(0.2, 5)
    stored_split(opened, shares)
    stored_split(opened, Shares(0.2, 6))

    def read() -> Any:
        split = stored_split(opened, shares)
        return (*split[:3], *split.statistics)

    another = (store / Shares(0.2, 6).file_name).read_bytes()
    survey(store / shares.file_name, read, other=another, same=equal)


# MNIST's and CIFAR-10's own files


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(params=["plain", "packed"])
def raw(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small MNIST whose checksums count as the published ones."""
    published = {}
    for prefix, count in (("train", 20), ("t10k", 10)):
        images = idx(RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        labels = idx(np.arange(count, dtype=np.uint8) % 10)
        for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{prefix}-{kind}-ubyte"
            published[name] = (len(content), md5(content))
            packed = request.param == "packed"
            (tmp_path / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    monkeypatch.setattr(mnist, "UNPACKED", published)
    monkeypatch.setattr(mnist, "MIRRORS", [])
    return tmp_path


def read_mnist(raw: Path) -> list[np.ndarray]:
    parts = mnist.load_mnist(raw).parts.values()
    return [array for part in parts for array in (part.labels, part.read(slice(None)))]  # pyright: ignore[reportArgumentType] - of an array


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_idx_files(raw, name):
    path = next(raw.glob(f"{name}*"))
    other = next(raw.glob("t10k-images*")).read_bytes()

    def read() -> list[np.ndarray]:
        try:
            return read_mnist(raw)
        except OSError as error:  # make_store reports these, see test_a_source_that_cannot_be_read_is_reported
            raise DataError(str(error)) from error

    tally = survey(path, read, other=other, same=equal, naming=name.partition("-")[0])
    assert tally.harmless == 0 or path.suffix == ".gz"  # the head of a gzip file holds a date and a name


def test_mnists_files_swapped_for_one_another(raw):
    images, labels = (next(raw.glob(f"t10k-{what}*")) for what in ("images", "labels"))
    first, second = images.read_bytes(), labels.read_bytes()
    images.write_bytes(second)
    labels.write_bytes(first)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\S* is a damaged IDX file"):
        read_mnist(raw)


def test_file_of_another_size_is_used_with_a_warning(raw, caplog):
    path = next(raw.glob("t10k-labels*"))
    fewer = idx(np.arange(7, dtype=np.uint8))
    images = next(raw.glob("t10k-images*"))
    for file, content in ((path, fewer), (images, idx(np.zeros((7, 28, 28), np.uint8)))):
        file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    with caplog.at_level("WARNING", "alexnet_lab"):
        assert len(read_mnist(raw)[2]) == 7
    assert "is not MNIST's published file; errors refer to its content" in caplog.text


def test_gzip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "LARGEST", 100_000)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(DataError, match=r"is a damaged IDX file: it has more than 100,000 bytes"):
        mnist.read_idx(path, 3)


@pytest.mark.real_data
def test_published_checksums_are_those_of_the_real_files(real_data, caplog):
    folder = real_data / "MNIST" / "raw"
    for name in mnist.UNPACKED:
        path = mnist.find_or_fetch(folder, name)
        mnist.check_published(path, mnist.read_idx(path, 3 if "images" in name else 1))
    assert not caplog.records


def test_batches_of_cifar10(tmp_path, monkeypatch):
    path = tmp_path / "test_batch"
    batch = {b"data": RNG.integers(0, 256, (5, 3072), dtype=np.uint8), b"labels": [1, 2, 3, 4, 5]}
    path.write_bytes(pickle.dumps(batch, protocol=4))
    checksum = md5(path.read_bytes())
    tally = survey(path, lambda: cifar10.read_batch_file(path, checksum), same=equal)
    assert tally.harmless == 0


# Pictures


def picture(path: Path) -> Path:
    rng = np.random.default_rng(4)
    smooth = np.kron(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    Image.fromarray(smooth).save(path)
    return path


def test_png_files(tmp_path):
    """PNG has a checksum for each chunk, so each fault is reported or without effect."""
    path = picture(tmp_path / "a.png")
    tally = survey(path, lambda: decode(path), same=equal)
    assert tally.reported > tally.harmless


def decode(path: Path) -> np.ndarray:
    try:
        with strict_decoding():
            return read_image(path, 32, 3)
    except Exception as error:  # Pillow's; the store names the file, see test_data_store
        raise DataError(f"{path.name}: {error}") from error


def test_jpeg_files(tmp_path):
    """JPEG has no checksum: a flipped bit may give another picture. The hash of the store differs then."""
    path = picture(tmp_path / "a.jpg")
    content, right = path.read_bytes(), decode(path)
    outcomes = {"reported": 0, "same": 0, "other": 0}
    for name, bad in faults(content, b"no picture"):
        path.write_bytes(bad)
        try:
            found = decode(path)
        except DataError:
            outcomes["reported"] += 1
            continue
        assert "cut" not in name, name  # a half picture is never taken for a whole one
        assert found.shape == right.shape
        outcomes["same" if np.array_equal(found, right) else "other"] += 1
    print(f"{path.name}: {outcomes}")
    assert outcomes["reported"] > 10
    path.write_bytes(content)
    assert np.array_equal(decode(path), right)


def test_store_of_a_changed_picture_has_another_hash(tmp_path):
    def stored(name: str, image: np.ndarray) -> str:
        part = Part(np.array([0, 1]), lambda number: image)
        path = tmp_path / name
        make_store(path, lambda: Contents("made up", ["a", "b"], (3, 8, 8), {"train": part}))
        return open_store(path, verify=True).hash

    image = RNG.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    changed = image.copy()
    changed[0, 0, 0] ^= 1
    assert stored("one", image) == stored("two", image) != stored("three", changed)


def test_things_that_are_no_pictures(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("folder.jpg", "nowhere.jpg", "pipe.jpg"):
        with pytest.raises(ValueError, match="not a file"):
            read_image(tmp_path / name, 8, 3)


# Checkpoints


def checkpoint(path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    tensors = {f"net.layer{i}.weight": torch.randn(20, 10, generator=generator) for i in range(4)}
    SafeCheckpointIO().save_checkpoint(
        {"state_dict": tensors, "epoch": 3, "hyper_parameters": {"model": {"norm": "lrn"}}, "rates": [0.1, 0.2]}, path
    )
    return path


def test_checkpoints(tmp_path):
    path = checkpoint(tmp_path / "last.ckpt")
    tally = survey(path, lambda: load_checkpoint(path), same=equal, flips=4 * FLIPS)
    assert tally.reported > tally.harmless  # torch fills up to multiples of 64 bytes with nothing


def test_torch_alone_would_take_a_flipped_weight(tmp_path):
    """So that the test above proves something."""
    path = checkpoint(tmp_path / "last.ckpt")
    content, right = path.read_bytes(), torch.load(path, weights_only=True)
    weights = right["state_dict"]["net.layer2.weight"].numpy().tobytes()
    place = content.index(weights) + 10
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert not equal(torch.load(path, weights_only=True), right)
    with pytest.raises(RunError, match=r"last\.ckpt is damaged: .*data/\d+ does not match its checksum"):
        load_checkpoint(path)
