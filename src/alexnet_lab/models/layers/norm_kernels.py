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

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from alexnet_lab.models.layers.fused import Constants

BLOCK = 1024
"""Numbers for each program."""

WARPS = 4
"""For each program."""


@triton.jit
def _powers(scale, BETA: tl.constexpr):
    """Scale ** -BETA, as `response_norm.power` computes it, and 1 / scale: without a division, which is slow."""
    root = tl.rsqrt(scale)
    if BETA == 0.75:
        return root * tl.sqrt(root), root * root
    if BETA == 0.5:
        return root, root * root
    return tl.exp2(-BETA * tl.log2(scale)), root * root


@triton.jit
def _places(count, PLANE: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr):
    """Of a program's numbers: the first one's place in memory, the others' after it, which exist, and their maps.

    Only the first place needs 64 bits; dividing those of all numbers would take longer than the norm.
    """
    start = tl.program_id(0).to(tl.int64) * BLOCK
    numbers = tl.arange(0, BLOCK)
    place = ((start % (PLANE * GROUP)).to(tl.int32) + numbers) // PLANE % GROUP
    return start, numbers, numbers < count - start, place


@triton.jit
def _load(x, at, inside, place, step: tl.constexpr, PLANE: tl.constexpr, GROUP: tl.constexpr):
    """The number `step` maps further on, widened; 0 outside the group."""
    near = inside & (place + step >= 0) & (place + step < GROUP)
    return tl.load(x + (at + step * PLANE), mask=near, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["count"])
