"""A sweep's course with launchers that do all they can do: finish jobs, lose them, raise, be interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from commands import train_config
from filelock import FileLock

from alexnet_lab.base.errors import Interrupted, JobsCancelledError, RunError
from alexnet_lab.config.schema import Train
from alexnet_lab.sweeps import runner, shutdown
from alexnet_lab.sweeps.job_states import entry
from alexnet_lab.sweeps.preflight import Plan, Request, plan
from alexnet_lab.sweeps.runner import drive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def composed(words: Sequence[str]) -> Train:
    """A config with the few keys that a sweep looks at."""
    seed = next(int(word.removeprefix("seed=")) for word in words if word.startswith("seed="))
    return train_config(seed=seed, sweep={"metric": "test/loss"}, launcher={"retries": 1})


def planned(place: Path, jobs: int = 3) -> Plan:
    return plan(Request(str(place), (), tuple((f"seed={n}",) for n in range(jobs)), "python train.py -m ..."), composed)


def end(sweep_plan: Plan, words: Sequence[str], status: str = "completed", **images: Any) -> None:
    """What a job does at its end."""
    job = next(job for job in sweep_plan.jobs if job.overrides[0] in words)
    run = sweep_plan.sweep.run(job)
    run.path.mkdir(exist_ok=True)
    run.config.write_text("seed: 0")
    run.log.write_text("first\n\nlast words\n")
    result = {"status": status, "metrics": {"test/loss": 0.5}, "wall_seconds": 1.0, "epochs": 1, "steps": 2, **images}
    run.result.write_text(json.dumps(result))
    error = None if status == "completed" else "it broke"
    sweep_plan.sweep.append(entry(sweep_plan.sweep, job, result, status=status, error=error))


def test_jobs_that_are_left_are_launched_once(tmp_path, capsys):
    sweep_plan, launched = planned(tmp_path / "sweep"), []

    def launch(jobs: Sequence[list[str]]) -> None:
        launched.extend(words[0] for words in jobs)
        for words in jobs:
            end(sweep_plan, words)

    drive(sweep_plan, launch)
    assert launched == ["seed=0", "seed=1", "seed=2"]
    (sweep_plan.sweep.path / "seed-1" / "result.json").unlink()
    drive(sweep_plan, launch)
    assert launched[3:] == ["seed=1"]
    assert "3 jobs: 2 done, 0 failed, 1 to go (1 interrupted)" in capsys.readouterr().err
    drive(sweep_plan, launch)
    assert len(launched) == 4
    assert json.loads((sweep_plan.sweep.path / "sweep.json").read_text())["name"] == "sweep"


def test_failed_jobs_are_listed_at_the_end_and_retried_by_the_next_command(tmp_path, capsys):
    sweep_plan = planned(tmp_path / "sweep")

    def launch(jobs: Sequence[list[str]]) -> None:
        for words in jobs:
            end(sweep_plan, words, "failed" if words[0] == "seed=1" else "completed")

    with pytest.raises(RunError, match=r"1 of 3 jobs failed: seed-1; to try them again, repeat the command"):
        drive(sweep_plan, launch)
    assert (
        "error: seed-1: it broke\n  first\n  last words\n3 jobs: 2 done, 1 failed, 0 to go" in capsys.readouterr().err
    )
    drive(sweep_plan, lambda jobs: [end(sweep_plan, words) for words in jobs])
    assert [line["status"] for line in sweep_plan.sweep.entries() if line["job"] == "seed-1"] == ["failed", "completed"]


def test_jobs_whose_process_was_killed_are_launched_again(tmp_path, capsys):
    sweep_plan, launched = planned(tmp_path / "sweep"), []

    def launch(jobs: Sequence[list[str]]) -> None:
        launched.append([words[0] for words in jobs])
        if len(launched) == 1:
            end(sweep_plan, jobs[0])
            begin(sweep_plan, jobs[1])
            raise RuntimeError("a worker was killed")
        for words in jobs:
            end(sweep_plan, words)

    drive(sweep_plan, launch)
    assert launched == [["seed=0", "seed=1", "seed=2"], ["seed=1", "seed=2"]]
    err = capsys.readouterr().err
    assert "warning: job seed=1: its process ended without a record (RuntimeError: a worker was killed) (1 of 2)" in err
    assert "warning: job seed=2" not in err  # it had not begun


def begin(sweep_plan: Plan, words: Sequence[str]) -> None:
    run = sweep_plan.sweep.run(next(job for job in sweep_plan.jobs if job.overrides[0] in words))
    run.path.mkdir(exist_ok=True)
    run.config.write_text("seed: 0")


def test_job_that_kills_its_process_each_time_is_given_up_and_the_others_continue(tmp_path):
    sweep_plan = planned(tmp_path / "sweep")

    def launch(jobs: Sequence[list[str]]) -> None:
        for words in jobs:
            begin(sweep_plan, words)
            if words[0] == "seed=1":
                raise RuntimeError("a worker was killed")
            end(sweep_plan, words)

    with pytest.raises(RunError, match="1 of 3 jobs failed: seed-1"):
        drive(sweep_plan, launch)
    latest = sweep_plan.sweep.latest()
    assert [latest[f"seed-{n}"]["status"] for n in range(3)] == ["completed", "failed", "completed"]
    assert latest["seed-1"]["error"] == "its process ended without a record (RuntimeError: a worker was killed)"


def test_neighbours_of_a_job_that_kills_all_workers_get_an_attempt_alone(tmp_path):
    """As loky does: the worker that dies takes the others along."""
    sweep_plan, launched = planned(tmp_path / "sweep"), []

    def launch(jobs: Sequence[list[str]]) -> None:
        launched.append([words[0] for words in jobs])
        for words in jobs:
            begin(sweep_plan, words)
        if "seed=1" in launched[-1]:
            raise RuntimeError("a worker was killed")
        for words in jobs:
            end(sweep_plan, words)

    with pytest.raises(RunError, match="1 of 3 jobs failed: seed-1"):
        drive(sweep_plan, launch)
    assert launched == [["seed=0", "seed=1", "seed=2"], ["seed=0"], ["seed=1"], ["seed=2"]]
    latest = sweep_plan.sweep.latest()
    assert [latest[f"seed-{n}"]["status"] for n in range(3)] == ["completed", "failed", "completed"]


def test_jobs_that_could_not_be_started_did_not_fail(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "RELAUNCH_SECONDS", 0.01)
    sweep_plan = planned(tmp_path / "sweep")

    def launch(jobs: Sequence[list[str]]) -> None:
        raise OSError("no such queue")

    with pytest.raises(RunError, match=r"no job could be started \(OSError: no such queue\); repeat the command"):
        drive(sweep_plan, launch)
    assert capsys.readouterr().err.count("trying again (1 of 1)") == 1
    assert sweep_plan.sweep.entries() == []
    drive(sweep_plan, lambda jobs: [end(sweep_plan, words) for words in jobs])
    assert len(sweep_plan.sweep.latest()) == 3


def test_jobs_cancelled_in_the_queue_are_not_launched_again(tmp_path):
    """A running one has recorded itself; one that waited has not."""
    sweep_plan, launched = planned(tmp_path / "sweep"), []

    def launch(jobs: Sequence[list[str]]) -> None:
        launched.append([words[0] for words in jobs])
        end(sweep_plan, jobs[0])
        end(sweep_plan, jobs[1], "interrupted")
        raise JobsCancelledError("cancelled in SLURM: 31_1, 31_2")

    with pytest.raises(RunError, match=r"2 of 3 jobs did not end: seed-1, seed-2; resume with the same command"):
        drive(sweep_plan, launch)
    assert launched == [["seed=0", "seed=1", "seed=2"]]
    assert sweep_plan.sweep.latest()["seed-2"]["error"] == "cancelled in SLURM: 31_1, 31_2"
    drive(sweep_plan, lambda jobs: [end(sweep_plan, words) for words in jobs])
    assert [line["job"] for line in sweep_plan.sweep.entries()][3:] == ["seed-1", "seed-2"]


def test_a_queue_that_answers_again_starts_the_jobs(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "RELAUNCH_SECONDS", 0.01)
    sweep_plan, tries = planned(tmp_path / "sweep"), []

    def launch(jobs: Sequence[list[str]]) -> None:
        tries.append(len(jobs))
        if len(tries) == 1:
            raise OSError("no answer")
        for words in jobs:
            end(sweep_plan, words)

    drive(sweep_plan, launch)
    assert tries == [3, 3]


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_interrupted_sweep_waits_for_its_jobs_and_can_resume(number, name, tmp_path, monkeypatch):
    monkeypatch.setattr(shutdown, "POLL_SECONDS", 0.02)
    sweep_plan = planned(tmp_path / "sweep")
    before = signal.getsignal(number)
    job = sweep_plan.sweep.path / "seed-1"

    def launch(jobs: Sequence[list[str]]) -> None:
        end(sweep_plan, jobs[0])
        begin(sweep_plan, jobs[1])
        with lock_held_until(job / ".lock", sweep_plan.sweep.stop):
            os.kill(os.getpid(), number)
            time.sleep(10)

    text = f"interrupted by {name}; 3 jobs: 1 done, 0 failed, 2 to go \\(1 interrupted\\); resume with the same command"
    with pytest.raises(Interrupted, match=text):
        drive(sweep_plan, launch)
    assert (job / "stopped").exists()  # it was waited for
    assert signal.getsignal(number) is before
    assert sweep_plan.sweep.latest()["seed-1"]["error"] == "killed when the sweep was interrupted"
    drive(sweep_plan, lambda jobs: [end(sweep_plan, words) for words in jobs])
    assert not sweep_plan.sweep.stop.exists()


@contextlib.contextmanager
def lock_held_until(lock: Path, stop: Path) -> Iterator[None]:
    """Another process holds the lock of the run until the file `stop` exists."""
    code = f"""if True:
        import pathlib, time
        from filelock import FileLock
        with FileLock({str(lock)!r}):
            print("held", flush=True)
            while not pathlib.Path({str(stop)!r}).exists():
                time.sleep(0.02)
            time.sleep(0.2)
            pathlib.Path({str(lock)!r}).with_name("stopped").touch()
    """
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield
    finally:
        assert process.wait(120) == 0
        process.stdout.close()


def test_sweep_waits_for_jobs_that_another_left_running(tmp_path, monkeypatch):
    monkeypatch.setattr("alexnet_lab.sweeps.runner.POLL_SECONDS", 0.02)
    sweep_plan = planned(tmp_path / "sweep", jobs=1)
    begin_place = sweep_plan.sweep.path / "seed-0"
    begin_place.mkdir(parents=True)
    lock = FileLock(begin_place / ".lock")
    turns: list[int] = []

    def sleep(seconds: float) -> None:
        turns.append(1)
        if len(turns) == 3:
            lock.release()

    lock.acquire()
    monkeypatch.setattr("alexnet_lab.sweeps.runner.time.sleep", sleep)
    drive(sweep_plan, lambda jobs: [end(sweep_plan, words) for words in jobs])
    assert len(turns) == 3


def test_jobs_process_ends_when_its_sweep_is_gone_or_is_to_stop(tmp_path):
    code = """if True:
        import pathlib, sys, time
        from alexnet_lab.sweeps.shutdown import end_with_sweep
        end_with_sweep(pathlib.Path(sys.argv[1]))
        print("ready", flush=True)
        time.sleep(600)
    """
    for reason in ("gone", "stop"):
        parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        variables = os.environ | {shutdown.VARIABLE: f"{shutdown.place()}/{parent.pid}"}
        stop = tmp_path / reason
        child = subprocess.Popen([sys.executable, "-c", code, str(stop)], env=variables, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        if reason == "gone":
            parent.kill()  # nobody has waited for it yet
        else:
            stop.touch()
        assert child.wait(120) == -signal.SIGTERM
        child.stdout.close()
        parent.kill()
        parent.wait()


def test_process_is_alive_until_it_has_ended():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert shutdown.is_alive(process.pid)
    process.communicate(b"\n")
    assert not shutdown.is_alive(process.pid)


def test_without_pidfd_the_process_is_asked(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert shutdown.is_alive(process.pid)
    process.communicate(b"\n")
    assert not shutdown.is_alive(process.pid)


def test_job_on_other_images_is_left_out_of_the_table(tmp_path):
    sweep_plan = planned(tmp_path / "sweep")

    def launch(jobs: Sequence[list[str]]) -> None:
        for words in jobs:
            images = {"store_hash": "b" if "seed=1" in words else "a", "num_train": 33 if "seed=1" in words else 32}
            end(sweep_plan, words, **images)

    message = (
        "seed-1 has other images than seed-0: 33 train images, store b; not 32 train images, store a; "
        "the table leaves such jobs out (1): delete their "
        "directories to train them again, or set sweep.other_images=true"
    )
    with pytest.raises(RunError, match=re.escape(message)):
        drive(sweep_plan, launch)
    row = sweep_plan.sweep.summary_csv.read_text().splitlines()[1]
    assert ",2,0.5," in row
    assert "1 on other images" in sweep_plan.sweep.summary_md.read_text()


def test_what_killed_jobs_leave_is_removed_in_silence(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:something else")
    code = (
        "import multiprocessing, os; context = multiprocessing.get_context('spawn'); "
        "left = [context.Semaphore() for _ in range(3)]; os.kill(os.getpid(), 9)"
    )
    with shutdown.stoppable(tmp_path / "stop", lambda: False):
        killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, "")
    assert os.environ["PYTHONWARNINGS"] == "ignore:something else"
