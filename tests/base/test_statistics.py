"""Means, deviations and intervals against published quantiles and examples worked out by hand."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from alexnet_lab.base.statistics import Difference, Sample, describe, difference, differences, holm, ratio, t_quantile


def check(found: Difference | None, interval: tuple[float, float, float], pairs: int, method: str) -> None:
    """`interval`: the middle and both ends."""
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx(interval, abs=1e-4)
    assert (found.pairs, found.method) == (pairs, method)


@pytest.mark.parametrize(
    ("freedom", "confidence", "quantile"),
    [  # a table of Student's distribution, two-sided
        (1, 0.95, 12.706), (2, 0.95, 4.303), (3, 0.95, 3.182), (4, 0.95, 2.776), (9, 0.95, 2.262), (30, 0.95, 2.042),
        (120, 0.95, 1.980), (1, 0.90, 6.314), (4, 0.99, 4.604), (10, 0.99, 3.169),
    ],
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(freedom, confidence, quantile):
    assert t_quantile(freedom, confidence) == pytest.approx(quantile, abs=5e-4)


def test_one_degree_of_freedom_is_cauchys():
    assert t_quantile(1) == pytest.approx(math.tan(math.pi * 0.475), rel=1e-12)


def test_two_degrees_of_freedom_have_a_formula():
    p = 0.975
    assert t_quantile(2) == pytest.approx((2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p))), rel=1e-12)


def test_quantile_grows_as_degrees_fall_and_ends_at_the_normal_one():
    quantiles = [t_quantile(freedom) for freedom in (1, 1.5, 2, 3.7, 10, 1e9)]
    assert quantiles == sorted(quantiles, reverse=True)
    assert quantiles[-1] == pytest.approx(1.959964, abs=1e-6)


def test_sample_deviation_divides_by_n_minus_1():
    assert describe([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]) == pytest.approx((8, 5.0, math.sqrt(32 / 7)))


def test_few_results():
    assert describe([]) == Sample(0, None, None)
    assert describe([0.25]) == Sample(1, 0.25, None)


def test_students_own_sleep_data():
    # Extra hours of sleep with two drugs, ten patients: Student 1908; mean difference 1.58, 95 % 0.70 to 2.46.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = difference(dict(enumerate(second)), dict(enumerate(first)))
    check(found, (1.58, 0.7001, 2.4599), 10, "paired")


def test_welch_on_the_sleep_data_as_two_groups():
    # The same numbers without their pairs: R's t.test prints 17.776 degrees, -0.2055 to 3.3655.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = difference(dict(enumerate(second)), dict(enumerate(first, start=100)))
    check(found, (1.58, -0.2055, 3.3655), 0, "welch")


def test_two_pairs_by_hand():
    # gaps 1 and 3: mean 2, deviation sqrt 2, standard error 1, t(1) = 12.706
    check(difference({0: 2.0, 1: 4.0}, {0: 1.0, 1: 1.0}), (2.0, 2 - 12.7062, 2 + 12.7062), 2, "paired")


def test_seeds_without_a_partner_do_not_count_where_others_have_one():
    whole = difference({0: 2.0, 1: 4.0}, {0: 1.0, 1: 1.0})
    assert difference({0: 2.0, 1: 4.0, 7: 99.0}, {0: 1.0, 1: 1.0, 8: -99.0}) == whole


def test_pairing_removes_what_seeds_do_to_both():
    luck = {seed: random.Random(seed).gauss(0.0, 5.0) for seed in range(6)}
    found = difference({seed: value + 0.5 + 0.01 * (seed % 2) for seed, value in luck.items()}, luck)
    half = 2.570582 * 0.01 * math.sqrt(6 * 0.25 / 5) / math.sqrt(6)
    check(found, (0.505, 0.505 - half, 0.505 + half), 6, "paired")


@pytest.mark.parametrize(
    ("values", "base", "mean", "pairs"),
    [({0: 3.0}, {0: 1.0}, 2.0, 1), ({0: 3.0}, {1: 1.0}, 2.0, 0), ({0: 3.0, 1: 5.0}, {2: 1.0}, 3.0, 0)],
    ids=["one pair", "one each", "two against one"],
)
def test_too_few_results_have_no_interval(values, base, mean, pairs):
    assert difference(values, base) == Difference(mean, None, None, pairs, "none")


def test_nothing_to_compare():
    assert difference({}, {0: 1.0}) is None
    assert difference({0: 1.0}, {}) is None


@pytest.mark.parametrize(
    ("values", "base", "pairs"),
    [
        ({0: 0.2, 1: 0.2}, {2: 0.1, 3: 0.1}, 0),
        ({0: 0.2, 1: 0.2}, {0: 0.1, 1: 0.1}, 2),
        ({0: 0.22, 1: 0.23, 2: 0.3}, {0: 0.12, 1: 0.13, 2: 0.2}, 3),  # 0.22 - 0.12 and 0.3 - 0.2 differ by rounding
        ({0: 0.0, 1: 0.0}, {0: -0.1, 1: -0.1}, 2),
    ],
)
def test_equal_differences_have_no_interval(values, base, pairs):
    found = difference(values, base)
    assert found is not None
    assert (found.mean, found.low, found.high) == (pytest.approx(0.1), None, None)
    assert (found.pairs, found.method) == (pairs, "equal")


@pytest.mark.parametrize("pair", [True, False])
def test_intervals_cover_the_truth_as_often_as_they_say(pair):
    draw = random.Random(1)
    covered, trials, truth = 0, 2000, 1.0
    for _ in range(trials):
        luck = [draw.gauss(0, 2) for _ in range(4)]
        base = {seed: luck[seed] + draw.gauss(0, 1) for seed in range(4)}
        values = {seed if pair else seed + 10: luck[seed] + truth + draw.gauss(0, 1) for seed in range(4)}
        if not pair:
            values = {seed: draw.gauss(truth, 3) for seed in values}
        found = difference(values, base)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert covered / trials == pytest.approx(0.95, abs=0.02)


def test_p_of_students_sleep_data():
    # R's t.test: p-value = 0.002833 of the pairs, 0.07939 of the two groups.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    paired = difference(dict(enumerate(second)), dict(enumerate(first)))
    groups = difference(dict(enumerate(second)), dict(enumerate(first, start=100)))
    assert paired is not None
    assert groups is not None
    assert (paired.p, groups.p) == (pytest.approx(0.002833, abs=5e-7), pytest.approx(0.07939, abs=5e-6))


@pytest.mark.parametrize(
    ("values", "adjusted"),
    [  # R: p.adjust(values, "holm")
        ([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06]),
        ([0.005, 0.011, 0.02, 0.04, 0.13], [0.025, 0.044, 0.06, 0.08, 0.13]),
        ([0.7, 0.6], [1.0, 1.0]),
        ([0.04, None, 0.01], [0.08, None, 0.03]),  # the one without a p counts, as if it were the largest
    ],
)
def test_holm(values, adjusted):
    assert holm(values, len(values)) == [None if p is None else pytest.approx(p) for p in adjusted]


def test_differences_that_are_read_together_are_corrected():
    base = {0: 0.0, 1: 0.0, 2: 0.0}
    one, two = {0: 1.0, 1: 2.0, 2: 3.0}, {0: 4.0, 1: 5.0, 2: 5.0}
    alone = difference(one, base)
    assert differences([(one, base)]) == differences([(one, base), ({}, base)])[:1] == [alone]
    found, other = differences([(one, base), (two, base)])
    assert alone is not None
    assert found is not None
    assert other is not None
    assert (found.mean, found.family, alone.family) == (alone.mean, 2, 1)
    assert found.low == pytest.approx(2 - t_quantile(2, 0.975) / math.sqrt(3))
    smaller = difference(two, base)
    assert smaller is not None
    assert (other.p, found.p) == (pytest.approx(2 * (smaller.p or 0)), pytest.approx(alone.p))


def test_intervals_hold_together_as_often_as_they_say():
    rng = random.Random(0)
    missed = 0
    for _ in range(400):
        base = {seed: rng.gauss(0, 1) for seed in range(5)}
        levels = [({seed: rng.gauss(0, 1) for seed in range(5)}, base) for _ in range(6)]
        gaps = [gap for gap in differences(levels) if gap is not None]
        missed += any(gap.low > 0 or gap.high < 0 for gap in gaps if gap.low is not None and gap.high is not None)
    assert missed / 400 < 0.07


@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_the_ends_of_a_ratios_interval_are_where_students_t_begins_to_reject(confidence):
    values, base = {0: 31.0, 1: 36.0, 2: 29.0, 3: 40.0}, {0: 6.0, 1: 7.0, 2: 5.0, 3: 6.0}
    found = ratio(values, base, confidence)
    assert found is not None
    assert found.value == pytest.approx(34 / 6)
    for end in (found.low, found.high):
        assert end is not None
        gaps = [values[seed] - end * base[seed] for seed in base]
        error = statistics.stdev(gaps) / math.sqrt(4)
        assert abs(statistics.fmean(gaps)) / error == pytest.approx(t_quantile(3, confidence))
    assert found.low is not None and found.high is not None and found.low < found.value < found.high  # noqa: PT018


def test_ratios_without_an_interval():
    assert ratio({0: 3.0}, {0: 2.0}) == (1.5, None, None)
    assert ratio({0: 3.0, 1: 5.0}, {2: 2.0, 3: 2.0}) == (2.0, None, None)  # no pairs
    assert ratio({0: 1.0, 1: 2.0}, {0: -1.0, 1: 1.1}) == (pytest.approx(30), None, None)  # a base that may be 0
    assert ratio({0: 12.0, 1: 13.0}, {0: 10.0, 2: 30.0}) == (1.2, None, None)  # one pair, as in `difference`
    assert ratio({0: 1.0}, {0: 0.0}) is None
    assert ratio({}, {0: 1.0}) is None


def test_equal_ratios_have_an_interval_without_width():
    assert ratio({0: 20.0, 1: 22.0, 2: 24.0}, {0: 10.0, 1: 11.0, 2: 12.0}) == pytest.approx((2, 2, 2))
