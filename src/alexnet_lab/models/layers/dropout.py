"""Dropout as it was published: units are dropped in training, and outputs are scaled in evaluation."""

from __future__ import annotations

import torch
from torch import nn

from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import UnitInterval


class ClassicDropout(nn.Module):
    """Training: each element is 0 with probability `p`, else unchanged. Evaluation: x times 1 - p.

    `torch.nn.Dropout` scales the other way round (x / (1 - p) in training, nothing in evaluation): the two
    agree in expectation, but what the next layer sees in training differs by the factor 1 - p.

    Args:
        p: The probability of dropping, in [0, 1).

    Raises:
        ConfigError: A probability out of its range.

    Source: Krizhevsky et al. 2012, section 4.2; the released code's HiddenSexLayer.

    Example:
        >>> layer = ClassicDropout(0.5)
        >>> layer.eval()(torch.ones(3)).tolist()
        [0.5, 0.5, 0.5]
    """

    @checked()
    def __init__(self, p: UnitInterval = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape as `x`."""
        if not self.training:
            return x * (1 - self.p)
        return x * torch.empty_like(x).bernoulli_(1 - self.p)

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f"p={self.p}"
