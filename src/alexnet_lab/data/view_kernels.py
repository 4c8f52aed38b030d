"""Random views of images on a GPU, in Triton: one pass over memory instead of one torch operation after another.

A view's numbers are those of `augment.gathered_views`, bit by bit: ((pixel - mean) + shift) * scale, each step rounded.
"""

# Triton compiles this function; Python does not run it.
# ruff: noqa: N803, PLR0917
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet_lab.data.augment import AugmentParams, Geometry
from alexnet_lab.data.normalize import Normalizer

BLOCK = 1024
"""Numbers for each program."""


@triton.jit(do_not_specialize_on_alignment=["top", "left"])  # parts of one tensor, whose places depend on the batch
def views_kernel(
    images, top, left, mirror, shift, mean, scale, out,
    CHANNELS: tl.constexpr, STORED: tl.constexpr, SIDE: tl.constexpr, PADDING: tl.constexpr,
    SHIFTED: tl.constexpr, MEAN_IMAGE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A block of a view, channels last: the channels of a pixel are neighbours in memory."""
    blocks: tl.constexpr = (CHANNELS * SIDE * SIDE + BLOCK - 1) // BLOCK
    image = tl.program_id(0) // blocks
    numbers = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    exists = numbers < CHANNELS * SIDE * SIDE
    channel, pixel = numbers % CHANNELS, numbers // CHANNELS
    x = pixel % SIDE
    row = (tl.load(top + image) - PADDING).to(tl.int32) + pixel // SIDE
    column = (tl.load(left + image) - PADDING).to(tl.int32) + tl.where(tl.load(mirror + image) != 0, SIDE - 1 - x, x)
    within = exists & (row >= 0) & (row < STORED) & (column >= 0) & (column < STORED)
    stored = images + image.to(tl.int64) * (CHANNELS * STORED * STORED)
    level = tl.load(stored + (channel * STORED + row) * STORED + column, mask=within, other=0).to(tl.float32)
    centre = channel * (SIDE * SIDE) + pixel if MEAN_IMAGE else channel
    value = level - tl.load(mean + centre, mask=exists, other=0.0)
    if SHIFTED:
        value += tl.load(shift + image * CHANNELS + channel)
    value *= tl.load(scale + channel)
    view = out + image.to(tl.int64) * (CHANNELS * SIDE * SIDE)
    tl.store(view + numbers, tl.where(within, value, 0.0), mask=exists)


def views(images: Tensor, draws: AugmentParams, geometry: Geometry, normalizer: Normalizer) -> Tensor:
    """The views, float32 (B, C, K, K) in channels-last memory, of images uint8 (B, C, S, S) on a GPU."""
    batch, channels, stored, _ = images.shape
    shape = (batch, channels, geometry.side, geometry.side)
    out = torch.empty(shape, device=images.device, memory_format=torch.channels_last)
    mean, scale = normalizer.mean.contiguous(), normalizer.scale.contiguous()
    shift = mean if draws.shift is None else draws.shift.contiguous()  # a pointer that is not read
    grid = (batch * triton.cdiv(channels * geometry.side**2, BLOCK),)
    views_kernel[grid](
        images.contiguous(), draws.top.contiguous(), draws.left.contiguous(), draws.mirror.contiguous(), shift, mean,
        scale, out, channels, stored, geometry.side, geometry.padding, draws.shift is not None,
        mean.shape[-1] > 1, BLOCK,
    )  # fmt: skip
    return out
