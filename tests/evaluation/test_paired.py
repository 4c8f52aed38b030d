"""Paired comparisons over images: against scipy, plain loops, closed forms and exact coverage."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from alexnet_lab.evaluation.comparisons import bootstrap, mcnemar


def outcomes(both: int, worse: int, better: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Which images each of two gets wrong, from the four counts."""
    counts = (both, worse, better, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (0, 1), (3, 3), (5, 12), (12, 5), (0, 40), (180, 240), (900, 1)])
def test_mcnemars_p_is_the_binomial_tests(worse, better):
    effect = mcnemar(*outcomes(31, worse, better, 1000))
    expected = binomtest(worse, worse + better).pvalue if worse + better else 1.0
    assert effect.p == pytest.approx(expected, rel=1e-9)
    assert effect.difference == pytest.approx((worse - better) / (1031 + worse + better))
    assert effect.method == "McNemar exact, Bonett-Price interval"


def test_interval_of_proportions_by_hand():
    effect = mcnemar(*outcomes(10, 2, 12, 76))
    middle, either = -10 / 102, 16 / 102
    half = 1.959964 * math.sqrt((either - middle**2) / 102)
    assert effect[:3] == pytest.approx((-0.1, middle - half, middle + half), abs=1e-6)


def test_the_order_of_the_two_turns_the_sign():
    one, other = outcomes(10, 2, 12, 76)
    there, back = mcnemar(one, other), mcnemar(other, one)
    assert np.array(there[:3]) == pytest.approx(-np.array([back[0], back[2], back[1]], dtype=float))
    assert there.p == back.p


@pytest.mark.parametrize("disagreements", range(1, 16))
def test_few_disagreements_are_judged_alike_by_interval_and_p(disagreements):
    """Of 359 images (the digits), with all disagreements on one side; the bootstrap's excludes 0 from 4 on."""
    effect = mcnemar(*outcomes(10, 0, disagreements, 349 - disagreements))
    assert effect.ci95_high is not None
    assert effect.p is not None
    assert (effect.ci95_high < 0) == (effect.p < 0.05)


def test_no_disagreement_is_no_certainty():
    effect = mcnemar(*outcomes(10, 0, 0, 90))
    assert effect[:4] == pytest.approx((0, -0.02717, 0.02717, 1), abs=1e-5)


@pytest.mark.parametrize(("worse", "better"), [(0.02, 0.02), (0.05, 0.15), (0.3, 0.3), (0.02, 0.1)])
def test_coverage_of_the_interval(worse, better):
    """Exact, over all outcomes of 40 images."""
    n, covered = 40, 0.0
    for b in range(n + 1):
        chances = binom.pmf(b, n, worse) * binom.pmf(range(n - b + 1), n - b, better / (1 - worse))
        for c in np.flatnonzero(chances > 1e-7).tolist():
            effect = mcnemar(*outcomes(0, b, c, n - b - c))
            assert effect.ci95_low is not None
            assert effect.ci95_high is not None
            covered += chances[c] * (effect.ci95_low <= worse - better <= effect.ci95_high)
    assert covered > 0.94


def test_bootstrap_is_that_of_resampled_images():
    rng = np.random.default_rng(3)
    wrong = rng.random((5, 400)) < np.linspace(0.1, 0.5, 400)
    gaps = wrong[0] - wrong.mean(0)
    effect = bootstrap(gaps)
    naive = [gaps[rng.integers(0, 400, 400)].mean() for _ in range(10_000)]
    assert effect.difference == pytest.approx(gaps.mean())
    assert effect[1:3] == pytest.approx(np.quantile(naive, [0.025, 0.975]), abs=0.0012)
    assert effect.method == "paired bootstrap, 10,000"


def test_bootstrap_of_many_images_is_the_normal_interval():
    one, other = outcomes(1500, 180, 240, 8080)
    gaps = one.astype(float) - other
    effect = bootstrap(gaps)
    half = 1.96 * gaps.std() / 100
    assert effect[1:3] == pytest.approx((gaps.mean() - half, gaps.mean() + half), abs=1e-4)
    assert effect.p == pytest.approx(math.erfc(gaps.mean() / gaps.std() * -100 / math.sqrt(2)), rel=0.35)


def test_bootstrap_does_not_depend_on_the_order_of_the_images():
    gaps = np.random.default_rng(0).integers(-3, 4, 500) / 7
    assert bootstrap(gaps) == bootstrap(np.sort(gaps)) == bootstrap(gaps[::-1])
    assert bootstrap(gaps) != bootstrap(gaps, seed=1)


def test_sums_in_another_order_are_one_value():
    """0.1 + 0.2 and 0.3 are the same difference; without that each image would be a value of its own."""
    gaps = np.tile([0.1 + 0.2, 0.3], 50)
    assert bootstrap(gaps)[:4] == (pytest.approx(0.3), None, None, None)


def test_equal_differences_have_no_interval():
    assert bootstrap(np.zeros(10))[:4] == (0.0, None, None, None)


def test_p_of_the_bootstrap_is_at_most_one():
    assert bootstrap(np.tile([1.0, -1.0, 0.0], 30)).p == pytest.approx(1, abs=0.05)
    assert bootstrap(np.repeat([1.0, 0.0], [60, 40])).p == pytest.approx(2 / 10_001)


def test_bootstrap_of_ten_thousand_images_is_fast():
    gaps = np.random.default_rng(0).integers(-8, 9, 10_000) / 8
    start = time.process_time()
    bootstrap(gaps)
    assert time.process_time() - start < 2
