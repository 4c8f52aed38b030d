"""Runs on different kinds of hardware are no pair: the difference leaves them out, and the table says how many."""

from __future__ import annotations

import csv

import pytest

from alexnet_lab.run.run_files import computed_on
from alexnet_lab.sweeps.summary import Outcome, Row, summarise
from alexnet_lab.sweeps.summary_tables import csv_text, markdown

ABOUT = {"name": "norm", "factor": ["norm"], "metric": "test/top1_error"}

BASE = (0.10, 0.12, 0.14, 0.16)
OTHER = (0.20, 0.23, 0.24, 0.27)


def outcomes(base: str, other: str, factor: str = "norm") -> list[Outcome]:
    """Two levels; a letter for the hardware of each seed, a blank for a seed that is missing."""
    return [
        Outcome({factor: level, "seed": str(seed)}, "completed", value, value, (), kind)
        for level, values, kinds in (("lrn", BASE, base), ("none", OTHER, other))
        for seed, (value, kind) in enumerate(zip(values, kinds, strict=True))
        if kind != " "
    ]


def compared(base: str, other: str) -> Row:
    return summarise(ABOUT, outcomes(base, other)).rows[1]


@pytest.mark.parametrize(
    ("base", "other", "expected", "apart"),
    [
        ("AAAA", "AAAA", (4, "paired", 0.105), 0),
        ("AABB", "AABB", (4, "paired", 0.105), 0),  # each pair on one kind
        ("AAAA", "AAAB", (3, "paired", 0.31 / 3), 1),
        ("AAAB", "AABA", (2, "paired", 0.105), 2),
        ("AA  ", "  AA", (0, "welch", 0.145), 0),  # no seed in common
        ("AAB ", "  AA", (0, "none", 0.27 - 0.11), 1),  # seed 2 on the other kind; seed 3 without a partner
    ],
)
def test_a_pair_is_on_one_kind_of_hardware(base, other, expected, apart):
    row = compared(base, other)
    assert row.against_base is not None
    assert (row.against_base.pairs, row.against_base.method) == expected[:2]
    assert row.against_base.mean == pytest.approx(expected[2])
    assert row.counts["other_hardware"] == apart
    assert row.sample.n == sum(kind != " " for kind in other)  # all of them count in the mean


@pytest.mark.parametrize(("base", "other"), [("AAAA", "BBBB"), ("AA  ", "  BB"), ("AABB", "BBAA")])
def test_without_common_hardware_there_is_no_difference(base, other):
    row = compared(base, other)
    assert row.against_base is None
    assert row.counts["other_hardware"] == row.sample.n


def test_the_table_says_how_many_and_why():
    summary = summarise(ABOUT, outcomes("AAAA", "AABB"))
    text = markdown(summary)
    assert "2 on other hardware than the base's" in text
    assert "a pair only if the same kind of hardware (processor or GPU) computed both" in text
    (_, row) = csv.DictReader(csv_text(summary).splitlines())
    assert (row["n"], row["pairs"], row["other_hardware"]) == ("4", "2", "2")
    assert "hardware" not in markdown(summarise(ABOUT, outcomes("AABB", "AABB")))


def test_an_effect_of_one_of_several_factors_is_taken_within_one_kind():
    about = ABOUT | {"factor": ["norm", "pool"]}
    cells = (("a", "x", "AAA", 0), ("a", "y", "AAA", 1), ("b", "x", "AAB", 2), ("b", "y", "AAA", 4))
    jobs = [
        Outcome({"norm": norm, "pool": pool, "seed": str(seed)}, "completed", value, value, (), kind)
        for norm, pool, kinds, first in cells
        for seed, (kind, value) in enumerate(zip(kinds, (first + 0.1, first + 0.3, first + 9.0), strict=True))
    ]  # fmt: skip
    effects = {effect.key: effect.against_base for effect in summarise(about, jobs).effects}
    assert {key: (gap.pairs, round(gap.mean, 9)) for key, gap in effects.items()} == {
        "norm": (2, 2.5),
        "pool": (2, 1.5),
    }


@pytest.mark.parametrize(
    ("hardware", "kind"),
    [
        ({"device": "H100", "processor": "EPYC", "gpus": ["H100"]}, "H100"),
        ({"device": "EPYC", "processor": "EPYC", "gpus": ["H100"]}, "EPYC"),  # the processor, beside an idle GPU
        ({"device": "", "processor": "EPYC", "gpus": ["H100"]}, "H100"),  # of an older version
        ({"processor": "EPYC", "gpus": []}, "EPYC"),
        (None, ""),
    ],
)
def test_the_manifest_says_what_computed(hardware, kind):
    assert computed_on({"hardware": hardware}) == kind
    assert computed_on({}) == ""
