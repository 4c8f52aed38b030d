"""A run that is resumed from any step of any epoch ends as one that was not interrupted, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from endings import assert_same_ending

from alexnet_lab.run import train
from alexnet_lab.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable

BASE = (
    "trainer.max_epochs=3", "trainer.limit_train_batches=5", "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2", "callbacks.checkpoint.every_steps=1",
)  # fmt: skip

VARIANTS = {
    "dropout": ("model=alexnet", "model.width=0.05", "model.towers=1", "callbacks.layer_statistics=true"),
    "two_batches_a_step": ("trainer.accumulate_grad_batches=2",),
    "steps_end_within_an_epoch": ("trainer.max_steps=13",),
    "validation_every_other_epoch": ("trainer.check_val_every_n_epoch=2",),
    "to_error": ("callbacks=to_error", "callbacks.augmentation_preview=false", "callbacks.to_error.error=0.85"),
    "early_stopping": ("callbacks=early_stopping", "callbacks.augmentation_preview=false",
                       "callbacks.early_stopping.patience_epochs=1", "callbacks.early_stopping.min_delta=100.0",
                       "trainer.max_epochs=9"),
    "curvature": ("model=lenet5_1998", "optimizer=diagonal_lm", "optimizer.samples=20", "optimizer.every_images=32",
                  "schedule=lenet5_1998"),
    "all_images_in_one_order": ("data.val_fraction=0", "data.order=constant", "augment=crop"),
    "checkpoints_every_other_epoch": ("callbacks.checkpoint.every_steps=null", "callbacks.checkpoint.every_epochs=2",
                                      "trainer.max_epochs=5", "data.val_fraction=0"),
    "validation_within_epochs": ("trainer.val_check_interval=2", "callbacks=early_stopping",
                                 "callbacks.layer_statistics=true",
                                 "callbacks.augmentation_preview=false"),
    "validation_across_epochs": ("trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=3"),
    "weight_averaging": ("+callbacks.ema._target_=lightning.pytorch.callbacks.WeightAveraging",),
    "krizhevsky": ("optimizer=krizhevsky_sgd", "schedule=plateau"),
}  # fmt: skip


def train_keeping_each_state(compose: Callable[..., Any], run: Path, words: tuple[str, ...]) -> list[Path]:
    """Trains; returns a copy of the run directory as it was after each write of a checkpoint."""
    copies: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:

        def after(name: str) -> None:
            original = getattr(Checkpoints, name)

            def wrapped(self: Checkpoints, *arguments: Any) -> None:
                before = self._written
                original(self, *arguments)
                if self._written != before:
                    copies.append(Path(shutil.copytree(run, run.parent / f"copy{len(copies)}")))

            patch.setattr(Checkpoints, name, wrapped)

        after("on_train_batch_end")
        after("on_train_epoch_end")
        train(compose(f"run_dir={run}", *BASE, *words))
    return copies


@pytest.mark.parametrize(
    ("variant", "every"),
    [
        ("dropout", 4),
        ("to_error", 5),
        ("validation_within_epochs", 3),
        ("weight_averaging", 4),
        ("all_images_in_one_order", 6),
        *(pytest.param(variant, 1, marks=pytest.mark.slow) for variant in VARIANTS),
    ],
)
def test_resuming_at_any_step(variant, every, compose, tmp_path):
    whole = tmp_path / "whole"
    copies = train_keeping_each_state(compose, whole, VARIANTS[variant])
    for copy in copies[every - 1 :: every]:
        train({"resume": str(copy)})
        assert_same_ending(copy, whole)
        shutil.rmtree(copy)
