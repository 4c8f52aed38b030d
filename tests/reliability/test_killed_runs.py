"""A run killed at any moment and resumed ends as one that was not: weights, optimiser, metrics.csv, result.json."""

from __future__ import annotations

import random
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from commands import QUICK, finished, forked, wait_for
from endings import assert_same_ending
from kills import killed

from alexnet_lab.run import train
from alexnet_lab.run.run_directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Compose = Callable[..., dict[str, Any]]

SHORT = (
    "trainer.max_epochs=3", "trainer.limit_train_batches=6", "trainer.limit_val_batches=3",
    "trainer.limit_test_batches=3", "callbacks.checkpoint.every_steps=4", "callbacks=to_error",
    "callbacks.augmentation_preview=false", "callbacks.to_error.error=0.85",
)  # fmt: skip

MOMENTS = {"step": 18, "validation": 9, "test": 3, "write": 6, "move": 12, "link": 9, "seconds": 2.0}
"""How many of each there are in such a run."""

DROPOUT = ("model=alexnet", "model.width=0.05", "model.towers=1", "optimizer=krizhevsky_sgd")


def go_on(config: dict[str, Any]) -> None:
    """What a user does after a kill: resumes, or starts again where no checkpoint was written yet."""
    directory = RunDirectory(config["run_dir"])
    if directory.result.exists() and (directory.read_result() or {}).get("status") == "completed":
        return
    train({"resume": config["run_dir"]} if directory.can_be_resumed() else config)


@pytest.mark.parametrize(("moment", "number"), [("step", 10), ("write", 3)])
def test_killed(moment, number, compose, whole_run, tmp_path):
    config = compose(f"run_dir={tmp_path / 'run'}", *SHORT, *DROPOUT)
    assert killed(config, moment, number) == -signal.SIGKILL
    go_on(config)
    assert_same_ending(tmp_path / "run", whole_run)
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {"last.ckpt", "best.ckpt", "best.safetensors"}


@pytest.fixture(scope="module")
def whole_run(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `test_killed`, undisturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(compose(f"run_dir={run}", *SHORT, *DROPOUT))
    return run


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("data", ["digits", pytest.param("cifar10", marks=pytest.mark.real_data)])
def test_killed_at_random_moments(data, compose, tmp_path, request):
    """Twelve runs of each, some of them killed twice."""
    words = [*SHORT, *DROPOUT, f"data={data}"]
    if data == "cifar10":
        words.append(f"data.dir={request.getfixturevalue('real_data')}")
    train(compose(f"run_dir={tmp_path / 'whole'}", *words))
    rng = random.Random(0)
    kills = 0
    while kills < 12:
        run = tmp_path / f"run{kills}"
        config = compose(f"run_dir={run}", *words)
        for _ in range(rng.choice([1, 1, 2])):
            moment = rng.choice(list(MOMENTS))
            most = MOMENTS[moment]
            number = rng.uniform(0.5, most) if isinstance(most, float) else rng.randrange(most)
            resumable = RunDirectory(run).can_be_resumed()
            kills += killed({"resume": str(run)} if resumable else config, moment, number) != 0
        go_on(config)
        assert_same_ending(run, tmp_path / "whole")
        shutil.rmtree(run)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_commands_of_two_processes(digits_dir, compose, tmp_path):
    """The command is killed and its workers notice it themselves; the run can be resumed at once."""
    words = (*SHORT, *DROPOUT, "trainer.devices=2", "trainer.accelerator=cpu", "data.batch_size=18")
    train(compose(f"run_dir={tmp_path / 'whole'}", *words))
    rng = random.Random(1)
    for number in range(6):
        run = tmp_path / f"run{number}"
        config = compose(f"run_dir={run}", *words)
        process = forked("train.py", f"run_dir={run}", f"data.dir={digits_dir}", *QUICK, *words, cwd=tmp_path)
        wait_for(run / "checkpoints" / "last.ckpt", process)
        time.sleep(rng.uniform(0, 1.5))
        process.kill()
        finished(process)
        go_on(config)
        assert_same_ending(run, tmp_path / "whole")
