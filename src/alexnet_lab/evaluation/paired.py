"""Paired comparisons over images: two classifications of the same images, compared image by image.

Q. McNemar: Note on the sampling error of the difference between correlated proportions, Psychometrika 12, 1947;
D. G. Bonett and R. M. Price: Adjusted Wald confidence interval for a difference of binomial proportions based on paired
data, Journal of Educational and Behavioral Statistics 37, 2012; B. Efron and R. J. Tibshirani: An introduction to the
bootstrap, 1993.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import bdtr

from alexnet_lab.base.random import generator
from alexnet_lab.base.statistics import CONFIDENCE, ROUNDING
from alexnet_lab.evaluation.error_rates import NORMAL_QUANTILE

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 10_000


class Effect(NamedTuple):
    """A mean difference between paired results."""

    difference: float
    ci95_low: float | None  # None: the values have no spread, so there is no interval
    ci95_high: float | None
    p: float | None  # two-sided
    method: str


def mcnemar(wrong: NDArray[np.bool_], base: NDArray[np.bool_]) -> Effect:
    """The difference of two error rates on the same images.

    Only images on which the two disagree count. If both are equally good, each of these is wrong in one as likely as in
    the other, which gives the exact binomial p. The interval is Bonett and Price's: Wald's with one image added to each
    of the two kinds of disagreement. Its coverage is right with few disagreements too, where Wald's interval and the
    bootstrap's are too short.

    Args:
        wrong: (n,), which images the first gets wrong.
        base: (n,), which images the second gets wrong.

    Example:
        >>> effect = mcnemar(np.array([True] * 2 + [False] * 98), np.array([False] * 88 + [True] * 12))
        >>> round(effect.difference, 4), round(effect.ci95_low, 4), round(effect.ci95_high, 4), round(effect.p, 4)
        (-0.1, -0.1725, -0.0236, 0.0129)
    """
    n, worse, better = len(wrong), int(np.sum(wrong & ~base)), int(np.sum(base & ~wrong))
    p = min(1.0, 2 * float(bdtr(min(worse, better), worse + better, 0.5)))
    middle, either = (worse - better) / (n + 2), (worse + better + 2) / (n + 2)
    half = NORMAL_QUANTILE * math.sqrt((either - middle**2) / (n + 2))
    low, high = max(-1.0, middle - half), min(1.0, middle + half)
    return Effect((worse - better) / n, low, high, p, "McNemar exact, Bonett-Price interval")


def bootstrap(gaps: NDArray[np.float64], *, seed: int = 0) -> Effect:
    """The mean of paired differences, with its percentile interval over resampled images.

    A resample matters only by how often each value occurs in it, and these counts are multinomial, so no single image
    is drawn. p is twice the share of resamples whose mean lies on the other side of 0.

    Args:
        gaps: (n,), the difference in each image, with few distinct values.
        seed: Of the resamples.
    """
    values, counts = np.unique(gaps.round(12), return_counts=True)  # 0.1 + 0.2 and 0.3 are one value
    method = f"paired bootstrap, {RESAMPLES:,}"
    difference = float(counts @ values / len(gaps))
    if len(values) == 1:
        return Effect(difference, None, None, None, method)
    drawn = generator(seed, "bootstrap").multinomial(len(gaps), counts / len(gaps), size=RESAMPLES)
    means = drawn @ values / len(gaps)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    nearest = 1 + min(np.sum(means <= ROUNDING), np.sum(means >= -ROUNDING))
    return Effect(difference, float(low), float(high), min(1.0, 2 * float(nearest) / (1 + RESAMPLES)), method)
