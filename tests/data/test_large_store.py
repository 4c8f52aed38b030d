"""A store of ImageNet's size: 262 GB, sparse, so that it takes no room on the disk."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from alexnet_lab.base.files import sealed, write_json
from alexnet_lab.data import ImageNetDataModule, split, verification
from alexnet_lab.data.array_writer import npy_header
from alexnet_lab.data.channel_statistics import Statistics
from alexnet_lab.data.store import FORMAT

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (3, 256, 256)
COUNTS = {"train": 1_281_167, "test": 50_000}


def sparse_store(path: Path) -> None:
    """A store whose images are all black, and whose verification is on record."""
    path.mkdir(parents=True)
    files = {}
    for part, count in COUNTS.items():
        header = npy_header(count, SHAPE)
        with (path / f"{part}_images.npy").open("wb") as file:
            file.write(header)
            file.truncate(len(header) + count * int(np.prod(SHAPE)))
        np.save(path / f"{part}_labels.npy", np.arange(count) % 1000)
        for name in (f"{part}_images.npy", f"{part}_labels.npy"):
            digest = hashlib.sha256(name.encode()).hexdigest()
            files[name] = {"bytes": (path / name).stat().st_size, "sha256": digest}
    meta = {"format": FORMAT, "source": "sparse", "sources": {}, "class_names": [f"n{n:08d}" for n in range(1000)],
            "shape": list(SHAPE), "files": files, "skipped": []}  # fmt: skip
    write_json(path / "meta.json", sealed(meta))
    stamps = verification._stamps([path / "meta.json", *(path / name for name in files)])
    write_json(path / verification.NAME, stamps)


def black(images: np.ndarray, indices: np.ndarray) -> Statistics:
    return Statistics(np.zeros(SHAPE, np.float32), np.zeros(3), np.ones(3), np.ones(3), np.eye(3))


def test_start_on_a_store_of_262_gb_takes_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(split, "image_statistics", black)
    data = ImageNetDataModule(dir=str(tmp_path))
    try:
        sparse_store(data.store_path)
    except OSError as error:
        pytest.skip(f"the file system has no sparse files of this size: {error}")
    data.prepare_data()  # splits
    started = time.process_time()
    data = ImageNetDataModule(dir=str(tmp_path), batch_size=256)
    data.prepare_data()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert data.identity["num_train"] == 1_268_355
    assert batch.images.shape == (256, *SHAPE)
    assert time.process_time() - started < 5
