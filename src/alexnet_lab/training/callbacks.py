"""What looks on while a network trains: checkpoints, one row of metrics an epoch, throughput, one line of log.

Lightning calls subclasses of its `Checkpoint` last in each hook, when all metrics of the epoch are known; the two
callbacks that read them are such subclasses for that reason.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.callbacks import Callback, Checkpoint

from alexnet_lab.base.errors import RunError
from alexnet_lab.base.files import write_text
from alexnet_lab.base.tables import csv_text

if TYPE_CHECKING:
    from pathlib import Path

    from lightning import LightningModule, Trainer
    from torch import Tensor
    from torch.optim import Optimizer

log = logging.getLogger(__name__)

STAGES = ("train/", "val/", "test/")
"""What the names of metrics start with."""

LAYERS = "layers/"
"""What the names of measurements of single layers start with."""


class Throughput(Callback):
    """Measures the images that training takes in per second, validation and start-up left out."""

    def __init__(self) -> None:
        self.images_per_second = math.nan
        self.seconds = 0.0
        self.images = 0
        self._start = self._end = 0.0
        self._epoch_images = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of an epoch."""
        self._start = self._end = time.perf_counter()
        self._epoch_images = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the global batch; what comes after an epoch's last batch does not count."""
        self._end = time.perf_counter()
        self._epoch_images += batch.total

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the clock."""
        seconds = self._end - self._start
        self.images_per_second = self._epoch_images / seconds if seconds else math.nan
        self.seconds += seconds
        self.images += self._epoch_images


class FiniteLoss(Checkpoint):
    """Ends a run that cannot come to anything, at the end of the epoch in which its training loss stopped being finite.

    The checkpoints are then those of the epochs before.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises RunError in all processes alike: the loss is summed over them."""
        loss = float(trainer.callback_metrics["train/loss"])
        if not math.isfinite(loss):
            raise RunError(
                f"the training loss is {loss} in epoch {trainer.current_epoch + 1}; lower optimizer.learning_rate or "
                f"set trainer.gradient_clip_val; trainer.detect_anomaly=true names the operation"
            )


class MetricsCsv(Checkpoint):
    """Writes `metrics.csv`: one row an epoch, the file whole after each, and one line of log.

    Args:
        path: The file. When a run is resumed it is written anew from the rows in the checkpoint: what became of the
            file meanwhile does not matter.
        throughput: Whose images per second are written beside the metrics.
    """

    def __init__(self, path: Path, throughput: Throughput) -> None:
        self.path = path
        self.throughput = throughput
        self.rows: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the rows of the epochs that a resumed run has behind it."""
        if trainer.is_global_zero and self.rows:
            write_text(self.path, csv_text(self.rows))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the epoch's row."""
        told = (*STAGES, LAYERS)
        metrics = {name: plain(value) for name, value in trainer.callback_metrics.items() if name.startswith(told)}
        speed, rate = self.throughput.images_per_second, main_rate(trainer.optimizers[0])
        pl_module.log_dict({"learning_rate": rate, "images_per_second": speed})  # for trackers
        if trainer.is_global_zero:
            place = {"epoch": trainer.current_epoch, "step": trainer.global_step}
            self.rows.append(place | metrics | {"learning_rate": rate, "images_per_second": round(speed, 1)})
            write_text(self.path, csv_text(self.rows))
            log.info(epoch_line(trainer.current_epoch + 1, trainer.max_epochs, metrics, speed))

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the rows of the interrupted run."""
        self.rows = list(state_dict["rows"])


def main_rate(optimizer: Optimizer) -> float:
    """The learning rate of the group with the most weights: a first layer's may be 0, biases' twice as high."""
    group = max(optimizer.param_groups, key=lambda group: sum(parameter.numel() for parameter in group["params"]))
    return float(group["lr"])


def plain(value: Tensor) -> float:
    """A float32 metric as the shortest decimal that stands for it: 0.8888889, not 0.8888888955116272."""
    return float(str(np.float32(value.item())))


def epoch_line(epoch: int, epochs: int | None, metrics: dict[str, float], images_per_second: float) -> str:
    """One epoch in one line, errors in per cent."""
    parts = [f"epoch {epoch}/{epochs}"]
    for stage in ("train", "val"):
        if f"{stage}/loss" in metrics:
            loss, error = metrics[f"{stage}/loss"], metrics[f"{stage}/top1_error"]
            parts.append(f"{stage} loss {loss:.4f}, top-1 error {error:.2%}")
    return " | ".join([*parts, f"{images_per_second:,.0f} images/s"])


class Checkpoints(Checkpoint):
    """Keeps `last.ckpt`, of the last epoch, and `best.ckpt`, of the epoch whose `monitor` was least so far.

    Of equally good epochs the later one is kept: it has seen more, at lower rates.

    Args:
        folder: Where the two files lie.
        monitor: A logged metric; less is better. Without validation the last epoch counts as the best.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        self.folder = folder
        self.monitor = monitor
        self.best_score = math.inf
        self.best_epoch = -1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the checkpoints of the epoch; all processes take part, the first one writes."""
        if trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue] - Lightning sets it out of pyright's sight
            return
        score = trainer.callback_metrics.get(self.monitor)
        better = score is None or float(score) <= self.best_score or self.best_epoch < 0
        if better:
            self.best_score = math.inf if score is None else float(score)
            self.best_epoch = trainer.current_epoch
        trainer.save_checkpoint(self.folder / "last.ckpt")
        if better:
            trainer.save_checkpoint(self.folder / "best.ckpt")

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"best_score": self.best_score, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the state of the interrupted run."""
        self.best_score = state_dict["best_score"]
        self.best_epoch = state_dict["best_epoch"]
