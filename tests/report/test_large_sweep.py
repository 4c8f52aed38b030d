"""A report of many jobs reads each file of a run a fixed number of times, and compares no run with all others."""

from __future__ import annotations

import io
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made import make_large_sweep, report

from alexnet_lab.report.comparison import Run
from alexnet_lab.report.sources import by_images, from_sweep

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVELS, SEEDS = 10, 10


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each file was opened, by its name."""
    counts: Counter[str] = Counter()
    original = io.open

    def counted(path: Any, *args: Any, **kwargs: Any) -> Any:
        counts[Path(str(path)).name] += 1
        return original(path, *args, **kwargs)

    monkeypatch.setattr(io, "open", counted)
    yield counts
    monkeypatch.undo()


def test_report_of_many_jobs_takes_milliseconds_for_each(digits_run, tmp_path, opened):
    jobs, sweep = LEVELS * SEEDS, make_large_sweep(tmp_path / "sweep", digits_run, LEVELS, SEEDS)
    opened.clear()
    outcome = report(f"sweep={sweep}")
    assert outcome.code == 0, outcome.err
    assert f"{jobs} of {jobs} runs completed" in outcome.err
    reads = {"result.json": 1, "manifest.json": 1, "config.yaml": 2, "metrics.csv": 2}  # 2: to read it, and to hash it
    assert {name: opened[name] / jobs for name in reads} == reads
    before = time.process_time()
    from_sweep(sweep)
    assert (time.process_time() - before) / jobs < 0.04  # s; 0.01 is usual, and 0.1 if Python parses the configs


def test_grouping_by_images_compares_no_run_with_all_others(monkeypatch):
    compared: list[Any] = []
    monkeypatch.setattr(Run, "__eq__", lambda self, other: compared.append(other) or self is other)
    runs = [Run(f"{n}", Path(f"{n}"), "", n, "completed", config={"data": {"name": "digits"}}) for n in range(300)]
    (group,) = by_images(runs)
    assert [run.seed for run in group] == [*range(300)]
    assert len(compared) == 0
