"""Images that lie on a GPU, and batches that are read ahead for it: the parts that can be tried without one."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.data import DigitsDataModule, datamodule
from alexnet_lab.data.augment import AugmentParams
from alexnet_lab.data.loader import BatchLoader, RawBatch, Rows, copied, on_gpu, read_batch, resident
from alexnet_lab.data.order import BatchOrder

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
ROWS = Rows(IMAGES, np.arange(60) % 7, np.random.default_rng(1).permutation(60)[:43])
CPU = torch.device("cpu")


@pytest.mark.parametrize(("free", "fits"), [(4 * IMAGES.nbytes, True), (4 * IMAGES.nbytes - 1, False)])
def test_images_go_to_the_gpu_if_a_quarter_of_its_free_memory_holds_them(free, fits, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    copy = resident(IMAGES, CPU)
    assert (copy is not None) is fits
    if copy is not None:
        assert np.array_equal(copy.numpy(), IMAGES)


def test_images_are_copied_in_pieces(monkeypatch):
    monkeypatch.setattr("alexnet_lab.data.loader.CHUNK_BYTES", 100)  # 6 images
    assert np.array_equal(copied(IMAGES, CPU).numpy(), IMAGES)


def test_batches_are_the_same_wherever_the_images_lie():
    positions = np.array([5, 0, 42])
    there = read_batch(ROWS._replace(images=copied(IMAGES, CPU)), positions)
    assert all(torch.equal(a, b) for a, b in zip(there, read_batch(ROWS, positions), strict=True))


@pytest.mark.parametrize("wanted", ["auto", "cpu"])
def test_data_device_decides_where_the_images_of_a_gpu_run_lie(wanted, digits_dir, monkeypatch):
    data = DigitsDataModule(dir=str(digits_dir), device=wanted)
    data.prepare_data()
    data.setup()
    monkeypatch.setattr(data, "_gpu", lambda: CPU)
    asked = []
    monkeypatch.setattr(datamodule, "resident", lambda images, gpu: asked.append(len(images)) or copied(images, gpu))
    loaders = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    assert asked == ([data.store.meta and len(data.store.images["train"])] if wanted == "auto" else [])  # copied once
    assert all(isinstance(loader.rows.images, torch.Tensor) is (wanted == "auto") for loader in loaders)
    positions = np.arange(len(loaders[1].rows.indices))
    assert torch.equal(read_batch(loaders[1].rows, positions)[0], read_batch(data.rows("val"), positions)[0])


@pytest.mark.parametrize(("kind", "found"), [("cpu", False), ("cuda", True), ("mps", False)])
def test_a_gpu_is_one_that_the_trainer_trains_on(kind, found, tmp_path):
    data = DigitsDataModule(dir=str(tmp_path))
    assert data._gpu() is None
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(kind)))  # pyright: ignore[reportAttributeAccessIssue] - as much of it as is asked for
    assert (data._gpu() is not None) is found


def test_an_unknown_place_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"`data\.device` is 'gpu' \(str\); allowed: 'auto' or 'cpu'"):
        DigitsDataModule(dir=str(tmp_path), device="gpu")  # pyright: ignore[reportArgumentType] - that is the point


def loader(ahead: int) -> BatchLoader:
    return BatchLoader(ROWS, BatchOrder(43, 10, 3), ahead=ahead)


@pytest.mark.parametrize("ahead", [1, 2, 7])
def test_batches_read_ahead_are_the_same(ahead):
    ours = loader(ahead)
    for one, other in zip(ours, loader(0), strict=True):
        assert torch.equal(one.images, other.images)
        assert one.indices.tolist() == other.indices.tolist()
    assert ours.state_dict() == {"epoch": 0, "batch": 5}


def test_what_is_read_ahead_does_not_count_as_delivered():
    ours = loader(2)
    iterator = iter(ours)
    next(iterator)
    assert ours.state_dict() == {"epoch": 0, "batch": 1}
    iterator.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_a_thread_reads_while_the_loop_is_busy(monkeypatch):
    ours, read = loader(2), []
    plain = BatchLoader.batch
    monkeypatch.setattr(BatchLoader, "batch", lambda *place: read.append(place[2]) or plain(*place))
    iterator = iter(ours)
    next(iterator)
    deadline = time.monotonic() + 120
    while len(read) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(read) == [0, 1, 2]
    iterator.close()


def test_an_error_of_the_thread_comes_with_its_batch(monkeypatch):
    plain = BatchLoader.batch

    def batch(self: BatchLoader, epoch: int, number: int, positions: np.ndarray) -> RawBatch:
        if number == 2:
            raise OSError("the disk is gone")
        return plain(self, epoch, number, positions)

    monkeypatch.setattr(BatchLoader, "batch", batch)
    iterator = iter(loader(2))
    assert [len(next(iterator).labels) for _ in range(2)] == [10, 10]
    with pytest.raises(OSError, match="the disk is gone"):
        next(iterator)


def test_batch_that_is_there_is_not_copied():
    raw = next(iter(loader(0)))
    assert raw.to(CPU) is raw


def drawn(shift: torch.Tensor | None) -> AugmentParams:
    return AugmentParams(torch.tensor([3, 0]), torch.tensor([1, 32]), torch.tensor([True, False]), shift, 1 / 1.1)


@pytest.mark.parametrize("draws", [None, drawn(None), drawn(torch.tensor([[0.1, -1e-30, 255.0], [3e38, 0.0, -0.0]]))])
def test_numbers_travel_in_one_tensor_and_arrive_as_they_were(draws):
    raw = RawBatch(torch.from_numpy(IMAGES[:2]), torch.tensor([1, 6]), torch.tensor([2**40, -1]), 5, draws)
    there = on_gpu(raw, CPU)
    assert [*map(str, there[1:4])] == [*map(str, raw[1:4])]
    assert (there.draws is None) is (draws is None)
    if draws is not None and there.draws is not None:
        for ours, theirs in zip(there.draws[:3], draws[:3], strict=True):
            assert torch.equal(ours, theirs)
            assert ours.dtype == theirs.dtype
        assert there.draws.gain == draws.gain
        shift = there.draws.shift
        assert (shift is None) is (draws.shift is None)
        assert shift is None or bits(shift) == bits(draws.shift)


class NoDoubles(TorchDispatchMode):
    """Refuses numbers of double precision, which Apple's GPUs lack."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        assert getattr(found, "dtype", None) != torch.float64
        return found


def test_numbers_travel_without_double_precision():
    raw = RawBatch(torch.from_numpy(IMAGES[:2]), torch.tensor([1, 6]), torch.tensor([0, 1]), 2, drawn(torch.ones(2, 3)))
    with NoDoubles():
        assert on_gpu(raw, CPU).draws is not None


def bits(numbers: torch.Tensor | None) -> list[list[int]]:
    assert numbers is not None
    return numbers.contiguous().view(torch.int32).tolist()
