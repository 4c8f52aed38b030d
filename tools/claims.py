"""Writes results/README.md: the 19 claims of the 2012 paper beside our numbers, one table.

`python tools/claims.py`. The claims and the places of our results are in results/claims.yaml; every number of ours is
read from a sweep's files or from an evaluation's, or counted. What is not there yet is "not run yet".
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from alexnet_lab.base.files import write_text
from alexnet_lab.base.statistics import Difference
from alexnet_lab.models import AlexNet
from alexnet_lab.models.counts import num_neurons, num_parameters
from alexnet_lab.report.readme import commands
from alexnet_lab.report.sources import from_sweep
from alexnet_lab.report.text_tables import summary_of
from alexnet_lab.sweeps.summary_tables import Units, interval, level_label, probability, times, verdict

if TYPE_CHECKING:
    from alexnet_lab.report.comparison import Study

RESULTS = Path(__file__).parents[1] / "results"

NOT_RUN = "not run yet"

HEAD = ("#", "claim", "the paper", "ours: what", "difference (95 % interval)", "n", "verdict", "command")

INTRODUCTION = """\
<!-- `python tools/claims.py` writes this page from claims.yaml and the files below: edit those, and run it again. -->
# What the paper claims, and what we find

The claims of Krizhevsky, Sutskever and Hinton 2012 that have a number or a direction. *Difference*: of the level named
to its sweep's base, over pairs of runs with the same seed, error rates in points; the interval is corrected for all
comparisons of its sweep (Bonferroni), and n counts the pairs. *supported*, *contradicted*: the whole interval lies on
the claim's side of 0, or on the other; *undecided*: it contains 0. *higher*, *lower*: likewise, where the claim
compares something else. Each sweep's page says what was run, on what, how to add seeds, and what differs from the
paper. The commands with `eval.py` need checkpoints, which are not published: train the sweep first, with a
`hydra.sweep.dir` of your own in place of `results/NAME`.
"""


class Strict(BaseModel):
    """A part of claims.yaml: no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Place(Strict):
    """What makes a sweep or an evaluation."""

    what: str
    command: str


class Ours(Strict):
    """Where a result of ours is: one of `sweep`, `evaluation` and `exact`."""

    sweep: str | None = None
    level: str | None = None
    metric: str | None = None
    evaluation: str | None = None
    compared: str | None = None
    over: str | None = None
    exact: Literal["parameters", "neurons"] | None = None
    expects: Literal["higher", "lower"] | None = None
    what: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Ours:
        if sum(item is not None for item in (self.sweep, self.evaluation, self.exact)) != 1:
            raise ValueError("one of `sweep`, `evaluation` and `exact`")
        if (self.sweep is None) != (self.level is None):
            raise ValueError("`level` with `sweep`")
        if self.evaluation is not None and None in (self.metric, self.compared, self.over):
            raise ValueError("`metric`, `compared` and `over` with `evaluation`")
        return self


class Claim(Strict):
    """A claim of the paper."""

    number: int
    claim: str
    paper: str
    section: str
    ours: list[Ours] = []
    command: str | None = None
    cost: str | None = None


class Claims(Strict):
    """claims.yaml."""

    sweeps: dict[str, Place]
    evaluations: dict[str, Place]
    claims: list[Claim]


class Comparison(BaseModel):
    """What is read of one comparison of an evaluation's JSON."""

    metric: str
    compared: str
    over: str
    n: int
    difference: float
    ci95_low: float | None
    ci95_high: float | None
    p: float | None
    method: str


class Evaluation(BaseModel):
    """What is read of an evaluation's JSON: of several runs, the comparisons of all of them come first."""

    comparisons: list[Comparison]


@dataclass(frozen=True)
class Result:
    """A row's cells about a result of ours."""

    what: str
    command: str
    difference: str = NOT_RUN
    n: str = ""
    verdict: str = ""

    def cells(self) -> list[str]:
        """In the order of the table."""
        return [self.what, self.difference, self.n, self.verdict, f"`{self.command}`"]


def read_claims(folder: Path) -> Claims:
    """claims.yaml of a folder; raises pydantic's ValidationError."""
    return Claims.model_validate(yaml.safe_load((folder / "claims.yaml").read_text(encoding="utf-8")))


def page(folder: Path = RESULTS) -> str:
    """The text of results/README.md.

    Args:
        folder: With claims.yaml, the sweeps and the evaluations.
    """
    known = read_claims(folder)
    lines = [HEAD, ["---"] * len(HEAD)]
    for claim in known.claims:
        first = [str(claim.number), claim.claim, f"{claim.paper} ({claim.section})"]
        for cells in _rows(claim, known, folder):
            lines.append([*first, *cells])
            first = ["", "", ""]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{INTRODUCTION}\n{table}\n"


