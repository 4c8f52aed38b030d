"""Which states of a run are kept: the last, the one before it, the best, and each epoch's if that is asked for."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any, Literal, cast

from lightning.pytorch.callbacks import Checkpoint

from alexnet_lab.base.files import link_or_copy
from alexnet_lab.training.callbacks import check_still_there
from alexnet_lab.training.checkpoint_io import MAY_FAIL

if TYPE_CHECKING:
    from pathlib import Path

    from lightning import LightningModule, Trainer

    from alexnet_lab.training.classifier import Classifier

log = logging.getLogger(__name__)

CLOCK_STEPS = 20
"""Several processes agree on the time once in so many steps; asking each other takes about a millisecond."""


class Checkpoints(Checkpoint):
    """Keeps `last.ckpt`, `previous.ckpt` and `best.ckpt`, of the epoch whose `monitor` was least so far.

    A run may go on from any of them, to the same end. Of equally good epochs the later one is kept as the best: it has
    seen more, at lower rates. The best is written before the last: a run killed in between goes on from before
    the epoch, and finds it again.

    Args:
        folder: Where the files lie.
        monitor: A logged metric; less is better. Until it is measured the last epoch counts as the best; with None it
            always does.
        every_steps: Write `last.ckpt` within an epoch too, after each so many steps of the optimiser; None: not.
        every_minutes: The same whenever so much time has passed since the last one; None: not.
        keep: Keep a checkpoint of each epoch too, `epoch_1.ckpt` and so on: "all", or the latest so many; None: none.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str | None,
        *,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        keep: int | Literal["all"] | None = None,
    ) -> None:
        self.folder = folder
        self.last = folder / "last.ckpt"
        self.previous = folder / "previous.ckpt"
        self.best = folder / "best.ckpt"
        self.monitor = monitor
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.keep: int | Literal["all"] | None = keep
        self.best_score = math.inf
        self.best_epoch = -1
        self._written = time.monotonic()
        self._stopped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was interrupted after another callback had ended its training does not train on."""
        self._written = time.monotonic()
        if self._stopped:
            trainer.should_stop = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes `last.ckpt` within an epoch, if it is time; where that fails, training goes on."""
        if self._is_possible(trainer, batch_idx + 1) and self._is_due(trainer):
            self._write_last(trainer, MAY_FAIL)

    def _is_possible(self, trainer: Trainer, batches: int) -> bool:
        """Not between two parts of a step, before a validation, nor at the end of an epoch, when another is written."""
        at_end = batches >= trainer.num_training_batches or trainer.global_step == trainer.max_steps
        whole_step = batches % trainer.accumulate_grad_batches == 0
        return whole_step and not at_end and not is_trial(trainer) and not is_validated_next(trainer, batches)

    def _is_due(self, trainer: Trainer) -> bool:
        if self.every_steps is not None and trainer.global_step % self.every_steps == 0:
            return True
        if self.every_minutes is None:
            return False
        due = time.monotonic() - self._written >= 60 * self.every_minutes
        if trainer.world_size == 1:
            return due
        return trainer.global_step % CLOCK_STEPS == 0 and trainer.strategy.broadcast(due)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the checkpoints of the epoch; all processes take part, the first one writes."""
        if is_trial(trainer):
            return
        self._stopped = trainer.should_stop
        score = cast("Classifier", pl_module).validated.get(self.monitor) if self.monitor is not None else None
        if self._is_best(score, trainer.current_epoch):
            trainer.save_checkpoint(self.best)
            if trainer.is_global_zero:
                self._keep_previous()
                link_or_copy(self.best, self.last)
            self._written = time.monotonic()
        else:
            self._write_last(trainer)
        if self.keep is not None and trainer.is_global_zero:
            self._keep_epoch(trainer.current_epoch + 1, self.keep)

    def _is_best(self, score: float | None, epoch: int) -> bool:
        """Whether an epoch is the best so far, which it is from now on."""
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
        self._written = time.monotonic()

    def _keep_epoch(self, epoch: int, keep: int | Literal["all"]) -> None:
        link_or_copy(self.last, epoch_checkpoint(self.folder, epoch))
        if keep != "all":
            epoch_checkpoint(self.folder, epoch - keep).unlink(missing_ok=True)

    def _keep_previous(self) -> None:
        check_still_there(self.last.parent.parent)
        if self.last.exists():
            link_or_copy(self.last, self.previous)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"best_score": self.best_score, "best_epoch": self.best_epoch, "stopped": self._stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the state of the interrupted run."""
        self.best_score = state_dict["best_score"]
        self.best_epoch = state_dict["best_epoch"]
        self._stopped = state_dict["stopped"]


def epoch_checkpoint(folder: Path, epoch: int) -> Path:
    """The file of an epoch, from 1, in the folder of checkpoints."""
    return folder / f"epoch_{epoch}.ckpt"


def is_validated_next(trainer: Trainer, batches: int) -> bool:
    """Whether a validation follows so many batches of an epoch: a run that went on from there would leave it out."""
    every = trainer.val_check_batch
    if every is None or every == math.inf or not trainer.enable_validation:
        return False
    counted = batches if trainer.check_val_every_n_epoch is not None else trainer.fit_loop.total_batch_idx + 1
    return counted % int(every) == 0


def is_trial(trainer: Trainer) -> bool:
    """Whether nothing of this run is to be kept."""
    return bool(trainer.fast_dev_run)  # pyright: ignore[reportAttributeAccessIssue] - Lightning sets it out of pyright's sight
