"""docs/results.md and the README say what the published sweeps' tables say."""

from __future__ import annotations

import csv
import re

import pytest
from commands import REPOSITORY

STATED = re.compile(
    r"`(?P<level>[\w.]+)`:\s(?P<mean>[+-]\d+\.\d) points \((?P<low>[+-]\d+\.\d) to (?P<high>[+-]\d+\.\d)\)"
)
SWEEP = REPOSITORY / "results" / "ideas_imagenette"


def rounded(row: dict[str, str], *columns: str) -> tuple[str, ...]:
    return tuple(f"{100 * float(row[column]):+.1f}" for column in columns)


@pytest.mark.parametrize(("page", "least"), [("docs/results.md", 16), ("README.md", 3)])
def test_numbers_on_a_page_are_those_of_the_sweep(page, least):
    with (SWEEP / "summary.csv").open() as file:
        rows = {row["level"]: row for row in csv.DictReader(file)}
    text = (REPOSITORY / page).read_text()
    stated = [found.groups() for found in STATED.finditer(text)]
    assert len(stated) >= least
    for level, *numbers in stated:
        assert tuple(numbers) == rounded(rows[level], "difference", "ci95_low", "ci95_high"), level
    seeds = {row["n"] for row in rows.values()}
    assert len(seeds) == 1
    assert f"{seeds.pop()} seeds" in text
    base = rounded(rows["all_ideas"], "mean")[0].removeprefix("+")
    assert f"{base} %" in text


def test_errors_of_the_lenets_are_those_of_their_sweep():
    with (REPOSITORY / "results" / "lenet5" / "summary.csv").open() as file:
        rows = {row["level"]: row for row in csv.DictReader(file)}
    text = (REPOSITORY / "docs" / "results.md").read_text()
    stated = re.findall(r"^\| `(lenet5_\w+)` \|.*\| (\S+) % \| (\S+) \|$", text, re.MULTILINE)
    assert [level for level, *_ in stated] == list(rows)
    for level, mean, deviation in stated:
        assert (mean, deviation) == tuple(f"{100 * float(rows[level][column]):.2f}" for column in ("mean", "std"))
