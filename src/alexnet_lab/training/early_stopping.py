"""Ends training when a validation or training metric has not improved for some epochs."""

from __future__ import annotations

import logging
import math
from typing import Any, Literal

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from alexnet_lab.base.formats import counted
from alexnet_lab.base.ranges import ExtraMetric, NonNegativeFloat, PositiveInt
from alexnet_lab.training.extra_metrics import sign
from alexnet_lab.training.last_validation import last_validation

__all__ = ["EarlyStopping"]

log = logging.getLogger(__name__)


class EarlyStopping(Checkpoint):  # so it reads what the module logs at the end of the epoch, too
    """Ends training after `patience_epochs` epochs in a row in which `monitor` did not fall by `min_delta`.

    An epoch without validation counts as one without improvement, but patience never ends in such an epoch, nor before
    the Trainer's `min_epochs` and `min_steps`. Lightning's own `EarlyStopping` counts validations instead of epochs.

    Args:
        monitor: A validation metric, or a training metric as measured during training (augmented, with dropout).
            Lower is better; a metric of the config's `metrics` says itself.
        patience_epochs: N, >= 1.
        min_delta: The decrease that counts as an improvement, >= 0.

    Example:
        >>> stopping = EarlyStopping(monitor="val/loss", patience_epochs=2)
        >>> [stopping.is_over(loss) for loss in (0.5, 0.6, 0.4, 0.4, None, 0.4)]
        [False, False, False, False, False, True]
    """

    def __init__(
        self,
        *,
        monitor: Literal["val/loss", "val/top1_error", "val/top5_error", "train/loss", "train/top1_error"]
        | ExtraMetric = "val/loss",
        patience_epochs: PositiveInt = 10,
        min_delta: NonNegativeFloat = 0.0,
    ) -> None:
        self.monitor = monitor
        self.patience_epochs = patience_epochs
        self.min_delta = min_delta
        self.best = math.inf
        self.since = 0

    def is_over(self, value: float | None) -> bool:
        """Whether patience is over after an epoch with this metric, lower is better; None: it was not validated."""
        self.since += 1
        if value is None:
            return False
        if value < self.best - self.min_delta:
            self.best, self.since = value, 0
        return self.since >= self.patience_epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the epoch's metric; it is the same in all processes, so they stop together."""
        value = self._value(trainer)
        value = None if value is None else value * sign(pl_module, self.monitor)
        if self.is_over(value) and not trainer.should_stop and minimum_is_done(trainer):
            trainer.should_stop = True
            log.info(
                "early stopping after epoch %d: %s has not improved on %.4g for %s",
                trainer.current_epoch + 1, self.monitor, self.best * sign(pl_module, self.monitor),
                counted(self.since, "epoch"),
            )  # fmt: skip

    def _value(self, trainer: Trainer) -> float | None:
        metrics = last_validation(trainer) if self.monitor.startswith("val/") else trainer.callback_metrics
        value = metrics.get(self.monitor)
        return None if value is None else float(value)

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        return {"best": self.best, "since": self.since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of the interrupted run."""
        self.best, self.since = state_dict["best"], state_dict["since"]


def minimum_is_done(trainer: Trainer) -> bool:
    """Whether `min_epochs` and `min_steps` allow the end after this epoch: Lightning would only postpone it."""
    epochs, steps = trainer.min_epochs or 0, trainer.min_steps or 0
    return trainer.current_epoch + 1 >= epochs and trainer.global_step >= steps
