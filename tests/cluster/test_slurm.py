"""Runs and sweeps on a real SLURM of two nodes: one job over both, one that is cancelled and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from commands import QUICK, REPOSITORY, Outcome, command, finished, forked

from alexnet_lab.sweeps.sweep_directory import SweepDirectory
from alexnet_lab.training.checkpoint_io import load_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.cluster

SHORT = (*QUICK, "trainer.accelerator=cpu", "trainer.limit_train_batches=10")


def srun(cluster: dict[str, str], cwd: Path, *words: str) -> Outcome:
    """`train.py words` as one task on each of the two nodes."""
    started = subprocess.Popen(
        ["srun", "--nodes=2", "--ntasks-per-node=1", sys.executable, str(REPOSITORY / "train.py"), *words],
        cwd=cwd, env=os.environ | cluster, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    return finished(started)


def slurm(cluster: dict[str, str], *words: str) -> str:
    """The output of a SLURM command."""
    return subprocess.run(words, env=os.environ | cluster, capture_output=True, text=True, check=True).stdout.strip()


def start_requeued(cluster: dict[str, str], number: str) -> None:
    """Starts a requeued job at once; SLURM itself waits two minutes."""
    end = time.monotonic() + 60
    while slurm(cluster, "squeue", "--noheader", f"--jobs={number}", "--format=%T %r") != "PENDING BeginTime":
        assert time.monotonic() < end, slurm(cluster, "squeue")
        time.sleep(0.2)
    slurm(cluster, "scontrol", "update", f"JobId={number}", "StartTime=now")


def test_sweep_of_jobs_on_two_nodes_of_which_one_is_cancelled_and_resumes(cluster, tmp_path, digits_dir):
    place = tmp_path / "sweep"
    words = (
        "-m", "seed=0,1", "launcher=slurm", "trainer.num_nodes=2", "trainer.max_epochs=40", *SHORT,
        f"data.dir={digits_dir}", f"hydra.sweep.dir={place}",
    )  # fmt: skip
    sweep = command("train.py", *words, cwd=tmp_path, **cluster)
    wait_for_checkpoint(place / "seed-0", sweep)
    number = (place / "slurm_jobs.txt").read_text()
    slurm(cluster, "scancel", f"{number}_0")
    ended = finished(sweep, timeout=200)
    assert ended.code == 1, ended.err
    assert "error: 1 of 2 jobs did not end: seed-0; resume with the same command" in ended.err
    lines = SweepDirectory(place).latest()
    assert {name: line["status"] for name, line in lines.items()} == {"seed-0": "interrupted", "seed-1": "completed"}

    again = finished(command("train.py", *words, cwd=tmp_path, **cluster), timeout=200)
    assert again.code == 0, again.err
    assert "2 jobs: 1 done, 0 failed, 1 to go (1 interrupted)" in again.err
    undisturbed = tmp_path / "undisturbed"
    alone = (*SHORT, "trainer.max_epochs=40", "trainer.devices=2", f"data.dir={digits_dir}")
    assert finished(forked("train.py", *alone, f"run_dir={undisturbed}", cwd=tmp_path)).code == 0
    one, two = (weights(run) for run in (place / "seed-0", undisturbed))
    assert all((one[name] == two[name]).all() for name in two)
    results = [json.loads((place / f"seed-{seed}" / "result.json").read_text()) for seed in (0, 1)]
    assert [(item["status"], item["steps"]) for item in results] == [("completed", 400)] * 2


def test_waiting_job_that_is_cancelled_is_not_submitted_again(cluster, tmp_path, digits_dir):
    place = tmp_path / "sweep"
    words = (
        "-m", "seed=0,1", "launcher=slurm", "hydra.launcher.array_parallelism=1", "trainer.max_epochs=40", *SHORT,
        f"data.dir={digits_dir}", f"hydra.sweep.dir={place}",
    )  # fmt: skip
    sweep = command("train.py", *words, cwd=tmp_path, **cluster)
    wait_for_checkpoint(place / "seed-0", sweep)
    slurm(cluster, "scancel", f"{(place / 'slurm_jobs.txt').read_text()}_1")
    ended = finished(sweep, timeout=200)
    assert ended.code == 1, ended.err
    assert ended.err.count("1 submitted") + ended.err.count("2 submitted") == 1
    assert "error: 1 of 2 jobs did not end: seed-1; resume with the same command" in ended.err


def wait_for_checkpoint(run: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not (run / "checkpoints" / "last.ckpt").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()


def weights(run: Path) -> dict:
    return load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]


def test_run_by_srun_gives_what_two_devices_give(cluster, tmp_path, digits_dir):
    words = (*SHORT, "trainer.max_epochs=2", f"data.dir={digits_dir}")
    nodes, devices = tmp_path / "nodes", tmp_path / "devices"
    ended = srun(cluster, tmp_path, *words, "trainer.num_nodes=2", f"run_dir={nodes}")
    assert ended.code == 0, ended.err
    ended = finished(forked("train.py", *words, "trainer.devices=2", f"run_dir={devices}", cwd=tmp_path))
    assert ended.code == 0, ended.err
    one, two = weights(nodes), weights(devices)
    assert all((one[name] == two[name]).all() for name in two)


def test_srun_of_other_processes_than_the_config_says(cluster, tmp_path):
    ended = srun(cluster, tmp_path, *SHORT)
    assert ended.code == 2
    assert "set trainer.num_nodes=2 trainer.devices=1" in ended.err
    assert not (tmp_path / "logs").exists()


def test_sweep_under_srun_is_refused(cluster, tmp_path):
    ended = srun(cluster, tmp_path, "-m", "seed=0,1", *SHORT)
    assert ended.code == 2
    assert "a sweep starts its jobs itself, but 2 processes were started to run this one; start it once" in ended.err


@pytest.mark.timeout(900)
def test_job_at_its_time_limit_resumes_by_itself(cluster, tmp_path, digits_dir):
    """SLURM's notice, here sent by hand: the job writes a checkpoint within the epoch, is queued again, and ends."""
    place = tmp_path / "sweep"
    words = (
        "-m", "seed=0", "launcher=slurm", "trainer.max_epochs=40", *SHORT, "callbacks.checkpoint.every_minutes=null",
        f"data.dir={digits_dir}", f"hydra.sweep.dir={place}",
    )  # fmt: skip
    sweep = command("train.py", *words, cwd=tmp_path, **cluster)
    wait_for_checkpoint(place / "job", sweep)
    number = (place / "slurm_jobs.txt").read_text().strip()
    slurm(cluster, "scancel", "--signal=USR2", number)
    start_requeued(cluster, number)
    ended = finished(sweep)
    assert ended.code == 0, ended.err
    statuses = [line["status"] for line in SweepDirectory(place).entries()]
    assert statuses == ["interrupted", "completed"]
    undisturbed = tmp_path / "undisturbed"
    alone = (*SHORT, "trainer.max_epochs=40", f"data.dir={digits_dir}", f"run_dir={undisturbed}")
    assert finished(forked("train.py", *alone, cwd=tmp_path)).code == 0
    one, two = (weights(run) for run in (place / "job", undisturbed))
    assert all((one[name] == two[name]).all() for name in two)
