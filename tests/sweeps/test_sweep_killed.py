"""A sweep survives what happens to it: workers, jobs and the sweep itself are killed, and the results are the same."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from sweeping import finish, sweep, swept, wait_until_gone, workers

from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

TWO = ("trainer=ddp", "trainer.accelerator=cpu")


def metrics(place: Path) -> dict[str, dict[str, float]]:
    """Of each job, as its result.json has them."""
    return {path.parent.name: json.loads(path.read_text())["metrics"] for path in place.glob("*/result.json")}


def completed_lines(place: Path) -> Counter[str]:
    return Counter(line["job"] for line in SweepDirectory(place).entries() if line["status"] == "completed")


def wait_for_workers(process: subprocess.Popen[str], count: int, rng: random.Random, before: set[int]) -> list[int]:
    """Until there are workers besides those of `before`, and then a random while; their job is anywhere in its run."""
    end = time.monotonic() + 60
    while len(set(workers(process.pid)) - before) < count and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(rng.uniform(0.0, 0.8))
    return sorted(set(workers(process.pid)) - before)


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def killed_sweep(words: tuple[str, ...], place: Path, data: Path, rng: random.Random, *, processes: int) -> str:
    """Runs a sweep in which a worker, then a whole job, then the sweep itself are killed; then the command again."""
    process = sweep(words, place, data)
    seen = set(first := wait_for_workers(process, processes, rng, set()))
    kill(first[:1])
    seen |= set(second := wait_for_workers(process, processes, rng, seen))
    kill(second)
    orphans = wait_for_workers(process, processes, rng, seen)
    process.kill()
    _, err = finish(process)
    assert process.returncode == -signal.SIGKILL, err
    wait_until_gone(orphans)
    code, again = swept(words, place, data)
    assert code == 0, again
    return err + again


def check_as_undisturbed(words: tuple[str, ...], jobs: int, tmp_path: Path, data: Path, *, processes: int) -> None:
    seed = random.randrange(10**6)
    print(f"random seed of the killing: {seed}")
    disturbed, undisturbed = tmp_path / "disturbed", tmp_path / "undisturbed"
    err = killed_sweep(words, disturbed, data, random.Random(seed), processes=processes)
    code, output = swept(words, undisturbed, data)
    assert code == 0, output
    assert len(metrics(undisturbed)) == jobs
    assert metrics(disturbed) == metrics(undisturbed), err
    assert completed_lines(disturbed) == dict.fromkeys(metrics(undisturbed), 1)
    assert "Traceback" not in err
    for name in metrics(undisturbed):
        result = RunDirectory(disturbed / name).read_result()
        assert result is not None
        assert (result["status"], result["epochs"], result["steps"]) == ("completed", 3, 30)


def test_killed_sweep_of_four_jobs_ends_as_if_undisturbed(tmp_path, digits_dir):
    words = ("seed=0,1", "model.activation=relu,tanh")
    check_as_undisturbed(words, 4, tmp_path, digits_dir, processes=1)


@pytest.mark.timeout(400)
@pytest.mark.slow
def test_killed_sweep_of_twelve_jobs_of_two_processes_ends_as_if_undisturbed(tmp_path, digits_dir):
    words = ("seed=0,1,2", "model.activation=relu,tanh", "model.pool=max,average", *TWO)
    check_as_undisturbed(words, 12, tmp_path, digits_dir, processes=2)
