"""Layers of ours as layers that every format has: the same function, in operators of torch and ONNX."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional

from alexnet_lab.models.layers import PartialConv2d, SpatialResponseNorm, Subsampling
from alexnet_lab.models.layers.response_norm import power


class SpatialNorm(nn.Module):
    """`SpatialResponseNorm` by a mean over the window, since exporters ignore the divisor of a sum."""

    def __init__(self, norm: SpatialResponseNorm) -> None:
        super().__init__()
        self.size, self.beta, self.k = norm.size, norm.beta, norm.k
        self.alpha = norm.alpha * norm.size**2  # of the mean

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) in and out."""
        means = functional.avg_pool2d(x.square(), self.size, 1, self.size // 2)  # the border's zeros count
        return x * power(means * self.alpha + self.k, self.beta)


def subsampling(layer: Subsampling) -> nn.Conv2d:
    """The sum of 2x2 pixels times a coefficient per map, as a convolution of each map alone."""
    maps = len(layer.weight)
    conv = nn.Conv2d(maps, maps, 2, stride=2, groups=maps)
    conv.weight.data = layer.weight.detach()[:, None, None, None].expand(-1, 1, 2, 2).clone()
    conv.bias = layer.bias
    return conv


def partial_convolution(layer: PartialConv2d) -> nn.Conv2d:
    """A convolution of all maps whose missing kernels are zero."""
    conv = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel)
    conv.weight.data = torch.zeros_like(conv.weight).index_put((layer.rows, layer.columns), layer.weight.detach())
    conv.bias = layer.bias
    return conv


PLAIN: dict[type[nn.Module], Callable[..., nn.Module]] = {
    SpatialResponseNorm: SpatialNorm,
    Subsampling: subsampling,
    PartialConv2d: partial_convolution,
}


def with_plain_layers(net: nn.Module, table: Mapping[type[nn.Module], Callable[..., nn.Module]] = PLAIN) -> nn.Module:
    """A copy of a network with the layers of a table replaced; the network itself does not change."""
    replaced = copy.deepcopy(net)
    for module in list(replaced.modules()):
        for name, child in module.named_children():
            if type(child) in table:
                setattr(module, name, table[type(child)](child))
    return replaced
