"""The response norm and its gradient in three forms: C++ on a CPU, torch's compiler on a GPU, torch's operations else.

Half-precision numbers are widened to float32 first: their squares overflow, or lose the sum's small parts.
"""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from alexnet_lab.base.native import Library

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("alexnet_lab.models")

LEAST_NUMBERS = 2**20
"""Smaller inputs on a GPU are not worth the seconds that torch's compiler takes."""

PIECE = 2**19
"""Numbers of which torch's operations are done in one go on a CPU: what lies between them stays in its cache."""

SIZES = (3, 5, 7, 9)
"""The windows that response_norm.cpp has."""


class Constants(NamedTuple):
    """Of one response norm; alpha multiplies the plain sum, `groups` parts of the maps do not see each other."""

    size: int
    alpha: float
    beta: float
    k: float
    groups: int


def norm_of(x: Tensor, constants: Constants) -> Tensor:
    """The norm of `x` (B, C, ...) by the first form that can be had."""
    for form in FORMS:
        if form.suits(x, constants) and (out := form.forward(x, constants)) is not None:
            return out
    raise AssertionError("the plain form suits everything")


def gradient_of(x: Tensor, gradient: Tensor, constants: Constants) -> Tensor:
    """The gradient of the norm's input `x`, from that of its output."""
    for form in FORMS:
        if form.suits(x, constants) and (out := form.backward(x, gradient, constants)) is not None:
            return out
    raise AssertionError("the plain form suits everything")


# The formulas


def normalised(x: Tensor, constants: Constants) -> Tensor:
    """The formula: x / (k + alpha * sum of squares)^beta."""
    wide = at_least_float(x)
    return (power(_scale(wide, constants), constants.beta) * wide).to(x.dtype)


def through_itself(x: Tensor, gradient: Tensor, constants: Constants) -> tuple[Tensor, Tensor]:
    """The gradient through the numerator, and what each map's denominator passes on."""
    wide = at_least_float(x)
    scale = _scale(wide, constants)
    direct = power(scale, constants.beta) * at_least_float(gradient)
    return direct, direct * wide / scale


def through_neighbours(x: Tensor, direct: Tensor, spread: Tensor, constants: Constants) -> Tensor:
    """The whole gradient of the input, from the two parts of `through_itself`."""
    total = window_sum(spread, constants.size, constants.groups, reverse=True)
    return (direct - (2 * constants.alpha * constants.beta) * total * at_least_float(x)).to(x.dtype)


def _scale(wide: Tensor, constants: Constants) -> Tensor:
    return window_sum(wide * wide, constants.size, constants.groups).mul_(constants.alpha).add_(constants.k)


def window_sum(values: Tensor, size: int, groups: int = 1, reverse: bool = False) -> Tensor:
    """For each map, the sum over the window of `size` maps around it, clipped at the borders of its group.

    Args:
        values: (B, C, ...), C a multiple of `groups`.
        size: Maps in a window: from i - size // 2 on, so 5 means i - 2 .. i + 2.
        groups: Windows do not cross from one of the equal parts of the maps into the next.
        reverse: The mirrored window, i + size // 2 down: the transpose, which the gradient needs.

    Returns:
        (B, C, ...), like `values`.
    """
    before, after = size // 2, size - 1 - size // 2
    if reverse:
        before, after = after, before
    totals = []
    for part in values.chunk(groups, 1):
        padded = functional.pad(part, [0, 0] * (values.ndim - 2) + [before, after])
        total = padded[:, : part.shape[1]].clone()
        for step in range(1, size):
            total += padded[:, step : step + part.shape[1]]
        totals.append(total)
    return torch.cat(totals, 1) if groups > 1 else totals[0]


def power(base: Tensor, beta: float) -> Tensor:
    """`base` to the power of -beta. Roots take a fraction of the time that `pow` takes."""
    if beta == 0.75:
        root = base.rsqrt()
        return root * root.sqrt()
    if beta == 0.5:
        return base.rsqrt()
    return base.pow(-beta)


def at_least_float(x: Tensor) -> Tensor:
    """Half-precision numbers as float32, others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


# The forms


class Plain:
    """The formulas as they stand."""

    def suits(self, x: Tensor, constants: Constants) -> bool:
        """They suit everything."""
        return True

    def forward(self, x: Tensor, constants: Constants) -> Tensor:
        """The norm of `x`."""
        return _in_pieces(lambda x: normalised(x, constants), x)

    def backward(self, x: Tensor, gradient: Tensor, constants: Constants) -> Tensor:
        """The gradient of the norm's input."""

        def formula(x: Tensor, gradient: Tensor) -> Tensor:
            return through_neighbours(x, *through_itself(x, gradient, constants), constants)

        return _in_pieces(formula, x, gradient)


