"""docs/results.md, docs/more_results.md and the README say what the published sweeps' tables say."""

from __future__ import annotations

import csv
import json
import re
from typing import Any

import pytest
from commands import REPOSITORY

STATED = re.compile(
    r"`(?P<level>[\w.]+)`:\s+(?P<mean>[+-]\d+\.\d)\s+points\s+\((?P<low>[+-]\d+\.\d)\s+to\s+(?P<high>[+-]\d+\.\d)\)"
)
SECTIONS = {
    "## On CIFAR-10": "ideas_cifar10",
    "## With half of the maps": "ideas_half",
    "## With half of the maps: ReLU and towers": "ideas_half_cpu",
    "## 18 or 19 %: norms within maps": "norms_cifar",
}
"""Sections on another sweep than `ideas_imagenette`."""


def rounded(row: dict[str, str], *columns: str) -> tuple[str, ...]:
    return tuple(f"{100 * float(row[column]):+.1f}" for column in columns)


def summary(sweep: str) -> dict[str, dict[str, str]]:
    with (REPOSITORY / "results" / sweep / "summary.csv").open() as file:
        return {row["level"]: row for row in csv.DictReader(file)}


def sections(page: str) -> dict[str, str]:
    """The text of a page by the sweep that it is about."""
    found = dict.fromkeys(["ideas_imagenette", *SECTIONS.values()], "")
    for part in re.split(r"^(?=## )", (REPOSITORY / page).read_text(), flags=re.MULTILINE):
        found[SECTIONS.get(part.partition("\n")[0], "ideas_imagenette")] += part
    return found


@pytest.mark.parametrize(
    ("page", "sweep", "least"),
    [
        ("docs/results.md", "ideas_imagenette", 16),
        ("docs/more_results.md", "ideas_cifar10", 11),
        ("docs/more_results.md", "ideas_half", 2),
        ("docs/more_results.md", "ideas_half_cpu", 3),
        ("docs/more_results.md", "norms_cifar", 1),
        ("README.md", "ideas_imagenette", 3),
    ],
)
def test_numbers_on_a_page_are_those_of_the_sweep(page, sweep, least):
    rows, text = summary(sweep), sections(page)[sweep]
    stated = [found.groups() for found in STATED.finditer(text)]
    assert len(stated) >= least
    for level, *numbers in stated:
        assert tuple(numbers) == rounded(rows[level], "difference", "ci95_low", "ci95_high"), level
    seeds = {rows[level]["n"] for level, *_ in stated}
    assert len(seeds) == 1
    assert f"{seeds.pop()} seeds" in text
    base = rounded(next(row for row in rows.values() if not row["difference"]), "mean")[0].removeprefix("+")
    assert f"{base} %" in text


EVALUATED = {"**Ten views**": ("ten_views", "views=ten"), "**Five networks": ("ensemble", "average of"),
             "**Ten nearest": ("retrieval", "features - pixels")}  # fmt: skip
"""Which comparison a line of docs/more_results.md states."""


def compared(file: str, what: str, over: str) -> dict[str, Any]:
    rows = json.loads((REPOSITORY / "results" / "evaluations" / f"{file}.json").read_text())["comparisons"]
    return next(row for row in rows if row["over"] == over and row["compared"].startswith(what))


@pytest.mark.parametrize("start", EVALUATED)
def test_what_evaluations_found(start):
    row = compared(*EVALUATED[start], "queries" if "nearest" in start else "images")
    text = (REPOSITORY / "docs" / "more_results.md").read_text()
    line = text.partition(f"- {start}")[2].partition("\n- ")[0]
    numbers = re.search(r"([+-]\d+\.\d) points \(([+-]\d+\.\d) to ([+-]\d+\.\d)\)", line)
    assert numbers
    assert list(numbers.groups()) == [f"{100 * row[name]:+.1f}" for name in ("difference", "ci95_low", "ci95_high")]
    if "nearest" in start:
        shares = [row["mean"], row["base"], compared("retrieval", "codes - pixels", "queries")["mean"]]
        assert re.findall(r"(\d+\.\d) %", line) == [f"{100 * share:.1f}" for share in shares]


def test_colour_of_the_towers():
    row = compared("towers", "distance of the towers", "runs")
    line = (REPOSITORY / "docs" / "more_results.md").read_text().partition("- **Colour in one tower**")[2]
    numbers = [
        f"{row['mean']:.2f}",
        f"{row['base']:.2f}",
        f"{row['p']:.2f}",
        f"{row['ci95_low']:+.2f}",
        f"{row['ci95_high']:+.2f}",
    ]
    assert re.findall(r"[+-]?\d\.\d\d", line.partition("\n\n")[0]) == numbers


def test_lrn_and_the_maps_of_local3():
    rows = summary("lrn_cifar")
    text = " ".join(
        (REPOSITORY / "docs" / "more_results.md").read_text().partition("## 13 or 11 %")[2].partition("## ")[0].split()
    )
    found = re.findall(r"(?:alone|Both): ([+-]\d+\.\d) points \(([+-]\d+\.\d) to ([+-]\d+\.\d)\)", text)
    levels = ("norm=across local3=32", "norm=none local3=64", "norm=across local3=64")
    assert found == [rounded(rows[level], "difference", "ci95_low", "ci95_high") for level in levels]
    assert f"{rounded(rows['norm=none local3=32'], 'mean')[0][1:]} % test error" in text
    assert f"{rows['norm=none local3=32']['n']} seeds" in text
    alone, seeds = rows["norm=across local3=32"], rows["norm=across local3=32"]["n"]
    mean, low, high = rounded(alone, "difference", "ci95_low", "ci95_high")
    assert (
        f"lowers the test error: {mean} points ({low} to {high}, {seeds} seeds)"
        in (REPOSITORY / "README.md").read_text()
    )


def test_a_page_of_one_level_speaks_of_no_comparison():
    text = (REPOSITORY / "results" / "ideas_imagenette_base" / "README.md").read_text()
    assert "| all | 8 | 33.26 | 1.20 |" in text
    assert [word for word in ("Claim", "comparison", "difference to", "verdict", "interval") if word in text] == []


@pytest.mark.parametrize("page", ["docs/results.md", "docs/more_results.md", "README.md"])
def test_ratio_of_figure_1_is_that_of_its_sweep(page):
    row = summary("relu_vs_tanh")["tanh"]
    text = (REPOSITORY / page).read_text()
    (stated,) = re.findall(r"(\d+\.\d) times as many epochs\s\((\d+\.\d) to (\d+\.\d), (\d+) seeds\)", text)
    numbers = [f"{float(row[name]):.1f}" for name in ("ratio", "ratio_ci95_low", "ratio_ci95_high")]
    assert list(stated) == [*numbers, row["n"]]


def test_errors_of_the_lenets_are_those_of_their_sweep():
    rows = summary("lenet5")
    text = (REPOSITORY / "docs" / "more_results.md").read_text()
    stated = re.findall(r"^\| `(lenet5_\w+)` \|.*\| (\S+) % \| (\S+) \|$", text, re.MULTILINE)
    assert [level for level, *_ in stated] == list(rows)
    for level, mean, deviation in stated:
        assert (mean, deviation) == tuple(f"{100 * float(rows[level][column]):.2f}" for column in ("mean", "std"))
