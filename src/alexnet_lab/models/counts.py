"""Parameters, multiply-adds and neurons of any network, counted from its layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from alexnet_lab.models.hooks import evaluating, watched
from alexnet_lab.models.layers import EuclideanRBF, LocallyConnected2d, PartialConv2d, Subsampling

__all__ = ["num_macs", "num_neurons", "num_parameters"]


def num_parameters(net: nn.Module, *, statistics: bool = False) -> int:
    """Trainable numbers of a network.

    Args:
        net: Any network.
        statistics: Count batch normalisation's running means and variances too, as Keras' totals do.

    Example:
        >>> num_parameters(torch.nn.Linear(84, 10))
        850
    """
    total = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    if statistics:
        total += sum(buffer.numel() for name, buffer in net.named_buffers() if ".running_" in f".{name}")
    return total


MACS: dict[type[nn.Module], Callable[[Any, torch.Tensor], int]] = {
    nn.Conv2d: lambda layer, output: output[0, 0].numel() * layer.weight.numel(),
    nn.Linear: lambda layer, output: output[0].numel() * layer.in_features,
    PartialConv2d: lambda layer, output: output[0, 0].numel() * layer.weight.numel(),
    LocallyConnected2d: lambda layer, _: layer.weight.numel(),
    Subsampling: lambda _, output: output[0].numel(),
    EuclideanRBF: lambda layer, _: layer.prototypes.numel(),
}
"""Multiply-adds of one image, from a layer and its output. Other layers count as none, as the literature has it."""


class Call(NamedTuple):
    """One call of one layer: its name in the network, and its sizes for one image."""

    name: str
    layer: nn.Module
    input: tuple[int, ...]
    output: tuple[int, ...]
    macs: int


def trace(net: nn.Module, input_shape: tuple[int, ...]) -> list[Call]:
    """The calls of all layers without parts, in their order, for one image.

    Nothing is computed: weights and image are stand-ins without numbers (torch's meta device).

    Args:
        net: Any network.
        input_shape: Of one image, (C, H, W).
    """
    calls: list[Call] = []

    def record(name: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not inputs or not isinstance(output, torch.Tensor):  # of a recurrent layer, say
            return
        kind = next((kind for kind in type(layer).__mro__ if kind in MACS), None)
        macs = MACS[kind](layer, output) if kind else 0
        calls.append(Call(name, layer, tuple(inputs[0].shape[1:]), tuple(output.shape[1:]), macs))

    with watched(net, record):
        _run_on_meta(net, input_shape)
    return calls


def _run_on_meta(net: nn.Module, input_shape: tuple[int, ...]) -> None:
    """One image through `net` in evaluation mode, without numbers."""
    state = {name: value.to("meta") for name, value in (*net.named_parameters(), *net.named_buffers())}
    with evaluating(net), torch.no_grad():
        functional_call(net, state, (torch.empty(1, *input_shape, device="meta"),))


def num_macs(net: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-adds for one image, of convolutions, locally connected and dense layers; FLOPs are twice that.

    For networks of other packages torch counts: they may multiply matrices outside their layers, as attention does.

    Args:
        net: Any network.
        input_shape: Of one image, (C, H, W).

    Example:
        >>> from alexnet_lab.models import LeNet5
        >>> num_macs(LeNet5(), (1, 28, 28))
        416520
    """
    if type(net).__module__.startswith("alexnet_lab."):
        return sum(call.macs for call in trace(net, input_shape))
    with FlopCounterMode(display=False) as counter:
        _run_on_meta(net, input_shape)
    return counter.get_total_flops() // 2


def num_neurons(net: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Outputs of all layers that have weights, for one image: 659,272 in AlexNet (the paper: 650,000).

    Example:
        >>> from alexnet_lab.models import LeNet5
        >>> num_neurons(LeNet5(), (1, 28, 28))
        6518
    """
    return sum(torch.Size(call.output).numel() for call in trace(net, input_shape) if call.macs)
