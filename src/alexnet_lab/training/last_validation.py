"""What the last validation of the present epoch measured, for checkpoints, schedules and whatever else waits for it."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

KEY = "validated"
"""The metrics in a checkpoint."""


class LastValidation(Callback):
    """Keeps the `val/` metrics of the present epoch's last validation, whatever LightningModule logs them.

    Lightning's own `callback_metrics` also hold those of earlier epochs, and are empty in a resumed run.

    Attributes:
        metrics: By name; empty as long as the epoch has no validation.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the epoch before."""
        self.metrics = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the metrics."""
        if not trainer.sanity_checking:
            logged = trainer.callback_metrics.items()
            self.metrics = {name: float(value) for name, value in logged if name.startswith("val/")}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the metrics."""
        checkpoint[KEY] = self.metrics

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restores them."""
        self.metrics = checkpoint.get(KEY, {})


class ValidatedEnd(Callback):
    """Validates the last weights where `max_steps` ends an epoch early, and in an epoch that was validated within.

    An epoch that `check_val_every_n_epoch` leaves out is not validated here either.
    """

    def __init__(self) -> None:
        self._every: float | None = None  # the Trainer's own interval, while it is another one

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Makes a validation follow the last batch."""
        is_last = batch_idx + 1 >= trainer.num_training_batches
        steps = is_last or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        ends_training = steps and trainer.max_steps - trainer.global_step == 1
        if ends_training or (is_last and last_validation(trainer)):
            self._every = trainer.val_check_batch
            across_epochs = trainer.check_val_every_n_epoch is None
            trainer.val_check_batch = (trainer.fit_loop.total_batch_idx if across_epochs else batch_idx) + 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the interval."""
        if self._every is not None:
            trainer.val_check_batch, self._every = self._every, None


def last_validation(trainer: Trainer) -> dict[str, float]:
    """The `val/` metrics of the present epoch's last validation; empty if there was none."""
    found = [callback for callback in trainer.callbacks if isinstance(callback, LastValidation)]  # pyright: ignore[reportAttributeAccessIssue] - set out of its sight
    return found[0].metrics if found else {}
