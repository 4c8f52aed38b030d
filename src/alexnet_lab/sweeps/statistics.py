"""Mean, deviation and differences over seeds: pure functions of numbers.

Student (W. S. Gosset): The probable error of a mean, Biometrika 6, 1908; B. L. Welch: The generalization of
'Student's' problem when several different population variances are involved, Biometrika 34, 1947.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from scipy.special import stdtrit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONFIDENCE = 0.95


class Sample(NamedTuple):
    """What a set of results comes to."""

    n: int
    mean: float | None  # None: nothing was measured
    std: float | None  # of a sample (n - 1); None: n < 2


class Difference(NamedTuple):
    """How far the mean of one sample lies above that of another."""

    mean: float
    low: float | None  # of the interval; None: too few results for one
    high: float | None
    pairs: int  # how many results of one sample have a partner in the other
    method: Literal["paired", "welch", "none"]


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

    Results under the same key (a seed: the same first weights, order and crops) form pairs, and where there are two
    pairs or more nothing else counts: what the seeds do to both levels alike drops out. Where seeds do not pair, the
    interval is Welch's, which lets the two deviations differ. One result a side has a difference, but no interval.

    Args:
        values: Results by seed.
        base: Those compared with.
        confidence: Of the interval.

    Returns:
        None where one of the two is empty.
    """
    if not values or not base:
        return None
    gaps = [values[key] - base[key] for key in values if key in base]
    if len(gaps) > 1:
        centre, half = statistics.fmean(gaps), _half_width(gaps, confidence)
        return Difference(centre, centre - half, centre + half, len(gaps), "paired")
    if not gaps and len(values) > 1 and len(base) > 1:
        return _welch(list(values.values()), list(base.values()), confidence)
    centre = gaps[0] if gaps else statistics.fmean(values.values()) - statistics.fmean(base.values())
    return Difference(centre, None, None, len(gaps), "none")


def _half_width(gaps: list[float], confidence: float) -> float:
    return t_quantile(len(gaps) - 1, confidence) * statistics.stdev(gaps) / math.sqrt(len(gaps))


def _welch(values: list[float], base: list[float], confidence: float) -> Difference:
    """Welch's interval, with the degrees of freedom of Welch and Satterthwaite."""
    centre = statistics.fmean(values) - statistics.fmean(base)
    parts = [statistics.variance(sample) / len(sample) for sample in (values, base)]  # squared standard errors
    total = sum(parts)
    if total == 0:
        return Difference(centre, centre, centre, 0, "welch")
    spread = sum(part**2 / (len(sample) - 1) for part, sample in zip(parts, (values, base), strict=True))
    half = t_quantile(total**2 / spread, confidence) * math.sqrt(total)
    return Difference(centre, centre - half, centre + half, 0, "welch")
