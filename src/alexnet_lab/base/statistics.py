"""Mean, deviation and differences over seeds, as pure functions of numbers.

Student (W. S. Gosset): The probable error of a mean, Biometrika 6, 1908; B. L. Welch: The generalization of
'Student's' problem when several different population variances are involved, Biometrika 34, 1947; S. Holm: A simple
sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979; E. C. Fieller: Some problems
in interval estimation, Journal of the Royal Statistical Society B 16, 1954.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95

ROUNDING = 1e-12
"""The relative rounding of a number: 0.23 - 0.21 and 0.22 - 0.2 are the same difference."""


class Sample(NamedTuple):
    """Number, mean and deviation of a set of results."""

    n: int
    mean: float | None  # None: nothing was measured
    std: float | None  # of a sample (n - 1); None: n < 2


class Difference(NamedTuple):
    """The mean of one sample minus that of another."""

    mean: float
    low: float | None  # of the interval, or None with too few results
    high: float | None
    pairs: int  # number of results with a partner in the other sample
    method: Literal["paired", "welch", "equal", "none"]  # equal: all differences are equal, so they have no spread
    p: float | None = None  # two-sided; None without an interval
    family: int = 1  # number of differences for which interval and p are corrected


class Ratio(NamedTuple):
    """The mean of one sample divided by that of another."""

    value: float
    low: float | None = None  # of the interval, or None with fewer than two pairs or a base that may be 0
    high: float | None = None


def t_quantile(freedom: float, confidence: float = CONFIDENCE) -> float:
    """The half-width of a two-sided interval in standard errors: Student's t with `freedom` degrees, > 0.

    Example:
        >>> round(t_quantile(4), 3)
        2.776
    """
    return float(stdtrit(freedom, (1 + confidence) / 2))


def describe(values: Sequence[float]) -> Sample:
    """Number, mean and sample deviation of finite numbers."""
    if not values:
        return Sample(0, None, None)
    return Sample(len(values), statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def difference(
    values: Mapping[Any, float], base: Mapping[Any, float], confidence: float = CONFIDENCE
) -> Difference | None:
    """The mean of `values` minus that of `base`, with its interval.

    Results with the same key (a seed: the same initial weights, order and crops) form pairs. With two pairs or more,
    only pairs count: the effect of the seed on both levels cancels. If seeds do not pair, the interval is Welch's,
    which allows different deviations. One result per side gives a difference without an interval. Equal differences
    have no interval either, because they do not show how far others would spread.

    Args:
        values: Results by seed.
        base: The results to compare with.
        confidence: Of the interval.

    Returns:
        None if one of the two is empty.
    """
    if not values or not base:
        return None
    gaps = [values[key] - base[key] for key in values if key in base]
    if len(gaps) > 1:
        centre, half = statistics.fmean(gaps), _half_width(gaps, confidence)
        if half <= ROUNDING * max(abs(value) for value in (*values.values(), *base.values())):
            return Difference(centre, None, None, len(gaps), "equal")
        p = _two_sided(centre, statistics.stdev(gaps) / math.sqrt(len(gaps)), len(gaps) - 1)
        return Difference(centre, centre - half, centre + half, len(gaps), "paired", p)
    if not gaps and len(values) > 1 and len(base) > 1:
        return _welch(list(values.values()), list(base.values()), confidence)
    centre = gaps[0] if gaps else statistics.fmean(values.values()) - statistics.fmean(base.values())
    return Difference(centre, None, None, len(gaps), "none")


def ratio(values: Mapping[Any, float], base: Mapping[Any, float], confidence: float = CONFIDENCE) -> Ratio | None:
    """The mean of `values` divided by that of `base`, with Fieller's interval over the pairs.

    As in `difference`, only pairs count if there are any. With two pairs or more, the interval contains the ratios r
    for which the mean of value - r * base differs from 0 by no more than Student's t allows.

    Args:
        values: Results by seed.
        base: The results to divide by.
        confidence: Of the interval.

    Returns:
        None if one of the two is empty, or the base's mean is 0.

    Example:
        >>> ratio({0: 2.0, 1: 4.0}, {0: 1.0, 1: 2.0}).value
        2.0
    """
    shared = [key for key in values if key in base]
    tops, bottoms = ([part[key] for key in shared or part] for part in (values, base))
    if not tops or not bottoms or not statistics.fmean(bottoms):
        return None
    top, bottom = statistics.fmean(tops), statistics.fmean(bottoms)
    if len(shared) < 2:
        return Ratio(top / bottom)
    scale = t_quantile(len(shared) - 1, confidence) ** 2 / len(shared)
    square = bottom**2 - scale * statistics.variance(bottoms)
    linear = top * bottom - scale * statistics.covariance(tops, bottoms)
    constant = top**2 - scale * statistics.variance(tops)
    if square <= 0:  # the base's own interval contains 0
        return Ratio(top / bottom)
    half = math.sqrt(max(0.0, linear**2 - square * constant))
    return Ratio(top / bottom, (linear - half) / square, (linear + half) / square)


def _half_width(gaps: list[float], confidence: float) -> float:
    return t_quantile(len(gaps) - 1, confidence) * statistics.stdev(gaps) / math.sqrt(len(gaps))


def _welch(values: list[float], base: list[float], confidence: float) -> Difference:
    """Welch's interval, with the degrees of freedom of Welch and Satterthwaite."""
    centre = statistics.fmean(values) - statistics.fmean(base)
    parts = [statistics.variance(sample) / len(sample) for sample in (values, base)]  # squared standard errors
    total = sum(parts)
    if total <= (ROUNDING * max(map(abs, (*values, *base)))) ** 2:
        return Difference(centre, None, None, 0, "equal")
    spread = sum(part**2 / (len(sample) - 1) for part, sample in zip(parts, (values, base), strict=True))
    freedom, error = total**2 / spread, math.sqrt(total)
    half = t_quantile(freedom, confidence) * error
    return Difference(centre, centre - half, centre + half, 0, "welch", _two_sided(centre, error, freedom))


