"""The forms of a convolution for a GPU, computed on the CPU: the same sums as torch's, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import nn

from alexnet_lab.models import AlexNet
from alexnet_lab.models.counts import num_macs
from alexnet_lab.models.layers import Conv2d
from alexnet_lab.models.layers.convolution import block_diagonal, folded_convolution


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def slopes(out: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(out, inputs, random(*out.shape))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("size", "kernel", "stride"),
    [(227, 11, 4), (224, 11, 4), (231, 11, 4), (30, 7, 2), (33, 5, 3), (16, 4, 4), (9, 3, 4)],
)
def test_folded_convolution_is_the_convolution(size, kernel, stride, layout):
    x = random(2, 3, size, size).contiguous(memory_format=layout).requires_grad_()
    weight, bias = random(6, 3, kernel, kernel).requires_grad_(), random(6)
    ours, true = folded_convolution(x, weight, bias, stride), F.conv2d(x, weight, bias, stride)
    assert ours.shape == true.shape
    pairs = zip((ours, *slopes(ours, x, weight)), (true, *slopes(true, x, weight)), strict=True)
    assert all(torch.allclose(one, other, rtol=0, atol=1e-10) for one, other in pairs)


@pytest.mark.parametrize("groups", [2, 3])
def test_block_diagonal_weights_are_those_of_groups(groups):
    x, weight = random(2, 12, 9, 9).requires_grad_(), random(6, 12 // groups, 3, 3).requires_grad_()
    ours = F.conv2d(x, block_diagonal(weight, groups), padding=1)
    true = F.conv2d(x, weight, padding=1, groups=groups)
    pairs = zip((ours, *slopes(ours, x, weight)), (true, *slopes(true, x, weight)), strict=True)
    assert all(torch.allclose(one, other, rtol=0, atol=1e-12) for one, other in pairs)


def test_only_first_layers_with_a_stride_and_no_padding_are_folded():
    net = AlexNet(width=0.125)
    folded = [name for name, layer in net.features.named_children() if isinstance(layer, Conv2d) and layer.is_folded()]
    assert folded == ["conv1"]
    assert not Conv2d(3, 8, 11, stride=4, padding=2).is_folded()
    assert not Conv2d(3, 8, 5).is_folded()
    assert not Conv2d(64, 8, 3, stride=2).is_folded()


def test_on_a_cpu_it_has_the_bits_of_torch_and_counts_as_a_convolution():
    ours, theirs = Conv2d(3, 8, 11, stride=4), nn.Conv2d(3, 8, 11, stride=4)
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(2, 3, 35, 35)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), theirs(x))
    assert num_macs(ours, (3, 35, 35)) == num_macs(theirs, (3, 35, 35)) == 8 * 7 * 7 * 3 * 11 * 11
