"""The non-linearities that a network's `activation` field may name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class ScaledTanh(nn.Module):
    """f(a) = A tanh(S a), LeNet-5's squashing function (LeCun et al. 1998, appendix A).

    With A = 1.7159 and S = 2/3, f(1) = 1 and f(-1) = -1 to 5 digits, where the curvature peaks too: targets
    of +-1 lie in the bend, not out on the flat.

    Args:
        amplitude: A, the asymptote.
        slope: S, per unit of the input.

    Example:
        >>> ScaledTanh()(torch.tensor([-1.0, 0.0, 1.0])).round(decimals=3).tolist()
        [-1.0, 0.0, 1.0]
    """

    def __init__(self, amplitude: float = 1.7159, slope: float = 2 / 3) -> None:
        super().__init__()
        self.amplitude = amplitude
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The function at each element of `x`."""
        return self.amplitude * torch.tanh(self.slope * x)

    def extra_repr(self) -> str:
        """The constants, for printing."""
        return f"amplitude={self.amplitude}, slope={self.slope:.6g}"


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "scaled_tanh": ScaledTanh,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
"""From the name in a config to the module; a constructor's `Literal` repeats the names."""