def _rows(claim: Claim, known: Claims, folder: Path) -> list[list[str]]:
    """A row for each result of ours, and one for what needs more than two cores."""
    rows = [_result(ours, known, folder).cells() for ours in claim.ours]
    if claim.cost is not None:
        rows.append(["on the paper's data", f"{NOT_RUN}: {claim.cost}", "", "", f"`{claim.command}`"])
    return rows


def _result(ours: Ours, known: Claims, folder: Path) -> Result:
    if ours.sweep is not None:
        return _of_sweep(ours, ours.sweep, known.sweeps[ours.sweep], folder)
    if ours.evaluation is not None:
        return _of_evaluation(ours, ours.evaluation, known.evaluations[ours.evaluation], folder)
    return _exact(ours)


def _of_sweep(ours: Ours, name: str, place: Place, folder: Path) -> Result:
    """A row of a sweep's table; raises ValueError where the sweep has no such level."""
    words = [ours.level or "", ours.metric or "", ours.what]
    what = f"{place.what}: {', '.join(filter(None, words))}"
    command = f"{place.command} hydra.sweep.dir=results/{name}"
    if not (folder / name / "sweep.json").exists():
        return Result(what, command)
    study = study_of(folder / name)
    metric = ours.metric or study.metric
    summary = summary_of(study, metric)
    row = next((row for row in summary.rows if level_label(row) == ours.level), None)
    if row is None:
        levels = ", ".join(level_label(row) for row in summary.rows)
        raise ValueError(f"results/{name} has no level {ours.level}; it has {levels}")
    expects = ours.expects if "expects" in ours.model_fields_set else study.definition.get("expects")
    found = Result(f"[{what}]({name}/README.md)", commands(study, folder / name)[0])
    gap = row.against_base
    if gap is None:
        return found
    ratio = f", {times(row.ratio)}" if row.ratio and not Units(metric).per_cent else ""
    return _with_numbers(replace(found, n=str(gap.pairs or row.sample.n)), gap, metric, expects, ratio)


@cache
def study_of(folder: Path) -> Study:
    """A sweep, read once."""
    return from_sweep(folder)


def _of_evaluation(ours: Ours, name: str, place: Place, folder: Path) -> Result:
    what = ", ".join(filter(None, [place.what, ours.what]))
    path = folder / "evaluations" / f"{name}.json"
    if not path.exists():
        return Result(what, place.command)
    rows = Evaluation.model_validate_json(path.read_text(encoding="utf-8")).comparisons
    row = next((row for row in rows if _is_meant(row, ours)), None)
    if row is None:
        there = "; ".join(f"{row.metric}, {row.compared}, over {row.over}" for row in rows)
        raise ValueError(f"{path} does not compare {ours.metric}, {ours.compared}, over {ours.over}; it has {there}")
    found = Result(f"[{what}](evaluations/{name}.json)", place.command, n=f"{row.n:,} {row.over}")
    gap = Difference(row.difference, row.ci95_low, row.ci95_high, row.n, "none", row.p)
    if row.ci95_low is not None:
        return _with_numbers(found, gap, row.metric, ours.expects, f", {row.method}")
    text = f"{Units(row.metric).signed(row.difference)} (p {row.p:.2g}), {row.method}" if row.p is not None else ""
    return replace(found, difference=text, verdict=_by_p(row, ours.expects))


def _is_meant(row: Comparison, ours: Ours) -> bool:
    return row.metric == ours.metric and row.over == ours.over and (ours.compared or "") in row.compared


def _by_p(row: Comparison, expects: str | None) -> str:
    """The verdict of a test without an interval, at 5 %."""
    if row.p is None or row.p >= 0.05:
        return "undecided"
    found = "higher" if row.difference > 0 else "lower"
    return found if expects is None else "supported" if found == expects else "contradicted"


def _with_numbers(found: Result, gap: Difference, metric: str, expects: str | None, more: str) -> Result:
    units = Units(metric)
    p = f", p {probability(gap)}" if probability(gap) else ""
    text = f"{units.signed(gap.mean)} ({interval(gap, units)}{p}){more}"
    return replace(found, difference=text, verdict=verdict(gap, expects))


def _exact(ours: Ours) -> Result:
    """A count of the paper's network at 224 px with 1,000 classes."""
    with torch.device("meta"):
        net = AlexNet(num_classes=1000)
    count = num_parameters(net) if ours.exact == "parameters" else num_neurons(net, (3, 224, 224))
    return Result(
        f"{ours.exact}, counted", "python -m pytest tests/models/test_alexnet.py", f"{count:,}", "", "supported"
    )


def main() -> None:
    """Writes the page."""
    try:
        write_text(RESULTS / "README.md", page())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
