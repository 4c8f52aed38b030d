"""The response norm and its gradient on a GPU, in Triton: each one pass over memory.

The norm reads its input once and writes its output. The gradient reads the input and the output's gradient once, and
writes the input's. With bfloat16 that is 4 and 6 bytes a number. Neighbouring maps are read again from the cache.

A number's map is its place in memory divided by `PLANE`, the distance of neighbouring maps: 1 for channels-last images,
H * W for contiguous ones. Both layouts share one kernel. `GROUP` is the number of maps that see each other.
"""

# Triton compiles these functions; Python does not run them.
# ruff: noqa: N803, PLR0917, RUF005
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportOperatorIssue=false
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

    from alexnet_lab.models.layers.norm_constants import Constants

BLOCK = 1024
"""Numbers for each program of 4 warps."""


@triton.jit
def _power(scale, BETA: tl.constexpr):
    """Scale ** -BETA, as `response_norm.power` computes it."""
    if BETA == 0.75:
        root = tl.rsqrt(scale)
        return root * tl.sqrt(root)
    if BETA == 0.5:
        return tl.rsqrt(scale)
    return tl.exp2(-BETA * tl.log2(scale))


@triton.jit
def _load(x, at, inside, place, step: tl.constexpr, PLANE: tl.constexpr, GROUP: tl.constexpr):
    """The number `step` maps further on, widened; 0 outside the group."""
    near = inside & (place + step >= 0) & (place + step < GROUP)
    return tl.load(x + at + step * PLANE, mask=near, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["count"])
def norm_kernel(
    x, out, count, alpha, k, BETA: tl.constexpr, SIZE: tl.constexpr, PLANE: tl.constexpr, GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """`response_norm.normalised` of `count` numbers."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    place = (at // PLANE) % GROUP
    total = tl.zeros([BLOCK], tl.float32)
    for step in tl.static_range(SIZE):
        near = _load(x, at, inside, place, step - SIZE // 2, PLANE, GROUP)
        total += near * near
    own = _load(x, at, inside, place, 0, PLANE, GROUP)
    tl.store(out + at, (own * _power(alpha * total + k, BETA)).to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["count"])
def gradient_kernel(
    x, gradient, out, count, alpha, k, BETA: tl.constexpr, SIZE: tl.constexpr, PLANE: tl.constexpr,
    GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The input's gradient: `response_norm.through_itself` and `through_neighbours` at once."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    place = (at // PLANE) % GROUP
    before: tl.constexpr = SIZE // 2
    after: tl.constexpr = SIZE - 1 - SIZE // 2
    near = ()  # all numbers that a number's gradient depends on, from map -(SIZE - 1) to SIZE - 1
    for step in tl.static_range(2 * SIZE - 1):
        near = near + (_load(x, at, inside, place, step - SIZE + 1, PLANE, GROUP),)
    own = near[SIZE - 1]
    spread = tl.zeros([BLOCK], tl.float32)
    direct = spread
    for step in tl.static_range(SIZE):  # the maps whose windows hold this one: from -after to before
        total = tl.zeros([BLOCK], tl.float32)
        for other in tl.static_range(SIZE):
            number = near[step + other]
            total += number * number
        scale = alpha * total + k
        slope = _load(gradient, at, inside, place, step - after, PLANE, GROUP)
        part = _power(scale, BETA) * slope
        spread += part * near[step + before] / scale
        if step == after:
            direct = part
    result = direct - (2 * alpha * BETA) * spread * own
    tl.store(out + at, result.to(out.dtype.element_ty), mask=inside)


def norm(x: Tensor, constants: Constants) -> Tensor:
    """The norm of a dense tensor (B, C, ...) on a GPU."""
    out = torch.empty_like(x)
    norm_kernel[_grid(x)](x, out, *_numbers(x, constants), **_fixed(x, constants))
    return out


def norm_gradient(x: Tensor, gradient: Tensor, constants: Constants) -> Tensor:
    """The gradient of its input; `gradient` is laid out as `x`."""
    out = torch.empty_like(x)
    gradient_kernel[_grid(x)](x, gradient, out, *_numbers(x, constants), **_fixed(x, constants))
    return out


def _grid(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x.numel(), BLOCK),)


def _numbers(x: Tensor, constants: Constants) -> tuple[int, float, float]:
    """What changes no kernel; the last, smaller batch of an epoch compiles nothing."""
    return x.numel(), constants.alpha, constants.k


def _fixed(x: Tensor, constants: Constants) -> dict[str, Any]:
    """What a kernel is compiled for, once for each shape of images."""
    return {
        "BETA": constants.beta, "SIZE": constants.size, "PLANE": x.stride(1), "GROUP": x.shape[1] // constants.groups,
        "BLOCK": BLOCK,
    }  # fmt: skip
