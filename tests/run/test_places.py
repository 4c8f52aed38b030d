"""Which process of a run this one is: `base.cluster` decides, whatever other programs left in the environment."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from commands import QUICK, command, finished
from lightning.pytorch.utilities import rank_zero_only

from alexnet_lab.base import cluster
from alexnet_lab.base.cluster import Place, place
from alexnet_lab.base.errors import ConfigError
from alexnet_lab.run import train
from alexnet_lab.run.distributed import Processes

SHORT = (*QUICK, "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.accelerator=cpu")

WORKER = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
STEP = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_ID": "7"}

LEFT_BEHIND = {
    "rank": {"RANK": "1"},
    "no number": {"RANK": "abc", "LOCAL_RANK": "", "SLURM_PROCID": "x"},
    "all of torch": {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1"},
    "batch script": {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "train"},
    "salloc": {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_PROCID": "2", "SLURM_JOB_NAME": "interactive"},
    "step of one": {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "x"},
    "torchrun without a rank": {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4"},
}

WRONG = {
    "rank": (WORKER | {"RANK": "abc"}, "the environment variable RANK is 'abc'; it must be a whole number"),
    "negative": (WORKER | {"RANK": "-1"}, "the environment variable RANK is '-1'"),
    "too high": (WORKER | {"RANK": "4"}, r"the variables of torchrun contradict each other \(RANK=4, WORLD_SIZE=4"),
    "incomplete": ({"TORCHELASTIC_RUN_ID": "x", "RANK": "0"}, "the environment variable WORLD_SIZE is not set"),
    "nobody": (WORKER | {"LOCAL_WORLD_SIZE": "0"}, "the variables of torchrun contradict each other"),
    "tasks": ({"SLURM_STEP_NUM_TASKS": "two"}, "the environment variable SLURM_STEP_NUM_TASKS is 'two'"),
    "no task": ({"SLURM_STEP_NUM_TASKS": "2"}, "the environment variable SLURM_PROCID is not set"),
    "task": (STEP | {"SLURM_PROCID": "2"}, "SLURM_PROCID is 2, but srun started 2 tasks"),
    "cores": ({"SLURM_CPUS_PER_TASK": "many"}, "the environment variable SLURM_CPUS_PER_TASK is 'many'"),
    "mpirun": ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"}, "mpirun started 4 processes"),
    "mpich": ({"PMI_SIZE": "2", "PMI_RANK": "1"}, "mpirun started 2 processes .* or unset PMI_SIZE"),
}


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Place()),
        (WORKER, Place("torchrun", 3, 4, 1, 2)),
        (STEP, Place("srun", 1, 2)),
        (WORKER | STEP, Place("torchrun", 3, 4, 1, 2)),  # torchrun's agents were started by srun
        *((variables, Place()) for variables in LEFT_BEHIND.values()),
    ],
)
def test_only_a_launchers_own_mark_counts(variables, expected, monkeypatch):
    set_all(monkeypatch, variables)
    assert place() == expected


@pytest.mark.parametrize("case", WRONG)
def test_contradictions_are_reported(case, monkeypatch):
    variables, message = WRONG[case]
    set_all(monkeypatch, variables)
    with pytest.raises(ConfigError, match=message):
        cluster.settle()


def test_lightning_gets_the_environment_and_does_not_detect_it(monkeypatch):
    set_all(monkeypatch, WORKER | STEP | {"SLURM_NTASKS": "9", "NODE_RANK": "5"})
    found = Processes()
    assert (found.world_size(), found.global_rank(), found.local_rank(), found.node_rank()) == (4, 3, 1, 1)
    assert vars(rank_zero_only)["rank"] == 3
    for name in WORKER | STEP:
        monkeypatch.delenv(name)
    found = Processes()
    assert (found.world_size(), found.global_rank(), found.local_rank(), found.node_rank()) == (1, 0, 0, 0)
    assert vars(rank_zero_only)["rank"] == 0


@pytest.mark.parametrize("case", ["all of torch", "batch script"])
def test_run_is_alone_whatever_was_left_behind(case, monkeypatch, compose, tmp_path):
    set_all(monkeypatch, LEFT_BEHIND[case])
    done = train(compose(f"run_dir={tmp_path}", *SHORT))
    assert done["status"] == "completed"
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2  # the first process writes it


def test_commands_start_alone_and_say_so(digits_dir, tmp_path):
    """Lightning reads RANK when it is imported: `abc` would be a traceback, `1` a run that writes nothing."""
    left: dict[str, Any] = LEFT_BEHIND["all of torch"] | {"RANK": "abc"}
    words = (*SHORT, f"data.dir={digits_dir}", f"run_dir={tmp_path / 'run'}")
    outcome = finished(command("train.py", *words, cwd=tmp_path, group=False, **left))
    assert outcome.code == 0, outcome.err
    assert outcome.err.startswith("warning: ignoring RANK=abc LOCAL_RANK=1 WORLD_SIZE=2 in the environment: neither ")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 2
    outcome = finished(
        command("eval.py", f"run={tmp_path / 'run'}", "num_threads=1", cwd=tmp_path, group=False, **left)
    )
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("script", ["train.py", "eval.py", "report.py"])
def test_wrong_variables_are_one_line(script, tmp_path):
    outcome = finished(command(script, cwd=tmp_path, group=False, **WRONG["rank"][0]))
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
    assert outcome.err.startswith("error: the environment variable RANK is 'abc'")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", ["eval.py", "report.py"])
def test_evaluation_is_started_once(script, tmp_path):
    outcome = finished(command(script, cwd=tmp_path, group=False, **STEP))
    assert outcome.code == 2
    assert outcome.err == f"error: {script} works in one process, but srun started 2; start it once, without it\n"


def test_variables_of_a_process_that_is_alone_are_removed(monkeypatch, caplog):
    set_all(monkeypatch, LEFT_BEHIND["all of torch"] | {"SLURM_PROCID": "0"})
    cluster.settle()
    assert "RANK" not in os.environ
    assert os.environ["SLURM_PROCID"] == "0"  # as srun and sbatch set it for one task
    assert len(caplog.records) == 1
    cluster.settle()
    assert len(caplog.records) == 1
