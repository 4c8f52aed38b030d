"""The first layer's kernels: does one tower learn colour and the other grey (Krizhevsky 2012, figure 3)?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.random import generator
from alexnet_lab.evaluation.loaded_run import FinishedRun

PERMUTATIONS = 10_000
"""Random assignments of a run's kernels to its towers."""


class Kernels(NamedTuple):
    """The kernels of a first layer, tower by tower."""

    towers: list[NDArray[np.float32]]  # each (n, C, K, K)

    @property
    def colour(self) -> bool:
        """Whether they have three channels."""
        return self.towers[0].shape[1] == 3

    @property
    def untestable(self) -> str | None:
        """Why `tower_test` does not apply to their colour, or None."""
        if len(self.towers) != 2:
            return "has one tower"
        return None if self.colour else "sees no colour"

    @property
    def saturations(self) -> list[NDArray[np.float64]]:
        """The colour saturation of each kernel, tower by tower."""
        return [colour_saturation(tower) for tower in self.towers]


def first_kernels(net: nn.Module, towers: int = 1) -> Kernels:
    """The kernels of the first convolution.

    Args:
        net: Any network.
        towers: The number of equal parts: the maps of AlexNet's tower 1 come before those of tower 2.

    Raises:
        ConfigError: The network has no convolution.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            weights = layer.weight.detach().float().cpu().numpy()
            return Kernels(np.split(weights, towers))
    raise ConfigError(f"figures=kernels: {type(net).__name__} has no convolution")


def colour_saturation(kernels: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share (n,) of each kernel's energy that is colour, of kernels (n, 3, K, K).

    A kernel's pixel is a vector of three weights. Its difference from the mean of the three responds only to colour.
    0: the kernel responds only to grey; 1: it does not respond to grey at all. Noise has 2/3.
    """
    colour = kernels.astype(np.float64)
    grey = colour.mean(axis=1, keepdims=True)
    total = np.square(colour).sum(axis=(1, 2, 3))
    return np.square(colour - grey).sum(axis=(1, 2, 3)) / np.where(total > 0, total, 1)


def kernels_of(run: FinishedRun) -> Kernels:
    """The first kernels of a run's network, tower by tower."""
    return first_kernels(run.net, run.settings.model.get("towers", 1))


class TowerTest(NamedTuple):
    """Whether the two towers of some runs differ in a property of their kernels."""

    gaps: list[float]  # per run: the absolute difference of the towers' means
    chances: list[float]  # per run: its expectation under the null hypothesis
    p_of_runs: list[float]  # per run; NaN if a value is NaN
    gap: float  # the mean over runs
    chance: float  # the mean of `chances`
    p: float  # of all runs together, in (0, 1]; NaN if a value is NaN


def tower_test(runs: Sequence[Sequence[NDArray[np.float64]]], *, seed: int = 0) -> TowerTest:
    """A permutation test for two towers, within each run and over all runs.

    Null hypothesis: the tower of a kernel makes no difference, so all assignments of a run's kernels to its two towers
    are equally likely. Kernels stay in their run, so differences between runs do not count. Which tower becomes the
    colour one is arbitrary. The statistic is therefore the absolute difference of the towers' means, averaged over the
    runs; swapping the towers of a run does not change it. It exceeds 0 under the null hypothesis too: compare it with
    `chance`. p is the share of assignments, including the observed one, with at least the observed mean.

    Args:
        runs: For each run the values of its first tower (n,) and of its second (m,).
        seed: Of the permutations; each run has its own stream.
    """
    gaps = [float(abs(one.mean() - other.mean())) for one, other in runs]
    dealt = np.stack([_dealt_gaps(*pair, seed=seed, number=number) for number, pair in enumerate(runs)])
    every, gap = dealt.mean(axis=0), float(np.mean(gaps))
    p_of_runs = [_share(*pair) for pair in zip(gaps, dealt, strict=True)]
    return TowerTest(gaps, dealt.mean(axis=1).tolist(), p_of_runs, gap, float(every.mean()), _share(gap, every))


def _dealt_gaps(one: NDArray[np.float64], other: NDArray[np.float64], *, seed: int, number: int) -> NDArray[np.float64]:
    """The differences (PERMUTATIONS,) of the means when both towers' values are assigned at random."""
    values = np.concatenate([one, other])
    rng = generator(seed, "permutation", number)
    first = rng.permuted(np.tile(values, (PERMUTATIONS, 1)), axis=1)[:, : len(one)].sum(axis=1)
    return np.abs(first / len(one) - (values.sum() - first) / len(other))


def _share(found: float, dealt: NDArray[np.float64]) -> float:
    if not np.isfinite(found):
        return float("nan")
    return float((1 + np.count_nonzero(dealt >= found - 1e-12)) / (1 + PERMUTATIONS))