def norm_kernel(
    x, out, count, alpha, k, BETA: tl.constexpr, SIZE: tl.constexpr, PLANE: tl.constexpr, GROUP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """`response_norm.normalised` of `count` numbers."""
    start, at, inside, place = _places(count, PLANE, GROUP, BLOCK)
    x, out = x + start, out + start
    total = tl.zeros([BLOCK], tl.float32)
    for step in tl.static_range(SIZE):
        near = _load(x, at, inside, place, step - SIZE // 2, PLANE, GROUP)
        total += near * near
    own = _load(x, at, inside, place, 0, PLANE, GROUP)
    power, _ = _powers(alpha * total + k, BETA)
    tl.store(out + at, (own * power).to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["count"])
def gradient_kernel(
    x, gradient, out, count, alpha, k, BETA: tl.constexpr, SIZE: tl.constexpr, PLANE: tl.constexpr,
    GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The input's gradient: `response_norm.input_gradient`."""
    start, at, inside, place = _places(count, PLANE, GROUP, BLOCK)
    x, gradient, out = x + start, gradient + start, out + start
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
        power, inverse = _powers(alpha * total + k, BETA)
        part = power * _load(gradient, at, inside, place, step - after, PLANE, GROUP)
        spread += part * near[step + before] * inverse
        if step == after:
            direct = part
    result = direct - (2 * alpha * BETA) * spread * own
    tl.store(out + at, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _eight(x, at, inside, STRIPS: tl.constexpr):
    """Eight neighbouring maps of each strip, one load of 16 or 32 bytes, widened and taken apart; 0 outside."""
    numbers = tl.load(x + (at[:, None] + tl.arange(0, 8)[None, :]), mask=inside[:, None], other=0.0).to(tl.float32)
    even, odd = tl.split(tl.reshape(numbers, [STRIPS, 4, 2]))
    from_0, from_2 = tl.split(tl.reshape(even, [STRIPS, 2, 2]))
    from_1, from_3 = tl.split(tl.reshape(odd, [STRIPS, 2, 2]))
    n0, n4 = tl.split(from_0)
    n1, n5 = tl.split(from_1)
    n2, n6 = tl.split(from_2)
    n3, n7 = tl.split(from_3)
    return (n0, n1, n2, n3, n4, n5, n6, n7)


@triton.jit
def _store_eight(out, at, inside, maps, STRIPS: tl.constexpr):
    """The opposite of `_eight`."""
    even = tl.join(tl.join(maps[0], maps[4]), tl.join(maps[2], maps[6]))
    odd = tl.join(tl.join(maps[1], maps[5]), tl.join(maps[3], maps[7]))
    numbers = tl.reshape(tl.join(tl.reshape(even, [STRIPS, 4]), tl.reshape(odd, [STRIPS, 4])), [STRIPS, 8])
    tl.store(out + (at[:, None] + tl.arange(0, 8)[None, :]), numbers.to(out.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _strips(count, GROUP: tl.constexpr, STRIPS: tl.constexpr):
    """Of a program's strips: the first one's place, the others' after it, which exist, their places in the group."""
    start = tl.program_id(0).to(tl.int64) * STRIPS
    strips = tl.arange(0, STRIPS)
    place = ((start % (GROUP // 8)).to(tl.int32) + strips) % (GROUP // 8)
    return 8 * start, 8 * strips, strips < count // 8 - start, place


@triton.jit
def _around(x, at, inside, place, GROUP: tl.constexpr, STRIPS: tl.constexpr):
    """The maps of each strip, the eight before it and the eight after it, in order; 0 outside the group."""
    before = _eight(x, at - 8, inside & (place > 0), STRIPS)
    after = _eight(x, at + 8, inside & (place < GROUP // 8 - 1), STRIPS)
    return before + _eight(x, at, inside, STRIPS) + after


@triton.jit
def _scale(near, first: tl.constexpr, alpha, k, SIZE: tl.constexpr):
    """K + alpha * the sum of squares of `SIZE` maps."""
    total = near[first] * near[first]
    for step in tl.static_range(1, SIZE):
        total += near[first + step] * near[first + step]
    return alpha * total + k


@triton.jit(do_not_specialize=["count"])
def strip_norm_kernel(
    x, out, count, alpha, k, BETA: tl.constexpr, SIZE: tl.constexpr, GROUP: tl.constexpr, STRIPS: tl.constexpr
):
    """`norm_kernel` of channels-last images, eight maps at a time."""
    start, at, inside, place = _strips(count, GROUP, STRIPS)
    near = _around(x + start, at, inside, place, GROUP, STRIPS)
    normed = ()
    for own in tl.static_range(8, 16):
        power, _ = _powers(_scale(near, own - SIZE // 2, alpha, k, SIZE), BETA)
        normed = normed + (near[own] * power,)
    _store_eight(out + start, at, inside, normed, STRIPS)


@triton.jit(do_not_specialize=["count"])
def strip_gradient_kernel(
    x, gradient, out, count, alpha, k, BETA: tl.constexpr, SIZE: tl.constexpr, GROUP: tl.constexpr,
    STRIPS: tl.constexpr,
):  # fmt: skip
    """`gradient_kernel` of channels-last images, eight maps at a time, which share what they need."""
    start, at, inside, place = _strips(count, GROUP, STRIPS)
    near = _around(x + start, at, inside, place, GROUP, STRIPS)
    slopes = _around(gradient + start, at, inside, place, GROUP, STRIPS)
    before: tl.constexpr = SIZE // 2
    after: tl.constexpr = SIZE - 1 - SIZE // 2
    direct, spread = (), ()  # of the maps from -after to 7 + before
    for other in tl.static_range(8 - after, 16 + before):
        power, inverse = _powers(_scale(near, other - before, alpha, k, SIZE), BETA)
        part = power * slopes[other]
        direct = direct + (part,)
        spread = spread + (part * near[other] * inverse,)
    result = ()
    for own in tl.static_range(8):
        total = spread[own]
        for step in tl.static_range(1, SIZE):
            total += spread[own + step]
        result = result + (direct[own + after] - (2 * alpha * BETA) * total * near[8 + own],)
    _store_eight(out + start, at, inside, result, STRIPS)


def norm(x: Tensor, constants: Constants) -> Tensor:
    """The norm of a dense tensor (B, C, ...) on a GPU."""
    out = torch.empty_like(x)
    kernel = strip_norm_kernel if _in_strips(x, constants) else norm_kernel
    kernel[_grid(x)](x, out, *_numbers(x, constants), **_fixed(x, constants))
    return out


def norm_gradient(x: Tensor, gradient: Tensor, constants: Constants) -> Tensor:
    """The gradient of its input; `gradient` is laid out as `x`."""
    out = torch.empty_like(x)
    kernel = strip_gradient_kernel if _in_strips(x, constants) else gradient_kernel
    kernel[_grid(x)](x, gradient, out, *_numbers(x, constants), **_fixed(x, constants))
    return out


def _in_strips(x: Tensor, constants: Constants) -> bool:
    """Whether neighbouring maps are neighbours in memory, in whole strips of eight that see at most the next one."""
    return x.stride(1) == 1 and x.shape[1] // constants.groups % 8 == 0 and constants.size <= 9


def _grid(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x.numel(), BLOCK),)


def _numbers(x: Tensor, constants: Constants) -> tuple[int, float, float]:
    """What changes no kernel; the last, smaller batch of an epoch compiles nothing."""
    return x.numel(), constants.alpha, constants.k


def _fixed(x: Tensor, constants: Constants) -> dict[str, Any]:
    """What a kernel is compiled for, once for each shape of images."""
    group = x.shape[1] // constants.groups
    fixed = {"BETA": constants.beta, "SIZE": constants.size, "GROUP": group, "num_warps": WARPS}
    if _in_strips(x, constants):
        return {**fixed, "STRIPS": BLOCK // 8}
    return {**fixed, "PLANE": x.stride(1), "BLOCK": BLOCK}
