"""A convolution with faster forms for a GPU, where cuDNN is slow: AlexNet's first layer and its two towers.

Both forms compute the same sums in another order. On a CPU, and in a network that is exported, it is torch's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)
"""In these types a GPU multiplies so fast that joined towers, twice the multiplications, are faster."""


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, with the same fields, weights and results.

    Example:
        >>> Conv2d(3, 96, 11, stride=4)(torch.zeros(2, 3, 227, 227)).shape
        torch.Size([2, 96, 55, 55])
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """From (B, C, H, W) to (B, out_channels, H', W')."""
        autocast = torch.is_autocast_enabled("cuda")
        dtype = torch.get_autocast_dtype("cuda") if autocast else input.dtype
        exported = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
        if input.device.type != "cuda" or dtype not in HALF or exported:
            return super().forward(input)
        if self.is_folded():
            return folded_convolution(input.to(dtype), self.weight, self.bias, self.stride[0])
        if self.groups > 1:
            return F.conv2d(input, block_diagonal(self.weight, self.groups), self.bias, self.stride, self.padding)
        return super().forward(input)

    def is_folded(self) -> bool:
        """Whether it has a stride, and too few input maps for the units that multiply matrices."""
        strides, paddings = {*self.stride}, {*self.padding}
        return paddings == {0} and len(strides) == 1 and strides != {1} and self.in_channels <= 4 and self.groups == 1


def folded_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """A convolution without padding, as one of stride 1 over blocks of stride x stride pixels.

    AlexNet's first layer, 11x11x3 with stride 4, becomes 3x3x48 with stride 1.

    Args:
        x: (B, C, H, W).
        weight: (M, C, K, K).
        bias: (M,).
        stride: Of the windows; a window is enlarged by zeros to a multiple of it.
    """
    side = weight.shape[-1]
    outs = [(length - side) // stride + 1 for length in x.shape[2:]]
    more = -side % stride
    height, width = (stride * (out - 1) + side + more for out in outs)
    x = F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]))  # a negative number cuts
    return F.conv2d(folded(x, stride), folded(F.pad(weight, (0, more, 0, more)), stride), bias)


def folded(x: Tensor, stride: int) -> Tensor:
    """Blocks of stride x stride pixels become maps: (B, C, H, W) to (B, stride * stride * C, H/stride, W/stride)."""
    images, maps, height, width = x.shape
    blocks = x.reshape(images, maps, height // stride, stride, width // stride, stride).permute(0, 2, 4, 3, 5, 1)
    return blocks.reshape(images, height // stride, width // stride, stride * stride * maps).permute(0, 3, 1, 2)


def block_diagonal(weight: Tensor, groups: int) -> Tensor:
    """The weights (M, C / groups, K, K) of a grouped convolution as those of one that is not grouped, (M, C, K, K).

    Twice the multiplications for two groups, and still faster: for groups, cuDNN copies the maps apart.
    """
    rows = [
        F.pad(part, (0, 0, 0, 0, number * part.shape[1], (groups - 1 - number) * part.shape[1]))
        for number, part in enumerate(weight.chunk(groups))
    ]
    return torch.cat(rows)
