"""The response norm's formulas, compiled into few passes over memory where the machine has a compiler.

The gradient is computed in two stages: in one, each value of the window sum would be computed anew for each of the
maps that see it. All arithmetic is in float32, whatever comes in.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

log = logging.getLogger("alexnet_lab.models")

LEAST_NUMBERS = 2**20
"""Smaller inputs are not worth the seconds that the compiler takes."""


class Constants(NamedTuple):
    """Of one response norm; alpha multiplies the plain sum, `groups` parts of the maps do not see each other."""

    size: int
    alpha: float
    beta: float
    k: float
    groups: int


def window_total(values: Tensor, before: int, after: int, groups: int) -> Tensor:
    """The sum over `before` maps, the map itself and `after` maps, clipped at the borders of its group; (B, C, ...)."""
    parts = []
    for part in values.chunk(groups, 1):
        padded = functional.pad(part, [0, 0] * (values.ndim - 2) + [before, after])
        total = padded[:, : part.shape[1]]
        for step in range(1, before + after + 1):
            total = total + padded[:, step : step + part.shape[1]]
        parts.append(total)
    return torch.cat(parts, 1) if groups > 1 else parts[0]


def _root(wide: Tensor, constants: Constants) -> Tensor:
    """(k + alpha * sum of squares) to the power of -1/2."""
    before, after = _reach(constants.size)
    return (window_total(wide * wide, before, after, constants.groups) * constants.alpha + constants.k).rsqrt()


def _reach(size: int) -> tuple[int, int]:
    return size // 2, size - 1 - size // 2


def _normalised(wide: Tensor, constants: Constants) -> Tensor:
    root = _root(wide, constants)
    return wide * (root * root.sqrt())  # beta = 0.75


def _through_itself(wide: Tensor, slope: Tensor, constants: Constants) -> tuple[Tensor, Tensor]:
    """The gradient through the numerator, and what each map's denominator passes on."""
    root = _root(wide, constants)
    direct = root * root.sqrt() * slope
    return direct, direct * wide * (root * root)


def _through_neighbours(wide: Tensor, direct: Tensor, spread: Tensor, constants: Constants) -> Tensor:
    after, before = _reach(constants.size)
    total = window_total(spread, before, after, constants.groups)
    return direct - (2 * constants.alpha * constants.beta) * total * wide


class Kernels:
    """The compiled formulas; compiled when first used, given up for good where that fails."""

    def __init__(self) -> None:
        self.broken = False
        self._compiled: dict[str, Any] = {}

    def suit(self, x: Tensor, beta: float) -> bool:
        """Whether `x` is large enough, of a type and on a device that they are made for."""
        large = x.numel() >= LEAST_NUMBERS and not x.is_meta
        return large and beta == 0.75 and x.dtype != torch.float64 and not self.broken

    def forward(self, x: Tensor, constants: Constants) -> Tensor | None:
        """The norm of `x`, or None where it cannot be compiled."""
        result = self._call(_normalised, x.float(), constants)
        return None if result is None else result.to(x.dtype)

    def backward(self, x: Tensor, gradient: Tensor, constants: Constants) -> Tensor | None:
        """The gradient of the norm's input, or None where it cannot be compiled."""
        wide = x.float()
        parts = self._call(_through_itself, wide, gradient.float(), constants)
        if parts is None:
            return None
        result = self._call(_through_neighbours, wide, *parts, constants)
        return None if result is None else result.to(x.dtype)

    def _call(self, formula: Any, *arguments: Any) -> Any:
        if self.broken:
            return None
        compiled = self._compiled.setdefault(formula.__name__, torch.compile(formula))
        try:
            return compiled(*arguments)
        except Exception as error:  # whatever the compiler raises: the plain formula does the same
            self.broken = True
            log.info("the response norm is not compiled here (%s): it takes about twice the time", type(error).__name__)
            return None


KERNELS = Kernels()
"""Of this process."""
