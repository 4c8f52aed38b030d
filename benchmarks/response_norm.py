"""Forward and backward of AlexNet's two response norms against torch.nn.LocalResponseNorm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from compare import Row, faster, medians, script_main
from torch import nn

from alexnet_lab.models.layers import LocalResponseNorm, response_norm

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES = ((128, 96, 55, 55), (128, 256, 27, 27))
"""Shapes in AlexNet at a batch of 128: after conv1 and after conv2."""

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def step(norm: nn.Module, images: torch.Tensor, slope: torch.Tensor, *, compiler: bool = True) -> None:
    """Runs one forward and one backward pass, with or without the compiled code."""
    images.grad = None
    forms, response_norm.FORMS = response_norm.FORMS, response_norm.FORMS if compiler else response_norm.FORMS[-1:]
    norm(images).backward(slope)
    response_norm.FORMS = forms


def rows() -> Iterator[Row]:
    """Yields two rows for each shape and memory layout: with and without a compiler."""
    ours, theirs = LocalResponseNorm(5, 1e-4, 0.75, 2.0), nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)
    for shape in SHAPES:
        for layout, memory_format in LAYOUTS.items():
            images = torch.randn(shape).contiguous(memory_format=memory_format).requires_grad_()
            slope = torch.randn(shape).contiguous(memory_format=memory_format)
            calls = {
                "ours": lambda images=images, slope=slope: step(ours, images, slope),
                "plain": lambda images=images, slope=slope: step(ours, images, slope, compiler=False),
                "theirs": lambda images=images, slope=slope: step(theirs, images, slope),
            }
            seconds = medians(calls, rounds=5)
            what = f"LRN {'x'.join(map(str, shape))}, {layout}"
            yield faster(what, seconds["ours"], seconds["theirs"], 7.5)
            yield faster(f"{what}, no compiler", seconds["plain"], seconds["theirs"], 2.0)


if __name__ == "__main__":
    script_main(rows, {})
