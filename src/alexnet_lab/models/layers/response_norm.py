"""Response normalisation: across maps (the paper's LRN) and within a map (the released code's `rnorm`).

Both take alpha in the paper's meaning: it multiplies the plain sum of squares. `torch.nn.LocalResponseNorm`,
Caffe and the released code's configs divide theirs by the number of summands first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models.layers.fused import Constants, at_least_float, gradient_of, norm_of, power


class _ResponseNorm(torch.autograd.Function):
    """Keeps its input alone for the gradient: the denominators are cheaper to compute than to store."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, constants: Constants) -> torch.Tensor:
        ctx.constants = constants
        ctx.save_for_backward(x)
        return norm_of(x, constants)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - one output has one gradient
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient_of(x, gradient, ctx.constants), None


def local_response_norm(
    x: torch.Tensor, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, groups: int = 1
) -> torch.Tensor:
    """LRN across maps; arguments as `LocalResponseNorm` has them. (B, C, ...) in and out, any float type."""
    return _ResponseNorm.apply(x, Constants(size, alpha, beta, k, groups))  # pyright: ignore[reportReturnType] - untyped


class LocalResponseNorm(nn.Module):
    """b_i = a_i / (k + alpha * sum_j a_j^2)^beta, j over the `size` maps around i (Krizhevsky 2012, sec. 3.3).

    Args:
        size: n, maps in a window; it is clipped at the first and the last map.
        alpha: Times the plain sum of squares. The same as `torch.nn.LocalResponseNorm` with size * alpha.
        beta: The exponent.
        k: The constant, > 0. With inputs of unit variance it rules: the output is nearly k^-beta times the input.
        groups: Equal parts of the maps that do not see each other: 2 for the released code's towers.

    Raises:
        ConfigError: A constant outside its range, or (in `forward`) maps that `groups` does not divide.
    """

    def __init__(
        self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0, *, groups: int = 1
    ) -> None:
        super().__init__()
        _check_norm(size, alpha, beta, k)
        if groups < 1:
            raise ConfigError(f"groups={groups} of a response norm must be at least 1")
        self.size, self.alpha, self.beta, self.k, self.groups = size, alpha, beta, k, groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) in and out."""
        if x.shape[1] % self.groups:
            raise ConfigError(f"{x.shape[1]} maps cannot be normalised in {self.groups} equal groups")
        return local_response_norm(x, size=self.size, alpha=self.alpha, beta=self.beta, k=self.k, groups=self.groups)

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, groups={self.groups}"


class SpatialResponseNorm(nn.Module):
    """a / (k + alpha * sum a^2)^beta over the `size` x `size` neighbours within the same map.

    The released code calls it `rnorm`; its `scale` is divided by size^2, so scale .001 at size 5 is alpha 4e-5.

    Args:
        size: The side of the window in pixels, odd; it is clipped at the borders of the map.
        alpha: Times the plain sum of squares.
        beta: The exponent.
        k: The constant, > 0.

    Raises:
        ConfigError: A constant outside its range.
    """

    def __init__(self, size: int = 5, alpha: float = 4e-5, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        _check_norm(size, alpha, beta, k)
        if size % 2 == 0:
            raise ConfigError(f"size={size} of a spatial response norm must be odd: the window has a centre")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) in and out."""
        wide = at_least_float(x)
        squares = functional.avg_pool2d(wide.square(), self.size, 1, self.size // 2, divisor_override=1)
        return (wide * power(squares * self.alpha + self.k, self.beta)).to(x.dtype)

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return f"size={self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


def _check_norm(size: int, alpha: float, beta: float, k: float) -> None:
    """Refuses constants for which the formula has no value."""
    if size < 1:
        raise ConfigError(f"size={size} of a response norm must be at least 1 (the paper: 5)")
    if alpha < 0 or beta < 0:
        raise ConfigError(f"alpha={alpha} and beta={beta} of a response norm must not be negative")
    if k <= 0:
        raise ConfigError(f"k={k} of a response norm must be above 0 (the paper: 2); 0 would divide by zero")
