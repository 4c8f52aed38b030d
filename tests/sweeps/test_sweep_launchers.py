"""Under each launcher: jobs side by side, killed job processes, Ctrl-C, SIGTERM and SIGKILL of the sweep."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import wandb_file
from sweeping import descendants, finish, sweep, wait_until_gone, workers

from alexnet_lab.sweeps.sweep_directory import SweepDirectory

if TYPE_CHECKING:
    import subprocess

pytestmark = pytest.mark.slow

WORDS = ("seed=0,1,2",)


def wait_for_checkpoint(place: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 100
    while not list(place.glob("*/checkpoints/last.ckpt")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()


def statuses(place: Path) -> list[str]:
    return [line["status"] for line in SweepDirectory(place).latest().values()]


@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        ("local", signal.SIGINT), ("local", signal.SIGTERM), ("joblib", signal.SIGINT), ("joblib", signal.SIGTERM),
        ("joblib", signal.SIGKILL), ("submitit_local", signal.SIGINT), ("submitit_local", signal.SIGKILL),
    ],
)  # fmt: skip
def test_stopped_sweep_leaves_no_process_and_resumes(launcher, number, tmp_path, digits_dir):
    place = tmp_path / "sweep"
    words = (*WORDS, f"launcher={launcher}")
    process = sweep(words, place, digits_dir)
    wait_for_checkpoint(place, process)
    below = descendants(process.pid)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does it
    else:
        process.send_signal(number)
    code, err = finish(process)
    wait_until_gone(below)
    if number != signal.SIGKILL:
        assert code == 130, err
        assert "Traceback" not in err or launcher == "submitit_local"  # whose own processes print theirs
        (last,) = [line for line in err.splitlines() if "; resume with the same command: " in line]
        assert last.startswith("interrupted by ")
        assert "interrupted" in statuses(place)
    code, err = finish(sweep(words, place, digits_dir))
    assert code == 0, err
    assert statuses(place) == ["completed"] * 3


def test_killed_process_of_a_job_under_joblib_does_not_take_the_sweep_with_it(tmp_path, digits_dir):
    place = tmp_path / "sweep"
    process = sweep((*WORDS, "launcher=joblib"), place, digits_dir)
    wait_for_checkpoint(place, process)
    jobs = [pid for pid, parent in descendants(process.pid).items() if parent == process.pid and is_job(pid)]
    os.kill(jobs[0], signal.SIGKILL)
    code, err = finish(process)
    assert code == 0, err
    assert "its process ended without a record" in err
    assert statuses(place) == ["completed"] * 3


def is_job(pid: int) -> bool:
    return b"LokyProcess" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_worker_that_is_killed_each_time_fails_its_job_and_no_other(tmp_path, digits_dir):
    place = tmp_path / "sweep"
    process = sweep(("seed=0,1", "launcher.retries=1"), place, digits_dir)
    result = place / "seed-0" / "result.json"
    end = time.monotonic() + 100
    while not result.exists() and time.monotonic() < end:
        for pid in workers(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    code, err = finish(process)
    assert code == 1, err
    assert "error: 1 of 2 jobs failed: seed-0; to try them again, repeat the command" in err
    line = SweepDirectory(place).latest()["seed-0"]
    assert (line["status"], line["attempts"]) == ("failed", 2)
    assert line["error"] == "worker 0 of the run failed: it was killed by SIGKILL"
    assert json.loads(result.read_text())["status"] == "failed"
    assert statuses(place) == ["failed", "completed"]


def test_each_job_is_a_wandb_run_of_the_sweeps_group_with_its_real_end(tmp_path, digits_dir):
    place = tmp_path / "lrn_study"
    words = ("optimizer.learning_rate=0.01,1e18", "schedule=constant", "logger=wandb", "logger.mode=offline")
    process = sweep(words, place, digits_dir, without=("logger=csv",))
    code, err = finish(process)
    assert code == 1, err
    found = {path.name: wandb_file.read(path) for path in place.glob("optimizer*")}
    assert {run.group for run in found.values()} == {"lrn_study"}
    ends = {name: (run.name, run.exit_code) for name, run in found.items()}
    good, bad = "optimizer.learning_rate-0.01", "optimizer.learning_rate-1e+18"
    short = {name: name.removeprefix("optimizer.") for name in (good, bad)}  # as a tracker shows it
    assert ends == {good: (short[good], 0), bad: (short[bad], 1)}
    assert "the training loss is" in SweepDirectory(place).latest()[bad]["error"]
