"""Rows by optimiser step: `logger.every_steps=50` writes loss, learning rate and gradient norm of each 50th step.

They go to `steps.csv` and to each logger. With `logger.watch=gradients` W&B also gets a histogram of each gradient.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.optim import Optimizer

from alexnet_lab.base import targets
from alexnet_lab.base.csv_tables import csv_lines
from alexnet_lab.base.files import write_text
from alexnet_lab.config.schema import Train
from alexnet_lab.run import tracking
from alexnet_lab.run.tolerant_loggers import Steady
from alexnet_lab.training.callbacks import main_rate, network_of, plain
from alexnet_lab.training.checkpoints import has_all_steps

log = logging.getLogger(__name__)

COLUMNS = ("step", "epoch", *tracking.STEP_METRICS)
"""Of steps.csv; the epoch is a fraction: 1.5 is the middle of the second one."""

WATCH_STEPS = 100
"""The interval of `logger.watch` where `logger.every_steps` is null."""

BINS = 64
"""Of a histogram."""


def step_log(config: Train, path: Path) -> StepLog | None:
    """The callback that a config asks for. Of several loggers the smallest interval counts, for all of them."""
    node = config.logger or {}
    specs = [node, *targets.parts({"logger": node}).values()]
    intervals = [spec["every_steps"] for spec in specs if spec.get("every_steps")]
    watched = next((spec["watch"] for spec in specs if spec.get("watch")), None)
    if not intervals and watched is None:
        return None
    return StepLog(path, min(intervals, default=WATCH_STEPS), watched)


class StepLog(Callback):
    """Logs every n-th optimiser step; in between it compares two integers per batch.

    The loss is the mean over the global batch, all batches of a step with `accumulate_grad_batches` included. The norm
    is that of the gradient before clipping. It is left out where a process holds only a part of the gradient (FSDP).

    Args:
        path: Of steps.csv. A resumed run drops the rows after its checkpoint and writes them again.
        every: Optimiser steps between two rows.
        watched: "gradients", "parameters" or "all" adds histograms; None adds none.
    """

    def __init__(self, path: Path, every: int, watched: str | None = None) -> None:
        self.path = path
        self.every = every
        self.watched = watched
        self._next = 0  # the number of the step that the current batch belongs to
        self._losses: list[Tensor] = []
        self._row: dict[str, Any] = {}
        self._histograms: dict[str, tuple[Tensor, Tensor]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the rows after the checkpoint of a resumed run."""
        if trainer.is_global_zero:
            kept = "".join(kept_lines(self.path, trainer.global_step))
            self._attempt(lambda: write_text(self.path, csv_lines([COLUMNS]) + kept))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Notes which step the batch belongs to."""
        self._next = trainer.global_step + 1

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measures the gradient of a step that is logged."""
        if self._next % self.every:
            return
        self._row = {"step/learning_rate": main_rate(optimizer), "step/gradient_norm": math.nan}
        if isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            gradients = [value.grad for value in pl_module.parameters() if value.grad is not None]
            self._row["step/gradient_norm"] = torch.nn.utils.get_total_norm(gradients) / scale_of(trainer, optimizer)
        if self.watched is not None and trainer.is_global_zero:
            self._histograms = dict(histograms(pl_module, self.watched))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs a step after its last batch."""
        if self._next % self.every:
            return
        if isinstance(outputs, dict) and "loss" in outputs:  # a share of the mean over the step's batches
            self._losses.append(outputs["loss"].detach() * trainer.accumulate_grad_batches)
        if trainer.global_step < self._next:
            return
        loss = torch.stack(self._losses).mean() if self._losses else torch.tensor(math.nan)
        loss = trainer.strategy.reduce(loss, reduce_op="mean")
        self._losses = []
        if trainer.is_global_zero:
            row = {name: plain(value) for name, value in ({"step/loss": loss} | self._row).items()}
            part = (batch_idx + 1) / trainer.num_training_batches
            place = {"step": trainer.global_step, "epoch": round(trainer.current_epoch + part, 4)}
            self._attempt(lambda: append(self.path, place | row))
            last = trainer.is_last_batch or has_all_steps(trainer)
            loggers = [logger for logger in trainer.loggers if isinstance(logger, Steady)]
            tracking.log_step(loggers, row, trainer.global_step, ends_epoch=last, histograms=self._histograms)

    def _attempt(self, write: Callable[[], Any]) -> None:
        """Writes; if that fails, training continues."""
        try:
            write()
        except OSError as error:
            log.warning("%s could not be written (%s); training continues", self.path, error.strerror or error)


def scale_of(trainer: Trainer, optimizer: Optimizer) -> float:
    """The factor of float16's loss scaling that the gradients still have, for optimisers that divide by it later."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return 1.0
    return float(scaler.get_scale())


def histograms(module: LightningModule, watched: str) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Counts (BINS,) and edges (BINS + 1,) of each gradient or parameter, named as W&B's own `watch` does."""
    for name, parameter in network_of(module).named_parameters():
        if watched != "parameters" and parameter.grad is not None:
            yield f"gradients/{name}", histogram(parameter.grad)
        if watched != "gradients":
            yield f"parameters/{name}", histogram(parameter)


def histogram(values: Tensor) -> tuple[Tensor, Tensor]:
    """Counts (BINS,) and edges (BINS + 1,) of the finite values."""
    finite = values.detach().float().flatten()
    finite = finite[finite.isfinite()]
    low, high = (float(value) for value in finite.aminmax()) if finite.numel() else (0.0, 0.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return torch.histc(finite, BINS, low, high).cpu(), torch.linspace(low, high, BINS + 1)


def kept_lines(path: Path, step: int) -> Iterator[str]:
    """The complete lines of steps.csv up to a step; none at step 0, or if the file is missing or damaged."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
    except (OSError, ValueError):
        lines = []
    for line in lines:
        number = line.partition(",")[0]
        if line.endswith("\n") and line.count(",") == len(COLUMNS) - 1 and number.isdecimal() and int(number) <= step:
            yield line


def append(path: Path, row: dict[str, Any]) -> None:
    """Adds a row at the end of a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(csv_lines([[row[name] for name in COLUMNS]]))
