"""Dropout of N processes is that of one, whatever the layer, its layout and the sizes of the parts."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from alexnet_lab.data.order import rank_slice
from alexnet_lab.models.layers.dropout import ClassicDropout
from alexnet_lab.training.batch_norm import synchronise
from alexnet_lab.training.step_seeds import SharedDropout, StepSeeds, share_dropout

LAYERS = {
    "dropout": (nn.Dropout(0.5), (5, 33)),
    "in place": (nn.Dropout(0.2, inplace=True), (5, 33)),
    "classic": (ClassicDropout(0.5), (5, 33)),
    "maps": (nn.Dropout2d(0.5), (5, 7, 3, 3)),
    "images": (nn.Dropout(0.5), (5, 7, 3, 3)),
}


@pytest.fixture(autouse=True)
def _alone():
    yield
    SharedDropout.part = None


def seeded(rank: int, size: int, total: int) -> None:
    """What the callback does ahead of a batch."""
    device = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(current_epoch=1, global_rank=rank, world_size=size, strategy=device)
    StepSeeds(3).on_train_batch_start(trainer, None, SimpleNamespace(total=total), 2)  # pyright: ignore[reportArgumentType] - as much of them as it asks


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_parts_are_those_of_the_whole(name, channels_last):
    layer, shape = LAYERS[name]
    net = nn.Sequential(layer, nn.Identity(), layer)  # the second one continues in the same stream
    share_dropout(net)
    x = torch.rand(shape) + 1
    if channels_last and x.ndim == 4:
        x = x.to(memory_format=torch.channels_last)
    seeded(0, 1, len(x))
    whole = net(x.clone())
    assert 0.1 < (whole == 0).float().mean() < 0.9
    parts = []
    for rank in range(3):
        seeded(rank, 3, len(x))
        part = x[rank_slice(len(x), rank, 3)]
        parts.append(net(part.clone(memory_format=torch.preserve_format)))
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_shared_layer_can_be_copied_and_pickled(again):
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), ClassicDropout(0.5), nn.Dropout(0.3))
    share_dropout(net)
    synchronise(net)
    x = torch.randn(6, 3)
    net(x)
    other = again(net)
    assert [type(layer) for layer in other] == [type(layer) for layer in net]
    assert (other[2].p, other[3].p) == (0.5, 0.3)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in net.state_dict().items())
    for both in (net, other):
        both.eval()
    assert torch.equal(other(x), net(x))


def test_other_numbers_of_a_process_stay_its_own():
    net = nn.Dropout(0.5)
    share_dropout(net)
    drawn = []
    for use in (False, True):
        seeded(1, 2, 4)
        if use:
            net(torch.ones(2, 3))
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


def test_evaluation_and_other_batches_are_as_before():
    net = nn.Dropout(0.5)
    share_dropout(net)
    seeded(1, 2, 4)
    assert isinstance(net, nn.Dropout)
    assert torch.equal(net.eval()(torch.ones(2, 3)), torch.ones(2, 3))
    assert net.train()(torch.ones(3, 3)).shape == (3, 3)
