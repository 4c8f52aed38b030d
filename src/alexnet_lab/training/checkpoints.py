"""Which checkpoints are kept: the last, the one before it, the best, and optionally one per epoch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from alexnet_lab.base.files import link_or_copy
from alexnet_lab.training.callbacks import EndsBatch, check_still_there
from alexnet_lab.training.checkpoint_io import MAY_FAIL, SafeCheckpointIO
from alexnet_lab.training.extra_metrics import sign
from alexnet_lab.training.last_validation import last_validation

log = logging.getLogger(__name__)

CLOCK_STEPS = 20
"""With several processes, the interval in steps at which they agree on the time; each agreement takes about 1 ms."""


@dataclass(eq=False)
class Checkpoints(EndsBatch, Checkpoint):
    """Keeps `last.ckpt`, `previous.ckpt` and `best.ckpt`, the epoch with the best `monitor` so far.

    A run can resume from any of them and ends with the same weights. Among equally good epochs the latest is the best:
    it has seen more images, at lower rates. The best is written before the last. A run killed in between resumes from
    the previous epoch and reaches the best one again.

    Attributes:
        folder: The folder of the files.
        monitor: A logged metric; lower is better, unless it is one of the config's `metrics` that says otherwise. The
            last epoch is the best until this metric is measured, or always with None.
        every_steps: Also write `last.ckpt` every N optimiser steps, within an epoch too; None: never.
        every_minutes: The same every N minutes since the last checkpoint; None: never.
        every_epochs: Write `last.ckpt` after every N epochs and after the last; `best.ckpt` too where nothing is
            monitored.
        keep: Also keep those written after an epoch, `epoch_1.ckpt` and so on: "all", or the latest N; None: none.
        before_best: Called in rank 0 with the content of `best.ckpt` before it is written, to write other files that
            belong to it. It needs a Trainer with `SafeCheckpointIO`.
    """

    folder: Path
    monitor: str | None
    _: KW_ONLY
    every_steps: int | None = None
    every_minutes: float | None = None
    every_epochs: int = 1
    keep: int | Literal["all"] | None = None
    before_best: Callable[[Trainer, LightningModule, dict[str, Any]], None] | None = None

    def __post_init__(self) -> None:
        self.last, self.previous, self.best = (self.folder / f"{name}.ckpt" for name in ("last", "previous", "best"))
        self.best_score = math.inf
        self.best_epoch = -1
        self._written, self._written_step = time.monotonic(), 0
        self._agreed_step = 0  # when the processes last compared their time
        self._stopped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops again if another callback had ended training before the interruption."""
        self._restart_intervals(trainer)
        self._agreed_step = trainer.global_step
        super().on_train_start(trainer, pl_module)
        if self._stopped:
            trainer.should_stop = True

    def end_batch(self, trainer: Trainer, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Writes `last.ckpt` within an epoch when due; if that fails, training continues."""
        if self._is_possible(trainer, batch_idx + 1) and self._is_due(trainer):
            self._write_last(trainer, MAY_FAIL)

    def write_within_epoch(self, trainer: Trainer, batches: int) -> bool:
        """Writes `last.ckpt` after so many batches of an epoch; False where no run could go on from there."""
        if not self._is_possible(trainer, batches):
            return False
        self._write_last(trainer, MAY_FAIL)
        return True

    def write_each_epoch(self) -> None:
        """Writes the epoch that ends now and all that follow: the run has been asked to end."""
        self.every_epochs = 1

    def _is_possible(self, trainer: Trainer, batches: int) -> bool:
        """False between the parts of an accumulated step, before a validation, and at the end of an epoch."""
        at_end = batches >= trainer.num_training_batches or has_all_steps(trainer)
        whole_step = batches % trainer.accumulate_grad_batches == 0
        return whole_step and not at_end and not is_trial(trainer) and not is_validated_next(trainer, batches)

    def _is_due(self, trainer: Trainer) -> bool:
        every = self.every_steps  # also late, since none is written before a validation
        if every is not None and trainer.global_step // every > self._written_step // every:
            return True
        if self.every_minutes is None:
            return False
        due = time.monotonic() - self._written >= 60 * self.every_minutes
        if trainer.world_size == 1:
            return due
        if trainer.global_step // CLOCK_STEPS == self._agreed_step // CLOCK_STEPS:
            return False
        self._agreed_step = trainer.global_step
        return trainer.strategy.broadcast(due)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the checkpoints of the epoch; all processes take part, rank 0 writes."""
        if is_trial(trainer):
            return
        self._stopped = trainer.should_stop
        score = last_validation(trainer).get(self.monitor) if self.monitor is not None else None
        in_turn = (trainer.current_epoch + 1) % self.every_epochs == 0
        due = in_turn or self._ends(trainer) or self._is_due(trainer)
        if not due and score is None:
            return
        if self._is_best(None if score is None else score * sign(pl_module, self.monitor), trainer.current_epoch):
            if self.before_best is not None:
                io = cast("SafeCheckpointIO", trainer.strategy.checkpoint_io)
                io.before(self.best, partial(self.before_best, trainer, pl_module))
            trainer.save_checkpoint(self.best)
            if trainer.is_global_zero:
                self._keep_previous()
                link_or_copy(self.best, self.last)
            self._restart_intervals(trainer)
        elif due:
            self._write_last(trainer)
        else:
            return
        if self.keep is not None and trainer.is_global_zero:
            self._keep_epoch(trainer.current_epoch + 1, self.keep)

    def is_written(self, trainer: Trainer) -> bool:
        """Whether a checkpoint of the present step is written."""
        return self._written_step == trainer.global_step

    @staticmethod
    def _ends(trainer: Trainer) -> bool:
        """Whether this epoch is the last."""
        return trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs or has_all_steps(trainer)

    def _is_best(self, score: float | None, epoch: int) -> bool:
        """Whether an epoch is the best so far; if so, remembers it."""
        known = math.inf if score is None or not math.isfinite(score) else score
        better = known <= self.best_score
        if better:
            self.best_score = known
            self.best_epoch = epoch
        return better

    def _write_last(self, trainer: Trainer, options: dict[str, bool] | None = None) -> None:
        if trainer.is_global_zero:
            self._keep_previous()
        trainer.save_checkpoint(self.last, storage_options=options)
        self._restart_intervals(trainer)

    def _restart_intervals(self, trainer: Trainer) -> None:
        self._written, self._written_step = time.monotonic(), trainer.global_step

    def _keep_epoch(self, epoch: int, keep: int | Literal["all"]) -> None:
        link_or_copy(self.last, epoch_checkpoint(self.folder, epoch))
        if keep != "all":
            names = (path.stem.removeprefix("epoch_") for path in self.folder.glob("epoch_*.ckpt"))
            for old in sorted(int(name) for name in names if name.isdecimal() and int(name) <= epoch)[:-keep]:
                epoch_checkpoint(self.folder, old).unlink(missing_ok=True)

    def _keep_previous(self) -> None:
        check_still_there(self.last.parent.parent)
        if self.last.exists():
            link_or_copy(self.last, self.previous)

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        return {"best_score": self.best_score, "best_epoch": self.best_epoch, "stopped": self._stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of the interrupted run."""
        self.best_score = state_dict["best_score"]
        self.best_epoch = state_dict["best_epoch"]
        self._stopped = state_dict["stopped"]


def epoch_checkpoint(folder: Path, epoch: int) -> Path:
    """The checkpoint file of an epoch, counted from 1."""
    return folder / f"epoch_{epoch}.ckpt"


def has_all_steps(trainer: Trainer) -> bool:
    """Whether `max_steps` is reached; a module that optimises by itself may have passed it."""
    return -1 < trainer.max_steps <= trainer.global_step


def is_validated_next(trainer: Trainer, batches: int) -> bool:
    """Whether a validation follows this number of batches. A run resumed from there would skip the validation."""
    every = trainer.val_check_batch
    if every is None or every == math.inf or not trainer.enable_validation:
        return False
    counted = batches if trainer.check_val_every_n_epoch is not None else trainer.fit_loop.total_batch_idx + 1
    return counted % int(every) == 0


def is_trial(trainer: Trainer) -> bool:
    """Whether this is a `fast_dev_run`, which keeps nothing."""
    return bool(trainer.fast_dev_run)  # pyright: ignore[reportAttributeAccessIssue] - set where pyright does not see it