def _two_sided(mean: float, error: float, freedom: float) -> float:
    """The probability of a mean at least as far from 0 if there is no difference."""
    return float(2 * stdtr(freedom, -abs(mean) / error))


def differences(pairs: Sequence[tuple[Mapping[Any, float], Mapping[Any, float]]]) -> list[Difference | None]:
    """Differences that are read together, such as those of a table's levels from its base.

    One in twenty 95 % intervals misses by chance. The intervals therefore hold for all differences together
    (Bonferroni: each has a confidence of 1 - 0.05 / family). p is adjusted by Holm's method, which is sharper: it may
    show a difference whose interval still contains 0.

    Args:
        pairs: Results by seed, and the results to compare with.

    Returns:
        One per pair; None if one side is empty.
    """
    alone = [difference(*pair) for pair in pairs]
    family = sum(gap is not None and gap.low is not None for gap in alone)
    if family < 2:
        return alone
    together = [difference(*pair, confidence=1 - (1 - CONFIDENCE) / family) for pair in pairs]
    adjusted = holm([gap.p if gap else None for gap in together], family)
    return [gap and gap._replace(p=p, family=family) for gap, p in zip(together, adjusted, strict=True)]


def holm(values: Sequence[float | None], family: int) -> list[float | None]:
    """Holm's adjusted p values: the smallest times `family`, the next times `family - 1`, ..., monotone, at most 1.

    Example:
        >>> holm([0.01, 0.04, 0.03], 3)
        [0.03, 0.06, 0.06]
    """
    adjusted: list[float | None] = list(values)
    most = 0.0
    for place, (p, index) in enumerate(sorted((p, index) for index, p in enumerate(values) if p is not None)):
        most = max(most, min(1.0, (family - place) * p))
        adjusted[index] = most
    return adjusted
