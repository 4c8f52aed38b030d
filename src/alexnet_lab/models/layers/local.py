"""Locally connected layers: a convolution whose kernels differ from pixel to pixel."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import NonNegativeInt, PositiveInt
from alexnet_lab.models.geometry import output_size


class LocallyConnected2d(nn.Module):
    """Windows as a convolution of stride 1 has them, but weights and biases of their own for each position.

    Args:
        in_channels: Maps of the input.
        out_channels: Maps of the output.
        size: The side of the input in pixels: the weights are made for it.
        kernel: The side of the window in pixels.
        padding: Pixels of zeros on each side.

    Attributes:
        weight: (positions, in_channels * kernel^2, out_channels), positions in rows from the top left.
        bias: (out_channels, positions).

    Raises:
        ConfigError: A number below 1 (`padding`: 0), no window fits, or (in `forward`) images of another side.

    Source: cuda-convnet's layer type `local`, used by its conv-local-13pct and -11pct.

    Example:
        >>> layer = LocallyConnected2d(64, 32, size=6, kernel=3, padding=1)
        >>> layer(torch.zeros(1, 64, 6, 6)).shape, sum(weight.numel() for weight in layer.parameters())
        (torch.Size([1, 32, 6, 6]), 664704)
    """

    @checked()
    def __init__(
        self,
        in_channels: PositiveInt,
        out_channels: PositiveInt,
        *,
        size: PositiveInt,
        kernel: PositiveInt,
        padding: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        side = output_size(size, kernel, 1, padding)
        if side < 1:
            raise ConfigError(f"a {kernel}x{kernel} window does not fit maps of {size} px with padding {padding}")
        self.in_channels, self.out_channels, self.size, self.kernel, self.padding, self.side = (
            in_channels, out_channels, size, kernel, padding, side,
        )  # fmt: skip
        self.weight = nn.Parameter(torch.empty(side**2, in_channels * kernel**2, out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels, side**2))
        bound = (in_channels * kernel**2) ** -0.5  # as torch starts its convolutions
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (B, in_channels, size, size) to (B, out_channels, side, side)."""
        if x.shape[-2:] != (self.size, self.size):
            raise ConfigError(f"a locally connected layer for {self.size} px got maps of {tuple(x.shape[-2:])} px")
        pad, side, offsets = self.padding, self.side, range(self.kernel)
        maps = functional.pad(x.permute(2, 3, 0, 1), (0, 0, 0, 0, pad, pad, pad, pad))  # pixels first: whole maps move
        shifted = [maps[row : row + side, column : column + side] for row in offsets for column in offsets]
        windows = torch.cat(shifted, dim=3).flatten(0, 1)  # (positions, B, kernel^2 * in_channels)
        weight = self.weight.unflatten(1, (self.in_channels, -1)).transpose(1, 2).flatten(1, 2)  # in the same order
        products = torch.baddbmm(self.bias.t().unsqueeze(1), windows, weight)  # (positions, B, out_channels)
        return products.permute(1, 2, 0).unflatten(2, (side, side))

    def extra_repr(self) -> str:
        """The sizes, for printing."""
        return (
            f"{self.in_channels}, {self.out_channels}, size={self.size}, kernel={self.kernel}, padding={self.padding}"
        )
