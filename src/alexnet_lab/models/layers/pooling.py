"""Adaptive average pooling with a gradient that repeats its bits on a GPU, where torch's own adds in any order."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DeterministicAdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d`; on a GPU as two matrix products, if deterministic operations are asked for.

    Elsewhere it is torch's own to the bit.

    Example:
        >>> DeterministicAdaptiveAvgPool2d(2)(torch.arange(9.0).view(1, 1, 3, 3)).flatten().tolist()
        [2.0, 3.0, 5.0, 6.0]
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
        """(B, C, H, W) to (B, C, H', W')."""
        if not (input.is_cuda and torch.are_deterministic_algorithms_enabled()):
            return super().forward(input)
        return by_products(input, self.output_size)


def by_products(images: Tensor, output_size: int | tuple[int | None, ...] | None) -> Tensor:
    """The means over windows (B, C, H', W') of images (B, C, H, W), as `nn.AdaptiveAvgPool2d` has the windows."""
    sizes = output_size if isinstance(output_size, tuple) else (output_size, output_size)
    rows, columns = (_weights(size or side, side, images) for size, side in zip(sizes, images.shape[-2:], strict=True))
    return rows @ images @ columns.T


def _weights(windows: int, side: int, like: Tensor) -> Tensor:
    """Which share each of `side` pixels has in each window: (windows, side)."""
    positions = torch.arange(side, device=like.device)
    starts = torch.arange(windows, device=like.device)[:, None]
    first, last = starts * side // windows, ((starts + 1) * side + windows - 1) // windows
    inside = (positions >= first) & (positions < last)
    return (inside / (last - first)).to(like.dtype)


def make_deterministic(net: nn.Module) -> None:
    """Replaces a network's adaptive average poolings; names and weights stay the same."""
    for module in net.modules():
        for name, child in module.named_children():
            if type(child) is nn.AdaptiveAvgPool2d:
                setattr(module, name, DeterministicAdaptiveAvgPool2d(child.output_size))
