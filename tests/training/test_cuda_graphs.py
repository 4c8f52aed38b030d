"""When a network's passes are replayed, with a stand-in for torch's graphs: the same buffer for each output.

That the replayed numbers are right is shown on a GPU, in tests/gpu/test_real_gpu.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from alexnet_lab.training.cuda_graphs import Replay


class Replayed(nn.Module):
    """What torch makes of a module, without a GPU."""

    def __init__(self, layer: nn.Module, images: torch.Tensor) -> None:
        super().__init__()
        self.layer, self.times = layer, 0
        self.output = torch.zeros_like(layer(images)).detach()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.times += 1
        return self.output.copy_(self.layer(images).detach())


@pytest.fixture
def net(monkeypatch) -> nn.Sequential:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    monkeypatch.setattr("alexnet_lab.training.cuda_graphs.recorded", lambda passes, images: Replayed(net[1], images))
    return net


def replay(net: nn.Sequential) -> Replay:
    images = torch.zeros(4, 12)
    made = Replay(net, images)
    vars(net)["forward"] = made  # as the callback does
    return made


def times(made: Replay) -> int:
    return made._replayed.times  # pyright: ignore[reportFunctionMemberAccess] - of the stand-in


def test_full_batches_in_training_are_replayed(net):
    made = replay(net)
    first, second = net(torch.ones(4, 12)), net(torch.zeros(4, 12))
    assert times(made) == 2
    assert not torch.equal(first, second)  # the second replay has not overwritten the first one's output


def test_smaller_batches_evaluation_and_watched_passes_are_not(net):
    made = replay(net)
    net(torch.ones(3, 12))
    with torch.no_grad():
        net(torch.ones(4, 12))
    hook = net[1].register_forward_hook(lambda *_: None)
    net(torch.ones(4, 12))
    hook.remove()
    net.eval()
    net(torch.ones(4, 12))
    assert times(made) == 0
    net.train()
    net(torch.ones(4, 12))
    assert times(made) == 1
