"""A progress bar on a terminal, drawn twice a second by its own thread at any speed of training.

Lightning's bars are drawn by the training loop after every few steps, with small networks hundreds of times a second.
"""

from __future__ import annotations

import math
from time import monotonic
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SECONDS = 0.5
"""The interval between two updates."""


class ProgressLine(Callback):
    """Shows the progress of the epoch, the validation or the test, below the log lines."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(
            *columns, console=Console(stderr=True), transient=True, refresh_per_second=1 / SECONDS, expand=False
        )
        self._tasks: list[TaskID] = []  # a stack: validation runs within an epoch
        self._next = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Adds the epoch's bar before its first batch; a run that resumes within an epoch has no other hook for it."""
        if not self._tasks:
            self._begin(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", trainer.num_training_batches)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the validation's bar."""
        self._begin("validation", sum(trainer.num_val_batches))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the test's bar."""
        self._begin("test", sum(trainer.num_test_batches))

    def on_validation_batch_end(  # noqa: PLR0917 - Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Updates the bar."""
        now = monotonic()
        if now >= self._next:
            self._next = now + SECONDS
            self._bar.update(self._tasks[-1], completed=batch_idx + 1)

    on_train_batch_end = on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Removes the bar."""
        self._bar.remove_task(self._tasks.pop())

    on_train_epoch_end = on_test_end = on_validation_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restores the terminal."""
        self._bar.stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restores the terminal."""
        self._bar.stop()

    def _begin(self, title: str, batches: float) -> None:
        self._bar.start()
        self._tasks.append(self._bar.add_task(title, total=None if math.isinf(batches) else batches))
