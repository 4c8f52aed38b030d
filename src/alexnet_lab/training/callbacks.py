"""Callbacks that observe training: one row of metrics per epoch, the throughput and one log line.

In each hook Lightning calls subclasses of its `Checkpoint` last, when all metrics of the epoch are known. A callback
that reads them is therefore a subclass of `Checkpoint`.
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.optim import Optimizer

from alexnet_lab.base.csv_tables import csv_text
from alexnet_lab.base.errors import RunError
from alexnet_lab.base.files import write_text
from alexnet_lab.data.loader import as_batch
from alexnet_lab.training.classifier import Classifier
from alexnet_lab.training.last_validation import last_validation

log = logging.getLogger(__name__)

STAGES = ("train/", "val/", "test/")
"""Prefixes of metric names."""

LAYERS = "layers/"
"""The prefix of measurements of single layers."""


class EpochClock(Callback):
    """Measures the seconds of training in an epoch; validations within it do not count."""

    _began = _paused = 0.0

    def restart(self, used: float = 0.0) -> None:
        """Starts the clock as if `used` seconds of the epoch were over."""
        self._began = time.perf_counter() - used

    def elapsed(self) -> float:
        """The seconds since the epoch began."""
        return time.perf_counter() - self._began

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets the clock go on."""
        self._began += time.perf_counter() - self._paused


class Throughput(EpochClock):
    """Measures the training images per second, without validation and start-up."""

    def __init__(self) -> None:
        self.images_per_second = math.nan
        self.seconds = 0.0
        self.images = 0
        self._epoch_seconds = 0.0  # until the end of the last batch
        self._epoch_images = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restarts the clock, keeping the time that an interrupted epoch has used."""
        self.restart(self._epoch_seconds)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of an epoch."""
        self.restart()
        self._epoch_seconds, self._epoch_images = 0.0, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the images of the global batch. Time after the last batch of an epoch does not count."""
        self._epoch_seconds = self.elapsed()
        self._epoch_images += as_batch(batch, trainer).total

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds up the epoch's seconds and images."""
        self.images_per_second = self._epoch_images / self._epoch_seconds if self._epoch_seconds else math.nan
        self.seconds += self._epoch_seconds
        self.images += self._epoch_images
        self._epoch_seconds, self._epoch_images = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """Totals of the completed epochs, and the part of the current epoch."""
        part = {"epoch_seconds": self._epoch_seconds, "epoch_images": self._epoch_images}
        return {"seconds": self.seconds, "images": self.images} | part

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of the interrupted run."""
        self.seconds, self.images = state_dict["seconds"], state_dict["images"]
        self._epoch_seconds, self._epoch_images = state_dict["epoch_seconds"], state_dict["epoch_images"]


class MetricsCsv(Checkpoint):
    """Writes `metrics.csv` with one row per epoch, and one log line per epoch.

    Args:
        path: The file, rewritten as a whole after each epoch. A resumed run restores it from the rows in the
            checkpoint, whatever has happened to the file since.
        throughput: Provides the images per second.
    """

    def __init__(self, path: Path, throughput: Throughput) -> None:
        self.path = path
        self.throughput = throughput
        self.rows: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the rows of the epochs that a resumed run has completed."""
        if trainer.is_global_zero and self.rows:
            write_text(self.path, csv_text(self.rows))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the row of the epoch."""
        metrics = epoch_metrics(trainer)
        speed, rate = self.throughput.images_per_second, main_rate(trainer.optimizers[0])
        pl_module.log_dict({"learning_rate": rate, "images_per_second": speed})  # for trackers
        if trainer.is_global_zero:
            check_still_there(self.path.parent)
            place = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
            self.rows.append(place | metrics | {"learning_rate": rate, "images_per_second": round(speed, 1)})
            write_text(self.path, csv_text(self.rows))
            log.info(epoch_line(trainer.current_epoch + 1, trainer.max_epochs, metrics, speed))

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the rows of the interrupted run."""
        rows = list(state_dict["rows"])
        from_zero = bool(rows) and rows[0]["epoch"] == 0  # written by an older version
        self.rows = [row | {"epoch": row["epoch"] + 1} for row in rows] if from_zero else rows


class EndsBatch(Callback):
    """Acts at the end of a batch, after the module's own `on_train_batch_end` if it has one.

    Lightning calls callbacks before it. A checkpoint of a callback would lack what the module does there, and a resumed
    run does not call the hook again.
    """

    _is_late = False  # whether the module has such a hook

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replaces such a hook by one that calls `end_batch` too."""
        own = pl_module.on_train_batch_end
        self._is_late = is_overridden("on_train_batch_end", pl_module) or "on_train_batch_end" in vars(pl_module)

        def both(*arguments: Any) -> None:
            own(*arguments)
            self.end_batch(trainer, *arguments)

        if self._is_late:
            pl_module.on_train_batch_end = both  # pyright: ignore[reportAttributeAccessIssue] - called by position

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Acts, unless the module's hook does."""
        if not self._is_late:
            self.end_batch(trainer, outputs, batch, batch_idx)

    def end_batch(self, trainer: Trainer, outputs: Any, batch: Any, batch_idx: int) -> None:
        """What there is to do."""
        raise NotImplementedError


def network_of(module: LightningModule) -> nn.Module:
    """The network that a LightningModule trains: the net of a Classifier; of other classes the module itself."""
    return module.net if isinstance(module, Classifier) else module


def check_still_there(run_dir: Path) -> None:
    """Ends a run whose directory was removed: writing would recreate the directory without its config.

    Raises:
        RunError: The directory is gone.
    """
    if not run_dir.is_dir():
        raise RunError(f"the run directory {run_dir} was removed or moved while the run was going on")


def epoch_metrics(trainer: Trainer) -> dict[str, float]:
    """The metrics of this epoch's training and of its last validation."""
    logged = {name: value for name, value in trainer.callback_metrics.items() if name.startswith(("train/", LAYERS))}
    return {name: plain(value) for name, value in (last_validation(trainer) | logged).items()}


def main_group(optimizer: Optimizer) -> int:
    """The index of the parameter group with the most weights."""
    sizes = [sum(parameter.numel() for parameter in group["params"]) for group in optimizer.param_groups]
    return sizes.index(max(sizes))


def main_rate(optimizer: Optimizer) -> float:
    """The learning rate of the main group: a first layer's may be 0, biases' twice as high."""
    return float(optimizer.param_groups[main_group(optimizer)].get("lr", math.nan))


def plain(value: Tensor | float) -> float:
    """The shortest decimal that represents a float32 metric: 0.8888889, not 0.8888888955116272."""
    return float(str(np.float32(float(value))))


def epoch_line(epoch: int, epochs: int | None, metrics: dict[str, float], images_per_second: float) -> str:
    """One epoch in one line, with errors in per cent."""
    parts = [f"epoch {epoch}/{epochs}"]
    for stage in ("train", "val"):
        if f"{stage}/loss" in metrics:
            error = metrics.get(f"{stage}/top1_error")
            shown = "" if error is None else f", top-1 error {error:.2%}"
            parts.append(f"{stage} loss {metrics[f'{stage}/loss']:.4f}{shown}")
    return " | ".join([*parts, f"{images_per_second:,.0f} images/s"])
