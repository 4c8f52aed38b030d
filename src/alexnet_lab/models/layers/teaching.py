"""Pooling and padding as the courses teach them, where torch has no layer of that name."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import NonNegativeInt, PositiveInt
from alexnet_lab.models.geometry import padding_pixels


class MinPool2d(nn.Module):
    """The least value of each window: the darkest pixel, where max-pooling keeps the brightest.

    Args:
        kernel_size: The side of the window in pixels.
        stride: The step from window to window in pixels; None: as `kernel_size`.
        padding: Pixels on each side, at most half of a window, which are never the least.
        ceil_mode: As `geometry.output_size` has it.

    Raises:
        ConfigError: A number out of its range.

    Example:
        >>> MinPool2d(2)(torch.arange(16.0).view(1, 1, 4, 4)).flatten().tolist()
        [0.0, 2.0, 8.0, 10.0]
    """

    @checked()
    def __init__(
        self,
        kernel_size: PositiveInt,
        stride: PositiveInt | None = None,
        padding: NonNegativeInt = 0,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        if 2 * padding > kernel_size:
            raise ConfigError(f"`padding` is {padding}; allowed: at most half of the window of {kernel_size} px")
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (B, C, H, W) to (B, C, H', W')."""
        return -functional.max_pool2d(-x, self.kernel_size, self.stride, self.padding, ceil_mode=self.ceil_mode)


class Pad2d(nn.Module):
    """What a convolution of stride 1 adds around the image for `valid`, `same` or `full` output.

    Args:
        mode: `valid` adds nothing, `same` keeps the side, `full` lets every window that touches the image count.
        kernel: The side of the convolution's window in pixels.
        value: Of the added pixels.

    Raises:
        ConfigError: An unknown mode, or no window.

    Example:
        >>> [Pad2d(mode, 5)(torch.zeros(1, 1, 28, 28)).shape[-1] for mode in ("valid", "same", "full")]
        [28, 32, 36]
    """

    @checked()
    def __init__(self, mode: Literal["valid", "same", "full"], kernel: PositiveInt, *, value: float = 0.0) -> None:
        super().__init__()
        self.before, self.after = padding_pixels(mode, kernel)
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (B, C, H, W) to (B, C, before + H + after, before + W + after)."""
        return functional.pad(x, (self.before, self.after) * 2, value=self.value)
