"""The progress bar: what it shows, and that it leaves the terminal as it was."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace
from typing import Any

import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.demos.boring_classes import BoringModel
from rich.console import Console

from alexnet_lab.training import progress_bar
from alexnet_lab.training.progress_bar import ProgressLine

TRAINER: Any = SimpleNamespace(
    current_epoch=2, max_epochs=5, num_training_batches=4, num_val_batches=[3], num_test_batches=[2]
)


@pytest.fixture
def line(monkeypatch) -> ProgressLine:
    """On a terminal that is a text."""
    monkeypatch.setattr(
        progress_bar, "Console", lambda stderr: Console(file=io.StringIO(), force_terminal=True, width=100)
    )
    return ProgressLine()


def state(line: ProgressLine) -> list[tuple[str, float, float | None]]:
    return [(task.description, task.completed, task.total) for task in line._bar.tasks]


def test_epoch_validation_and_test_have_a_bar_each(line, monkeypatch):
    monkeypatch.setattr(progress_bar, "SECONDS", 0.0)
    line.on_train_batch_start(TRAINER, None, None, 0)
    line.on_train_batch_end(TRAINER, None, None, None, 1)
    assert state(line) == [("epoch 3/5", 2, 4)]
    line.on_validation_start(TRAINER, None)
    line.on_validation_batch_end(TRAINER, None, None, None, 0)
    assert state(line) == [("epoch 3/5", 2, 4), ("validation", 1, 3)]
    line.on_validation_end(TRAINER, None)
    line.on_train_epoch_end(TRAINER, None)
    line.on_test_start(TRAINER, None)
    line.on_test_batch_end(TRAINER, None, None, None, 1)
    assert state(line) == [("test", 2, 2)]
    line.on_test_end(TRAINER, None)
    line.teardown(TRAINER, None, "test")
    assert state(line) == []
    assert not line._bar.live.is_started


def test_between_two_pictures_nothing_is_drawn(line, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress_bar, "monotonic", lambda: clock[0])
    line.on_train_batch_start(TRAINER, None, None, 0)
    for batch, now in enumerate((10.0, 10.4, 10.6)):
        clock[0] = now
        line.on_train_batch_end(TRAINER, None, None, None, batch)
        assert state(line)[0][1] == (1, 1, 3)[batch]
    line.on_exception(TRAINER, None, ValueError())
    assert not line._bar.live.is_started


def test_an_epoch_without_end_has_no_total(line):
    endless: Any = SimpleNamespace(**(vars(TRAINER) | {"num_training_batches": math.inf}))
    line.on_train_batch_start(endless, None, None, 0)
    assert state(line) == [("epoch 3/5", 0, None)]
    line.teardown(endless, None, "fit")


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated")  # between Lightning 2.6 and torch 2.14
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_run_that_resumes_within_an_epoch_has_its_bar(line, tmp_path):
    seen = []

    class Saves(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            trainer.save_checkpoint(tmp_path / "within.ckpt")

    class Looks(Callback):
        def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
            seen.append(state(line))

    def trained(*callbacks: Callback, max_steps: int, resumed: Any = None) -> None:
        trainer = Trainer(
            accelerator="cpu", max_epochs=1, max_steps=max_steps, limit_train_batches=4, limit_val_batches=0,
            callbacks=list(callbacks), logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(BoringModel(), ckpt_path=resumed)

    trained(Saves(), max_steps=2)
    trained(line, Looks(), max_steps=4, resumed=tmp_path / "within.ckpt")
    assert [bars[0][0] for bars in seen] == ["epoch 1/1"] * 2
    assert seen[0] == [("epoch 1/1", 3, 4)]
    assert state(line) == []
