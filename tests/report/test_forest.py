"""The forest plot: places on its axis against the numbers, marks that are there or not, and names that are text."""

from __future__ import annotations

import re
from typing import Any

import pytest

from alexnet_lab.report.figures import differences_figure
from alexnet_lab.report.forest import MARGIN, WIDTH, Gap, forest_svg, gaps, span, ticks
from alexnet_lab.sweeps.summary import Outcome, Summary, summarise

ABOUT: dict[str, Any] = {
    "name": "ideas", "factor": ["sweep.variant"], "metric": "test/top1_error", "paper_points": {"no_lrn": 1.4},
}  # fmt: skip
VALUES = {"base": (0.20, 0.22), "no_lrn": (0.25, 0.272), "<b>": (0.21, 0.209), "one": (0.3,), "nothing": ()}


def summary(values: dict[str, tuple[float, ...]] = VALUES, about: dict[str, Any] = ABOUT) -> Summary:
    found = [
        Outcome({"sweep.variant": name, "seed": str(seed)}, "completed", value, value)
        for name, pair in values.items()
        for seed, value in enumerate(pair)
    ]
    empty = [Outcome({"sweep.variant": name, "seed": "0"}, "failed") for name, pair in values.items() if not pair]
    return summarise(about, [*found, *empty])


def test_differences_are_in_points_with_their_intervals_and_the_papers_number():
    lrn, html, one = gaps(summary())
    assert (lrn.label, html.label, one.label) == ("no_lrn", "<b>", "one")
    assert lrn.mean == pytest.approx(5.1)
    assert (lrn.paper, html.paper) == (1.4, None)
    assert lrn.low is not None
    assert lrn.high is not None
    assert lrn.low < lrn.mean < lrn.high
    assert (one.low, one.high, one.words) == (None, None, "+10.00")
    loss = summary(about=ABOUT | {"metric": "train/loss"})
    assert gaps(loss)[0].mean == pytest.approx(0.051)


def test_marks_lie_where_their_numbers_are_on_the_axis():
    shown = gaps(summary())
    low, high = span(shown)
    assert low <= 0 <= high
    text = str(forest_svg(summary()))

    def place(value: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (min(max(value, low), high) - low) / (high - low)

    circles = [float(x) for x in re.findall(r'<circle class="mean" cx="([\d.]+)"', text)]
    assert circles == pytest.approx([place(gap.mean) for gap in shown], abs=0.06)
    ends = [(float(x), float(y)) for x, y in re.findall(r'class="interval" x1="([\d.]+)" x2="([\d.]+)"', text)]
    assert ends == [
        pytest.approx((place(gap.low), place(gap.high)), abs=0.06)
        for gap in shown
        if gap.low is not None and gap.high is not None
    ]
    assert text.count('<path class="interval"') == sum(
        (gap.low is not None and gap.low < low) + (gap.high is not None and gap.high > high) for gap in shown
    )
    (diamond,) = re.findall(r'class="papers" d="M([\d.]+) ', text)
    assert float(diamond) + 5 == pytest.approx(place(1.4), abs=0.1)
    (zero,) = re.findall(r'class="tick zero" x1="([\d.]+)"', text)
    assert float(zero) == pytest.approx(place(0), abs=0.06)


def test_an_axis_covers_intervals_unless_few_seeds_make_them_wide():
    narrow = Gap("narrow", 1.0, 0.5, 1.5, 2.0, "")
    wide = Gap("wide", -1.0, -90.0, 88.0, None, "")
    assert span([narrow]) == (0.0, 2.0)
    assert span([narrow, wide]) == (-4.0, 5.0)  # the differences and the paper's number span 3
    assert wide.drawn(-4.0, 5.0) == ({"mean": -1.0, "low": -4.0, "high": 5.0}, {"low": True, "high": True})
    assert narrow.drawn(-4.0, 5.0)[1] == {"low": False, "high": False}


def test_names_are_text_and_no_element():
    text = str(forest_svg(summary()))
    assert "<b>" not in text
    assert "&lt;b&gt;" in text


def test_without_a_comparison_there_is_no_plot():
    assert forest_svg(summary({"base": (0.2, 0.3), "other": ()})) == ""
    alone = summarise(ABOUT | {"factor": []}, [Outcome({"seed": "0"}, "completed", 0.1, 0.1)])
    assert forest_svg(alone) == ""


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (-0.3, 2.2, [0.0, 0.5, 1.0, 1.5, 2.0]),
        (0.0, 40.0, [0.0, 10.0, 20.0, 30.0, 40.0]),
        (-0.004, 0.0, [-0.004, -0.003, -0.002, -0.001, 0.0]),
    ],
)
def test_ticks_are_round_numbers(low, high, wanted):
    assert ticks(low, high) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("metric", "unit"),
    [("test/top1_error", ", points"), ("to_error/epochs", ", epochs"), ("to_loss/steps", ", steps"), ("test/loss", "")],
)
def test_the_axis_of_differences_names_the_unit(metric, unit):
    (axes,) = differences_figure([Gap("tanh", 1.0, 0.5, 1.5, None, "")], metric).axes
    assert axes.get_xlabel() == f"{metric}: difference to the base{unit}"
