"""The comparisons of an evaluation: rows with intervals that eval.py prints and `eval/<name>.json` lists.

Two classifications of the same images are compared image by image. Sources: Q. McNemar, Note on the sampling error of
the difference between correlated proportions, Psychometrika 12, 1947; D. G. Bonett and R. M. Price, Adjusted Wald
confidence interval for a difference of binomial proportions based on paired data, Journal of Educational and Behavioral
Statistics 37, 2012; B. Efron and R. J. Tibshirani, An introduction to the bootstrap, 1993.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import bdtr

from alexnet_lab.base.random import generator
from alexnet_lab.base.ranges import TOP_K
from alexnet_lab.base.statistics import CONFIDENCE, ROUNDING, difference
from alexnet_lab.evaluation.error_rates import NORMAL_QUANTILE
from alexnet_lab.evaluation.kernels import PERMUTATIONS, Kernels, tower_test
from alexnet_lab.evaluation.predict import Predictions
from alexnet_lab.run.run_files import error_names
from alexnet_lab.training.metrics import ranks

Values = NDArray[Any]  # bool or float64

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


Unit = Literal["images", "queries", "runs", "kernels"]

SPEAKS_OF: dict[Unit, str] = {
    "images": "other images, with these networks",
    "queries": "other queries, with these networks",
    "runs": "other seeds, on these images",
    "kernels": "whether the tower matters to a kernel of these networks",
}
"""What an interval or p over each unit covers."""


class Comparison(NamedTuple):
    """One difference in the metric's own unit (errors are fractions), with its interval and p."""

    metric: str
    compared: str  # minuend and subtrahend
    over: Unit
    n: int  # number of these units
    mean: float  # of the minuend
    base: float  # of the subtrahend
    effect: Effect
    runs: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Its fields, with those of `effect` at the same level."""
        more = {"runs": [*self.runs], "speaks_of": SPEAKS_OF[self.over]}
        fields = self._asdict() | self.effect._asdict() | more
        return {name: value for name, value in fields.items() if name != "effect"}


def paired(
    metric: str, compared: str, runs: Sequence[str], one: Values, base: Values, *, unit: Unit = "images"
) -> list[Comparison]:
    """Compares two results per run and image: of one run over its images; of R runs over images, over runs, and each.

    Args:
        metric: Its name.
        compared: Minuend and subtrahend.
        runs: Names of the runs (R,).
        one: (R, N), the minuend. Booleans are wrong answers, for McNemar's test.
        base: (R, N), the subtrahend.
        unit: What the N are.
    """
    images = one.shape[1]
    each = [
        Comparison(metric, compared, unit, images, float(a.mean()), float(b.mean()), _effect(a, b), (name,))
        for name, a, b in zip(runs, one, base, strict=True)
    ]
    if len(runs) == 1:
        return each
    start = Comparison(metric, compared, unit, images, float(one.mean()), float(base.mean()), each[0].effect, (*runs,))
    by_image = bootstrap((one.astype(float) - base).mean(0))
    by_run = over_runs(one.mean(1), base.mean(1))
    return [start._replace(effect=by_image), start._replace(over="runs", n=len(runs), effect=by_run), *each]


def _effect(one: Values, base: Values) -> Effect:
    return mcnemar(one, base) if one.dtype == bool else bootstrap(one.astype(float) - base)


def over_runs(one: NDArray[np.float64], base: NDArray[np.float64]) -> Effect:
    """The mean difference of pairs (R,), R > 1, with Student's interval, or none if all differences are equal."""
    found = difference(dict(enumerate(one.tolist())), dict(enumerate(base.tolist())))
    assert found is not None  # noqa: S101 - there is at least one run
    return Effect(found.mean, found.low, found.high, found.p, f"Student t over {len(one)} runs")


def error_comparisons(
    runs: Sequence[str], each: Sequence[Predictions], together: Predictions, views: str
) -> list[Comparison]:
    """For each error rate: several views against the centre view, and the ensemble against a single run.

    Args:
        runs: Their names.
        each: The predictions of each run.
        together: The predictions of the ensemble.
        views: The views of `each`.
    """
    found = []
    for metric in error_names(together.metrics):
        single = np.stack([wrong(ranks(seen.logits, seen.labels), metric) for seen in each])
        if views != "center":
            base = np.stack([wrong(seen.center_ranks, metric) for seen in each])
            found += paired(metric, f"views={views} - views=center", runs, single, base)
        if len(runs) > 1:
            joint = wrong(ranks(together.logits, together.labels), metric)
            mean, base = float(joint.mean()), float(single.mean())
            effect = bootstrap(joint - single.mean(0))
            compared = "average of the runs - mean single run"
            found.append(Comparison(metric, compared, "images", len(joint), mean, base, effect, (*runs,)))
    return found


def wrong(label_ranks: torch.Tensor, metric: str) -> NDArray[np.bool_]:
    """Which images (N,) are errors of a metric, `.../top1_error` or `.../top5_error`, given the label ranks (N,)."""
    return (label_ranks >= (TOP_K if metric.endswith("top5_error") else 1)).numpy()


def tower_comparisons(runs: Sequence[str], each: Sequence[Kernels]) -> list[Comparison]:
    """Compares the colour saturations of two towers, over all runs first, then in each run; see `tower_test`.

    The distance exceeds 0 by chance too, so it is compared with its expectation under the null hypothesis. p comes from
    the permutation test. With several runs the interval is Student's, over their distances minus chance.
    """
    test = tower_test([kernels.saturations for kernels in each])
    what = ("colour_saturation", "distance of the towers - by chance")
    method = f"permutation within runs, {PERMUTATIONS:,}"
    found = [
        Comparison(*what, "kernels", sum(map(len, kernels.towers)), gap, chance,
                   Effect(gap - chance, None, None, p, method), (run,))
        for run, kernels, gap, chance, p in zip(runs, each, test.gaps, test.chances, test.p_of_runs, strict=True)
    ]  # fmt: skip
    if len(runs) == 1:
        return found
    over = over_runs(np.array(test.gaps), np.array(test.chances))
    over = over._replace(p=test.p, method=f"{method}; interval: {over.method}")
    return [Comparison(*what, "runs", len(runs), test.gap, test.chance, over, (*runs,)), *found]