def _in_pieces(formula: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """The formula of tensors (B, ...), a few images at a time where they are large and on a CPU."""
    if x.device.type != "cpu" or x.numel() <= PIECE or _is_traced():
        return formula(x, *others)
    out = torch.empty_like(x)
    step = max(1, PIECE * len(x) // x.numel())
    for parts in zip(*(tensor.split(step) for tensor in (out, x, *others)), strict=True):
        parts[0].copy_(formula(*parts[1:]))
    return out


class Native:
    """The C++ form, for dense tensors on a CPU."""

    def __init__(self) -> None:
        pointer, whole, real, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
        constants = [whole] * 5 + [real] * 2 + [flag] * 3
        self.library = Library(
            Path(__file__).with_name("response_norm.cpp"),
            {"lrn_forward": [pointer] * 2 + constants, "lrn_backward": [pointer] * 3 + constants},
            without="the response norm is not compiled here: it takes about four times the time",
        )

    def suits(self, x: Tensor, constants: Constants) -> bool:
        """Whether it is made for such tensors and constants, and can be had."""
        plain_tensor = x.device.type == "cpu" and type(x) in (Tensor, torch.nn.Parameter)
        known = x.dtype in (torch.float32, torch.bfloat16) and constants.size in SIZES and constants.beta == 0.75
        return plain_tensor and known and not _is_traced() and self.library.available

    def forward(self, x: Tensor, constants: Constants) -> Tensor:
        """The norm of `x`."""
        x, channels_last = _dense(x)
        out = torch.empty_like(x)
        self._call("lrn_forward", (x, out), constants, channels_last)
        return out

    def backward(self, x: Tensor, gradient: Tensor, constants: Constants) -> Tensor:
        """The gradient of the norm's input."""
        x, channels_last = _dense(x)
        slope = gradient.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        out = torch.empty_like(x)
        self._call("lrn_backward", (x, slope, out), constants, channels_last)
        return out

    def _call(self, name: str, tensors: tuple[Tensor, ...], constants: Constants, channels_last: bool) -> None:
        x = tensors[0]
        images, maps = x.shape[:2]
        pixels = x[0, 0].numel() if images and maps else 0
        self.library.call(
            name, *[tensor.data_ptr() for tensor in tensors], images, maps, pixels, constants.groups, constants.size,
            constants.alpha, constants.k, channels_last, x.dtype == torch.bfloat16, torch.get_num_threads(),
        )  # fmt: skip


def _dense(x: Tensor) -> tuple[Tensor, bool]:
    """The tensor with its numbers in one of two orders, and whether the maps of a pixel lie together."""
    if x.is_contiguous():
        return x, False
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x, True
    return x.contiguous(), False


class Compiled:
    """The form of torch's compiler, for large tensors on a GPU; given up for good where it fails.

    The gradient is computed in two stages: in one, each value of the window sum would be computed anew for each of
    the maps that see it.
    """

    def __init__(self) -> None:
        self.broken = False
        self._compiled: dict[str, Any] = {}

    def suits(self, x: Tensor, constants: Constants) -> bool:
        """Whether `x` is large enough, of a type and on a device that it is made for."""
        on_gpu = x.device.type == "cuda" and x.dtype != torch.float64
        return on_gpu and x.numel() >= LEAST_NUMBERS and not self.broken and not _is_traced()

    def forward(self, x: Tensor, constants: Constants) -> Tensor | None:
        """The norm of `x`, or None where it cannot be compiled."""
        return self._call(normalised, x, constants)

    def backward(self, x: Tensor, gradient: Tensor, constants: Constants) -> Tensor | None:
        """The gradient of the norm's input, or None where it cannot be compiled."""
        parts = self._call(through_itself, x, gradient, constants)
        return None if parts is None else self._call(through_neighbours, x, *parts, constants)

    def _call(self, formula: Any, *arguments: Any) -> Any:
        if self.broken:
            return None
        try:
            if formula.__name__ not in self._compiled:
                self._compiled[formula.__name__] = torch.compile(formula)
            return self._compiled[formula.__name__](*arguments)
        except Exception as error:  # whatever the compiler raises: the plain formula does the same
            self.broken = True
            log.info("the response norm is not compiled here (%s): it is slower", type(error).__name__)
            return None


def _is_traced() -> bool:
    """Whether torch itself looks through the operations of a whole network."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


FORMS = (Native(), Compiled(), Plain())
"""Of this process, the fastest first."""
