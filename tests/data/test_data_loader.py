"""Order and loader: which images come when, in one process and in many, after an interruption too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alexnet_lab.data.augment import AugmentParams
from alexnet_lab.data.loader import BatchLoader, Rows, read_batch
from alexnet_lab.data.order import BatchOrder, epoch_order, rank_slice

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
LABELS = np.arange(60) % 7
INDICES = np.random.default_rng(1).permutation(60)[:43]
ROWS = Rows(IMAGES, LABELS, INDICES)


def make_loader(seed: int | None = 3, batch_size: int = 10, rank: int = 0, world_size: int = 1) -> BatchLoader:
    return BatchLoader(ROWS, BatchOrder(43, batch_size, seed), rank=rank, world_size=world_size)


def test_an_epochs_order_is_a_permutation_and_a_function_of_seed_and_epoch():
    orders = {(seed, epoch): epoch_order(seed, epoch, 1000) for seed in (0, 1) for epoch in (0, 1)}
    for order in orders.values():
        assert np.array_equal(np.sort(order), np.arange(1000))
    assert len({order.tobytes() for order in orders.values()}) == 4
    assert np.array_equal(orders[0, 1], epoch_order(0, 1, 1000))


def test_the_order_stays_what_it_was():
    """A change of it would change every published run: so its first places are written down."""
    assert epoch_order(0, 0, 10).tolist() == [1, 9, 6, 0, 3, 2, 8, 5, 7, 4]


def test_a_constant_order_is_the_first_epochs_in_every_epoch():
    order = BatchOrder(1000, 10, 3, constant=True)
    for epoch in (0, 1, 19):
        order.set_epoch(epoch)
        assert np.array_equal(order.positions(), epoch_order(3, 0, 1000))


@given(st.integers(0, 300), st.integers(1, 17))
def test_the_parts_of_the_ranks_hold_each_position_once(n, world_size):
    parts = [range(n)[rank_slice(n, rank, world_size)] for rank in range(world_size)]
    assert [position for part in parts for position in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_holds_the_images_labels_and_rows_that_its_positions_name():
    images, labels, indices = read_batch(ROWS, np.array([5, 0, 42]))
    rows = INDICES[[5, 0, 42]]
    assert indices.tolist() == rows.tolist()
    assert np.array_equal(images.numpy(), IMAGES[rows])
    assert labels.tolist() == LABELS[rows].tolist()
    assert (images.dtype, labels.dtype, indices.dtype) == (torch.uint8, torch.int64, torch.int64)


def test_reading_an_empty_batch():
    images, labels, _ = read_batch(ROWS, np.array([], dtype=np.int64))
    assert images.shape == (0, 1, 4, 4)
    assert labels.shape == (0,)


def test_an_epoch_holds_each_image_once_and_keeps_the_last_smaller_batch():
    loader = make_loader()
    batches = list(loader)
    assert [len(batch.labels) for batch in batches] == [10, 10, 10, 10, 3]
    assert [batch.total for batch in batches] == [10, 10, 10, 10, 3]
    assert len(loader) == 5
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == sorted(INDICES.tolist())


def test_epochs_differ_and_repeat():
    loader = make_loader()
    first = [batch.indices.tolist() for batch in loader]
    loader.batch_sampler.sampler.set_epoch(1)
    second = [batch.indices.tolist() for batch in loader]
    loader.batch_sampler.sampler.set_epoch(0)
    assert [batch.indices.tolist() for batch in loader] == first != second


def test_without_seed_the_images_come_as_they_lie():
    loader = make_loader(seed=None)
    loader.batch_sampler.set_epoch(4)
    assert torch.cat([batch.indices for batch in loader]).tolist() == INDICES.tolist()


@pytest.mark.parametrize("world_size", [2, 3, 4, 13])
@pytest.mark.parametrize("seed", [3, None])
def test_processes_share_each_global_batch(world_size, seed):
    whole = list(make_loader(seed))
    parts = [list(make_loader(seed, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert {len(batches) for batches in parts} == {5}
    for number, batch in enumerate(whole):
        assert torch.equal(torch.cat([batches[number].indices for batches in parts]), batch.indices)
        assert torch.equal(torch.cat([batches[number].images for batches in parts]), batch.images)
        assert {batches[number].total for batches in parts} == {batch.total}


def test_an_empty_part_of_a_batch_has_empty_tensors():
    last = list(make_loader(rank=0, world_size=13))[-1]
    assert last.images.shape == (0, 1, 4, 4)
    assert last.total == 3


def test_draws_are_made_for_the_global_batch_and_sliced():
    asked = []

    def draw(epoch: int, batch: int, n: int) -> AugmentParams:
        asked.append((epoch, batch, n))
        numbers = torch.arange(n)
        return AugmentParams(numbers, numbers + 100, numbers % 2 == 0, numbers[:, None].float())

    loader = BatchLoader(ROWS, BatchOrder(43, 20, 0), rank=1, world_size=2, draw=draw)
    loader.batch_sampler.set_epoch(2)
    draws = [batch.draws for batch in loader]
    assert asked == [(2, 0, 20), (2, 1, 20), (2, 2, 3)]
    assert draws[0] is not None
    assert draws[0].top.tolist() == list(range(10, 20))
    assert draws[0].left.tolist() == list(range(110, 120))
    assert draws[2] is not None
    assert draws[2].shift is not None
    assert draws[2].shift.tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_a_resumed_loader_continues_at_the_same_place(stop):
    whole = make_loader()
    whole.batch_sampler.set_epoch(2)
    expected = [batch.indices.tolist() for batch in whole]
    interrupted = make_loader()
    interrupted.batch_sampler.set_epoch(2)
    iterator = iter(interrupted)
    seen = [next(iterator).indices.tolist() for _ in range(stop)]
    resumed = make_loader()
    resumed.load_state_dict(interrupted.state_dict())
    seen += [batch.indices.tolist() for batch in resumed]
    assert seen == expected


def test_a_resumed_loader_gives_the_next_epoch_whole():
    loader = make_loader()
    loader.load_state_dict({"epoch": 2, "batch": 3})
    assert len(list(loader)) == 2
    loader.batch_sampler.set_epoch(3)
    assert len(list(loader)) == 5
    loader.batch_sampler.set_epoch(2)
    assert len(list(loader)) == 5


def test_a_loader_resumed_at_the_end_of_an_epoch_gives_the_next_one_whole():
    loader = make_loader()
    loader.load_state_dict({"epoch": 2, "batch": 5})
    loader.batch_sampler.set_epoch(3)
    assert len(list(loader)) == 5


def test_state_between_two_epochs_is_the_start_of_the_next():
    loader = make_loader()
    assert len(list(loader)) == 5
    loader.batch_sampler.set_epoch(1)
    assert loader.state_dict() == {"epoch": 1, "batch": 0}


def test_state_after_a_resume_is_the_resumed_one():
    loader, state = make_loader(), {"epoch": 2, "batch": 3}
    loader.load_state_dict(state)
    assert loader.state_dict() == state


def test_the_count_of_the_trainer_wins():
    loader = BatchLoader(ROWS, BatchOrder(43, 10, 3), batches_done=lambda: 4)
    loader.load_state_dict({"epoch": 0, "batch": 1})
    assert [len(batch.labels) for batch in loader] == [3]


def test_the_epoch_counts_that_is_set_when_the_first_batch_is_taken():
    """Lightning makes the iterator first and sets the epoch afterwards."""
    late, reference = make_loader(), make_loader()
    iterator = iter(late)
    late.batch_sampler.set_epoch(6)
    reference.batch_sampler.set_epoch(6)
    assert next(iterator).indices.tolist() == next(iter(reference)).indices.tolist()
