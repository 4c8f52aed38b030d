"""The first layer's kernels: do the two towers part colour and grey between them (Krizhevsky 2012, figure 3)?"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import nn

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.random import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERMUTATIONS = 10_000


class Kernels(NamedTuple):
    """The kernels of a first layer, tower by tower."""

    towers: list[NDArray[np.float32]]  # each (n, C, K, K)

    @property
    def colour(self) -> bool:
        """Whether they see colour."""
        return self.towers[0].shape[1] == 3


def first_kernels(net: nn.Module, towers: int = 1) -> Kernels:
    """The kernels of the first convolution.

    Args:
        net: Any network.
        towers: Into how many equal parts they belong: the maps of AlexNet's tower 1 come before those of tower 2.

    Raises:
        ConfigError: The network has no convolution.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            weights = layer.weight.detach().float().cpu().numpy()
            return Kernels(np.split(weights, towers))
    raise ConfigError(f"figures=kernels: {type(net).__name__} has no convolution")


def colour_saturation(kernels: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of each kernel's energy that is colour (n,), of kernels (n, 3, K, K).

    A kernel's pixel is a vector of three weights; what is left of it after the mean of the three is taken away answers
    to colour alone. 0: the kernel sees grey only; 1: it does not answer to grey at all. Noise has 2/3.
    """
    colour = kernels.astype(np.float64)
    grey = colour.mean(axis=1, keepdims=True)
    total = np.square(colour).sum(axis=(1, 2, 3))
    return np.square(colour - grey).sum(axis=(1, 2, 3)) / np.where(total > 0, total, 1)


def permutation_p(one: NDArray[np.float64], other: NDArray[np.float64], *, seed: int = 0) -> float:
    """How often a random parting of the values differs in its means by as much as this one, in (0, 1].

    Args:
        one: (n,), of the first group.
        other: (m,), of the second.
        seed: Of the partings.
    """
    values = np.concatenate([one, other])
    rng = generator(seed, "permutation")
    found = abs(one.mean() - other.mean())
    first = np.stack([rng.permutation(values)[: len(one)] for _ in range(PERMUTATIONS)]).sum(axis=1)
    gaps = np.abs(first / len(one) - (values.sum() - first) / len(other))
    return float((1 + np.count_nonzero(gaps >= found - 1e-12)) / (1 + PERMUTATIONS))
