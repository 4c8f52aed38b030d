"""`callbacks.checkpoint.every_epochs`: which epochs are written, and that no end of a run goes without."""

from __future__ import annotations

import os
import signal
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


def test_a_signal_at_the_end_of_an_epoch_that_is_not_written_costs_no_epoch(tmp_path, compose, monkeypatch):
    original = Checkpoints.on_train_epoch_end

    def signalled(self: Checkpoints, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, trainer, pl_module)

    monkeypatch.setattr(Checkpoints, "on_train_epoch_end", signalled)
    common = (*SHORT, "data.val_fraction=0", "trainer.max_epochs=4", "callbacks.checkpoint.every_epochs=4")
    with pytest.raises(Interrupted):
        train(compose(f"run_dir={tmp_path / 'run'}", *common))
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 3
