"""What the launcher makes of SLURM's answers; tests/cluster has a real SLURM."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from commands import compose_raw

from hydra_plugins.alexnet_lab import slurm_launcher

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Says = Callable[[str], None]


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Puts commands of ours in the place of SLURM's; they keep what they are called with."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(slurm_launcher, "FIRST_POLL_SECONDS", 0.01)

    def write(script: str) -> None:
        for name in ("squeue", "scancel", "scontrol"):
            command = tmp_path / name
            command.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{script}\n')
            command.chmod(0o755)

    return write


@pytest.mark.parametrize(
    ("script", "states"),
    [
        ("printf 'RUNNING\\nPENDING\\nPENDING\\n'", Counter(RUNNING=1, PENDING=2)),
        ("true", Counter()),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", Counter()),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", None),
    ],
)
def test_states_in_the_queue(script, states, says):
    says(script)
    assert slurm_launcher.in_queue("7") == states


def test_without_slurm_nothing_is_known(says, tmp_path):
    says("true")
    (tmp_path / "squeue").unlink()
    assert slurm_launcher.in_queue("7") is None


def test_waiting_outlasts_a_controller_that_does_not_answer(says, tmp_path):
    says(f"test $(wc -l < {tmp_path}/calls) -gt 3 || {{ echo 'Unable to contact' >&2; exit 1; }}")
    slurm_launcher.wait("7")
    assert (tmp_path / "calls").read_text().splitlines() == ["squeue --noheader --array --jobs=7 --format=%T"] * 4


CANCELLED = """
JobId=31 ArrayJobId=31 ArrayTaskId=2-3 JobName=x JobState=CANCELLED Reason=None
JobId=33 ArrayJobId=31 ArrayTaskId=1 JobName=x JobState=COMPLETED Command=a=b
"""


@pytest.mark.parametrize(
    ("script", "jobs"),
    [(f"echo '{CANCELLED}'", ["31_2-3"]), ("echo JobState=COMPLETED", []), ("echo Invalid job id >&2; exit 1", [])],
)
def test_cancelled_jobs_are_known(script, jobs, says):
    says(script)
    assert slurm_launcher.cancelled("31") == jobs


def test_jobs_are_taken_back_one_after_the_other_whatever_scancel_says(says, tmp_path):
    says("exit 1")
    slurm_launcher.cancel(["7", "8"])
    assert (tmp_path / "calls").read_text().splitlines() == ["scancel 7", "scancel 8"]


def test_only_numbers_in_the_record_of_a_sweep_reach_scancel(caplog):
    """The sweep's directory is data: its lines must not become flags of a program."""
    text = "71\n--user=me\n 72 -u 73_1 \u0664 all\n" + "9" * 21
    assert slurm_launcher.numbers_in(text) == ["71", "72"]
    assert "slurm_jobs.txt contains '--user=me', which is no number of a job; it is ignored" in caplog.text


def test_launcher_file_asks_for_as_many_nodes_as_a_run_has():
    config = compose_raw("launcher=slurm", "trainer.num_nodes=3")
    assert config["launcher"]["slurm"] is True
    assert config["trainer"]["num_nodes"] == 3
