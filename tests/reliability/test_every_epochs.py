"""`callbacks.checkpoint.every_epochs`: which epochs are written, and that each run ends with a checkpoint."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from alexnet_lab.base.errors import Interrupted
from alexnet_lab.run import train
from alexnet_lab.training.checkpoint_io import load_checkpoint
from alexnet_lab.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHORT = ("trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1")


def written(run: Path, compose: Callable[..., Any], *words: str) -> list[int]:
    """The epochs of a run whose checkpoints are there, from 1."""
    train(compose(f"run_dir={run}", *SHORT, *words))
    names = (path.stem.removeprefix("epoch_") for path in (run / "checkpoints").glob("epoch_*.ckpt"))
    return sorted(map(int, names))


@pytest.mark.parametrize(
    ("words", "epochs"),
    [
        (("callbacks.checkpoint.keep=all",), [3, 6, 7]),
        (("callbacks.checkpoint.keep=2",), [6, 7]),
        (("callbacks.checkpoint.keep=all", "trainer.max_steps=9"), [3, 5]),
        (("callbacks.checkpoint.keep=all", "callbacks.checkpoint.every_epochs=10"), [7]),
        (
            (
                "callbacks.checkpoint.keep=all",
                "callbacks.checkpoint.every_epochs=10",
                "callbacks.checkpoint.every_steps=2",
                "trainer.limit_train_batches=1",
            ),
            [2, 4, 6, 7],
        ),
    ],
)
def test_every_third_epoch_and_the_last_are_written(words, epochs, tmp_path, compose):
    common = ("data.val_fraction=0", "trainer.max_epochs=7", "callbacks.checkpoint.every_epochs=3")
    assert written(tmp_path / "run", compose, *common, *words) == epochs
    last, best = (load_checkpoint(tmp_path / "run" / "checkpoints" / f"{name}.ckpt") for name in ("last", "best"))
    assert last["epoch"] + 1 == best["epoch"] + 1 == epochs[-1]
    assert all(torch.equal(value, best["state_dict"][name]) for name, value in last["state_dict"].items())


def test_the_best_epoch_is_written_whenever_it_comes(tmp_path, compose, monkeypatch):
    errors = iter([0.9, 0.5, 0.4, 0.6, 0.7, 0.8, 0.9])
    monkeypatch.setattr(
        "alexnet_lab.training.checkpoints.last_validation", lambda trainer: {"val/top1_error": next(errors)}
    )
    words = ("trainer.max_epochs=7", "callbacks.checkpoint.every_epochs=5", "callbacks.checkpoint.keep=all")
    assert written(tmp_path / "run", compose, *words) == [1, 2, 3, 5, 7]
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")["epoch"] == 2


@pytest.mark.parametrize(("hook", "place"), [("on_train_epoch_end", (2, 3)), ("end_batch", (1, 1))])
def test_a_signal_in_an_epoch_that_is_not_written_costs_no_epoch(hook, place, tmp_path, compose, monkeypatch):
    batches, step = place  # per epoch; of the checkpoint
    original = getattr(Checkpoints, hook)

    def signalled(self: Checkpoints, trainer: Any, *given: Any) -> None:
        if trainer.current_epoch == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, trainer, *given)

    monkeypatch.setattr(Checkpoints, hook, signalled)
    common = (*SHORT, "data.val_fraction=0", "trainer.max_epochs=4", "callbacks.checkpoint.every_epochs=4")
    with pytest.raises(Interrupted):
        train(compose(f"run_dir={tmp_path / 'run'}", *common, f"trainer.limit_train_batches={batches}"))
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == step


def test_the_last_epoch_may_take_more_than_max_steps():
    """A module that optimises by itself can take several steps per batch."""
    trainer: Any = SimpleNamespace(current_epoch=0, max_epochs=9, global_step=8, max_steps=7, should_stop=False)
    assert Checkpoints._ends(trainer)


def test_epochs_after_the_one_that_a_run_went_back_to_are_not_the_latest(tmp_path):
    for name in ("last", "epoch_4", "epoch_9", "epoch_²"):
        (tmp_path / f"{name}.ckpt").touch()
    Checkpoints(tmp_path, None)._keep_epoch(5, 1)
    assert {path.stem for path in tmp_path.iterdir()} == {"last", "epoch_5", "epoch_9", "epoch_²"}
