"""Forward and backward of AlexNet's two response norms against torch.nn.LocalResponseNorm.

Run it as `python benchmarks/response_norm.py`.
"""

from __future__ import annotations

import torch
from compare import HEADER, interleaved
from torch import nn

from alexnet_lab.models.layers import LocalResponseNorm

SHAPES = ((128, 96, 55, 55), (128, 256, 27, 27))
"""AlexNet's at a batch of 128: after conv1 and after conv2."""

GOAL = 7.5
"""Times faster."""


def step(norm: nn.Module, images: torch.Tensor, slope: torch.Tensor) -> None:
    """One forward and one backward pass."""
    images.grad = None
    norm(images).backward(slope)


def main() -> None:
    """Prints one line for each shape and memory layout."""
    ours, theirs = LocalResponseNorm(5, 1e-4, 0.75, 2.0), nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(HEADER)
    for shape in SHAPES:
        for layout in (torch.contiguous_format, torch.channels_last):
            images = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
            slope = torch.randn(shape).contiguous(memory_format=layout)
            what = f"LRN {'x'.join(map(str, shape))} {str(layout).removeprefix('torch.')}"
            comparison = interleaved(
                what,
                lambda images=images, slope=slope: step(ours, images, slope),
                lambda images=images, slope=slope: step(theirs, images, slope),
                goal=GOAL,
                rounds=5,
            )
            print(comparison.row(), flush=True)


if __name__ == "__main__":
    main()
