"""Runs by name or pattern, as eval.py and report.py take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from alexnet_lab.base.errors import RunError
from alexnet_lab.run.run_directory import run_names

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep's directory: runs, and what else lies beside them."""
    for name in ("base_seed-0", "base_seed-1", "no_lrn_seed-0", "a[1]", "a1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
    (tmp_path / "base_notes").mkdir()
    (tmp_path / "base_summary.csv").touch()
    return tmp_path


def test_a_pattern_stands_for_the_runs_that_it_matches(sweep):
    found = run_names([f"{sweep}/base_*", f"{sweep}/no_lrn_seed-0"], "run")
    assert found == [f"{sweep}/{name}" for name in ("base_seed-0", "base_seed-1", "no_lrn_seed-0")]


def test_names_stay_as_they_are(sweep):
    """What they name is checked by those who read it; a trailing slash is shown in their messages."""
    names = [f"{sweep}/base_seed-0/", f"{sweep}/nothing", "x"]
    assert run_names(names, "run") == names


def test_a_name_with_brackets_is_no_pattern_if_it_exists(sweep):
    assert run_names([f"{sweep}/a[1]"], "run") == [f"{sweep}/a[1]"]
    assert run_names([f"{sweep}/a[12]"], "run") == [f"{sweep}/a1"]


@pytest.mark.parametrize("pattern", ["none_*", "base_n*", "base_s*.csv", "*/*"])
def test_a_pattern_that_matches_no_run(pattern, sweep):
    with pytest.raises(RunError, match=r"^no runs found by run=.*; a run is a directory with a config\.yaml$"):
        run_names([f"{sweep}/base_seed-0", f"{sweep}/{pattern}"], "run")
