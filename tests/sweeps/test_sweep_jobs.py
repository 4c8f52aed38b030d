"""One job of a sweep: skipped, started, gone on with, recorded; and its share of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from commands import train_config

from alexnet_lab.base.errors import Interrupted, RunError
from alexnet_lab.config.schema import Train
from alexnet_lab.run import launcher
from alexnet_lab.run.threads import chosen_threads
from alexnet_lab.sweeps import jobs
from alexnet_lab.sweeps.definition import Definition, Job
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

if TYPE_CHECKING:
    from pathlib import Path

ABOUT = {"name": "s", "factor": ["seed"], "base": [], "metric": "test/loss", "claim": None, "paper": None}


@pytest.fixture
def sweep(tmp_path: Path) -> SweepDirectory:
    """A sweep of two jobs that has just begun."""
    found = SweepDirectory(tmp_path / "sweep")
    found.path.mkdir()
    jobs = tuple(Job(f"seed-{number}", (f"seed={number}",), {"seed": number}) for number in range(2))
    found.write(Definition(ABOUT, "python train.py -m seed=0,1", (), jobs))
    return found


def config(sweep: SweepDirectory, name: str = "seed-1", **launcher_keys: Any) -> Train:
    return train_config(
        run_dir=str(sweep.path / name),
        overrides=["seed=1", "sweep=s", "run_dir='x'", "sweep.dir='y'"],
        sweep={"name": "s", "dir": str(sweep.path)},
        launcher=launcher_keys,
        data={"batch_size": 128},
        trainer={"devices": 2, "accelerator": "cpu"},
    )


def test_job_is_recorded_and_then_skipped(sweep, monkeypatch, capsys):
    calls: list[tuple[Train, bool]] = []

    def run(given: Train, *, resume: bool, inspect: Any) -> dict[str, Any]:
        calls.append((given, resume))
        result = {"status": "completed", "metrics": {"test/loss": 0.25}, "wall_seconds": 2.0, "attempts": 2}
        sweep.path.joinpath("seed-1").mkdir()
        sweep.run(Job("seed-1", ())).config.write_text("seed: 1\n")
        sweep.run(Job("seed-1", ())).write_result(result)
        return result

    monkeypatch.setattr(launcher, "run", run)
    jobs.run_job(config(sweep))
    jobs.run_job(config(sweep))
    ((given, resume),) = calls
    assert resume is False
    assert given.launcher.workers is True
    assert (given.sweep.dir, given.overrides) == (None, ["seed=1", "sweep=s"])
    (line,) = sweep.entries()
    assert (line["job"], line["status"], line["attempts"], line["overrides"]) == ("seed-1", "completed", 2, ["seed=1"])
    assert sweep.summary_csv.is_file()
    assert "0.25" in capsys.readouterr().out


def test_failed_job_is_recorded_with_the_end_of_its_log_and_does_not_raise(sweep, monkeypatch):
    run_dir = sweep.run(Job("seed-1", ()))
    run_dir.checkpoints.mkdir(parents=True)
    run_dir.last.touch()
    run_dir.log.write_text("".join(f"line {number}\n" for number in range(9)))

    def run(given: Train, *, resume: bool, inspect: Any) -> dict[str, Any]:
        assert resume is True
        raise ValueError("first\nsecond")

    monkeypatch.setattr(launcher, "run", run)
    jobs.run_job(config(sweep))
    (line,) = sweep.entries()
    assert (line["status"], line["error"]) == ("failed", "ValueError: first second")
    assert line["log"] == [f"line {number}" for number in range(4, 9)]


@pytest.mark.parametrize(
    "error",
    [
        Interrupted("interrupted by SIGTERM; resume it: python train.py resume=x"),
        KeyboardInterrupt("interrupted by SIGTERM"),
    ],
)
def test_interrupted_job_is_recorded_and_ends_the_sweep(error, sweep, monkeypatch):
    def run(given: Train, *, resume: bool, inspect: Any) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(launcher, "run", run)
    with pytest.raises(KeyboardInterrupt, match=r"^interrupted by SIGTERM$"):
        jobs.run_job(config(sweep))
    assert sweep.entries()[0]["status"] == "interrupted"


def test_no_job_begins_when_the_sweep_is_to_stop(sweep):
    sweep.stop.touch()
    with pytest.raises(KeyboardInterrupt, match="the sweep is stopping"):
        jobs.run_job(config(sweep))
    assert sweep.entries() == []


def test_stranger_is_refused(sweep):
    with pytest.raises(RunError, match=r"seed-7 is no job of the sweep "):
        jobs.run_job(config(sweep, "seed-7"))


@pytest.mark.parametrize(("cores", "side_by_side", "threads"), [(8, 1, 4), (8, 2, 2), (8, 3, 1), (2, 2, 1), (64, 4, 8)])
def test_jobs_side_by_side_share_the_cores(cores, side_by_side, threads, sweep, monkeypatch):
    monkeypatch.setattr("alexnet_lab.run.threads.available_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run = jobs.as_run(config(sweep, jobs_side_by_side=side_by_side))  # of two processes each
    assert chosen_threads(run, 10**9, 2) == threads


def test_threads_that_were_asked_for_stay(sweep):
    given = config(sweep, jobs_side_by_side=2, workers=False).with_trainer(num_threads=5)
    run = jobs.as_run(given)
    assert run.trainer.num_threads == 5
    assert run.launcher.workers is False
    assert given.sweep.dir is not None  # the job's own config is as it was
