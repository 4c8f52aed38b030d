"""The commands on the page of a sweep: they make its jobs, wherever the sweep was run."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import make_sweep

from alexnet_lab.base.errors import RunError
from alexnet_lab.report.readme import commands, readme
from alexnet_lab.report.sources import from_sweep

A = "python train.py -m model.activation=relu"
B = "python train.py -m model.activation=tanh"
BOTH = f"{A},tanh"
THREE, SIX = "'seed=range(0,3)'", "'seed=range(0,6)'"


@pytest.mark.parametrize(
    ("paper", "points", "claim"),
    [
        ("Krizhevsky 2012", None, "it is worse (Krizhevsky 2012)."),
        ("Krizhevsky 2012", {"tanh": 1.0}, "it is worse (Krizhevsky 2012; its numbers are in the table)."),
        (None, None, "it is worse."),
    ],
)
def test_claim_with_and_without_its_source(paper, points, claim, tmp_path):
    errors = {"relu": [0.1, 0.1, 0.1], "tanh": [0.2, 0.2, 0.2]}
    folder = make_sweep(tmp_path / "it", errors, claim="it is worse", paper=paper, paper_points=points)
    assert f"- **Claim.** {claim}\n" in readme(from_sweep(folder), folder)


@pytest.mark.parametrize(
    ("typed", "again", "more"),
    [
        (BOTH, f"{BOTH} {THREE}", f"{BOTH} {SIX}"),
        (f"{BOTH} seed=0,1,2 data.dir=/home/me sweep.extend=true", f"{BOTH} {THREE}", f"{BOTH} {SIX}"),
        (f"{BOTH} seed=0 && {BOTH} seed=1,2 sweep.extend=true", f"{BOTH} {THREE}", f"{BOTH} {SIX}"),
        (
            rf"{BOTH} $'sweep.claim=it\'s\012a'",
            rf"{BOTH} $'sweep.claim=it\'s\012a' {THREE}",
            rf"{BOTH} $'sweep.claim=it\'s\012a' {SIX}",
        ),
        (f"{BOTH} 'sweep.claim=a && b'", f"{BOTH} 'sweep.claim=a && b' {THREE}", f"{BOTH} 'sweep.claim=a && b' {SIX}"),
        (
            f"{A} {THREE} && {B} seed=0,1,2 sweep.extend=true",
            f"{A} {THREE} sweep.extend=true && {B} seed=0,1,2 sweep.extend=true",
            f"{A} {SIX} && {B} {SIX}",
        ),
    ],
)
def test_commands_of_a_sweep(typed, again, more, tmp_path):
    folder = tmp_path / "results" / "it"
    folder.parent.mkdir()
    errors = {"relu": [0.1, 0.1, 0.1], "tanh": [0.2, 0.2, 0.2]}
    study = from_sweep(make_sweep(folder, errors, command=typed))

    def placed(line: str, extend: str = "") -> str:
        return " && python".join(f"{part}{extend} hydra.sweep.dir=results/it" for part in line.split(" && python"))

    assert commands(study, folder) == (placed(again), placed(more, " sweep.extend=true"))
    assert commands(study, Path("results/it")) == commands(study, folder)


def test_a_sweep_without_a_seed_yet_names_none(tmp_path):
    job = {"job": "a", "run_dir": "a", "overrides": ["model.activation=relu"], "config": {}}
    folder = make_sweep(tmp_path / "it", {}, jobs=[job])
    assert "- **Run.** 1 level, 0 of 1 run completed, 1 to go.\n" in readme(from_sweep(folder), folder)


def test_a_command_that_is_not_one_is_one_line(tmp_path):
    folder = make_sweep(tmp_path / "it", {"relu": [0.1]}, command=f"{A} 'sweep.claim=a")
    with pytest.raises(
        RunError, match=r"it/sweep.json: `command` is .*; correct its quotation marks \(No closing quot"
    ):
        readme(from_sweep(folder), folder)
