"""How soon training reaches a given training error: figure 1 of Krizhevsky, Sutskever, Hinton 2012.

The paper counts the epochs until a network's training error falls to 25 %, and does not say over which images. Here it
is the share of wrong answers among the last N images that were trained on, N being one epoch's: counted while training
(augmented, with dropout, each image before the step that learns from it), and looked at after every step. At the end
of an epoch it is the `train/top1_error` of metrics.csv; before the end of the first one it does not exist.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch.callbacks import Callback

from alexnet_lab.training.ranks import gathered, own_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning import LightningModule, Trainer
    from torch import Tensor

    from alexnet_lab.data.loader import Batch
    from alexnet_lab.training.classifier import Classifier

log = logging.getLogger(__name__)


class TimeToError(Callback):
    """Finds the first step after which the training error over the last epoch's worth of images is low enough.

    Its state is part of the checkpoints, so that an interrupted run finds the same step.

    Args:
        error: The training error to reach, a fraction in (0, 1).
        stop: End training with the epoch in which it is reached.

    Attributes:
        reached: `epochs` (a fraction: steps / steps of an epoch), `steps` of the optimiser, and `seconds` of training
            (validation and checkpoints left out), or None.
    """

    def __init__(self, *, error: float = 0.25, stop: bool = False) -> None:
        self.error = error
        self.stop = stop
        self.reached: dict[str, float] | None = None
        self._seconds = 0.0  # of the epochs before this one
        self._before: list[int] = []  # wrong answers to each batch of the epoch before this one
        self._total = 0  # images of that epoch
        self._start = 0.0
        self._wrong: list[Tensor] = []  # in this epoch so far, this process's share, after each batch
        self._images: list[int] = []  # in each batch of this epoch, all processes together
        self._ends: list[float] = []  # seconds since the start of the epoch
        self._steps: list[int] = []  # of the optimiser, since the start of the run

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets the clock of an epoch go on that was interrupted."""
        self._start = time.perf_counter() - (self._ends[-1] if self._ends else 0.0)
        self._wrong = [count.to(pl_module.device) for count in self._wrong]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of an epoch."""
        self._wrong, self._images, self._ends, self._steps = [], [], [], []
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Keeps the count that the classifier has reached; it is read at the end of the epoch, on the device."""
        if self.reached is None:
            self._wrong.append(cast("Classifier", pl_module).train_counts.top1_wrong.clone())
        self._images.append(batch.total)
        self._ends.append(time.perf_counter() - self._start)
        self._steps.append(trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the processes' counts up and looks for the step."""
        if self.reached is None and self._wrong:
            counts = cast("Tensor", trainer.strategy.reduce(torch.stack(self._wrong), reduce_op="sum")).tolist()
            wrong = [after - before for before, after in itertools.pairwise([0, *counts])]
            whole = len(wrong) == trainer.num_training_batches  # max_steps may end within an epoch
            self._total = sum(self._images) if whole else self._total
            place = first_crossing(self._before, wrong, self._total, self.error) if self._total else None
            if place is not None:
                self._found(trainer.current_epoch + (place + 1) / trainer.num_training_batches, place)
            self._before = wrong
        self._seconds += self._ends[-1] if self._ends else 0.0
        self._wrong, self._images, self._ends, self._steps = [], [], [], []
        if self.stop and self.reached:
            trainer.should_stop = True

    def _found(self, epochs: float, place: int) -> None:
        seconds = round(self._seconds + self._ends[place], 3)
        self.reached = {"epochs": round(epochs, 6), "steps": self._steps[place], "seconds": seconds}
        log.info("training error of %g %% reached after %.2f epochs", 100 * self.error, epochs)

    @property
    def result(self) -> dict[str, float | None]:
        """What result.json tells: the error asked for, and epochs, steps and seconds; null if it was not reached."""
        return {"error": self.error, **(self.reached or dict.fromkeys(("epochs", "steps", "seconds")))}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        epoch = {"wrong": gathered([int(count) for count in self._wrong])}
        epoch |= {"images": self._images, "ends": self._ends, "steps": self._steps}
        before = {"seconds": self._seconds, "before": self._before, "total": self._total}
        return {"reached": self.reached, **before, "epoch": epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the state of the interrupted run."""
        self.reached = state_dict["reached"]
        self._seconds = state_dict["seconds"]
        self._before = state_dict["before"]
        self._total = state_dict["total"]
        epoch = state_dict["epoch"]
        self._wrong = [torch.tensor(count) for count in own_part(epoch["wrong"])]
        self._images, self._ends, self._steps = epoch["images"], epoch["ends"], epoch["steps"]


def first_crossing(before: Sequence[int], wrong: Sequence[int], total: int, error: float) -> int | None:
    """The first batch of an epoch after which the error over the last epoch's worth of images is at most `error`.

    Args:
        before: Wrong answers to each batch of the epoch before; empty in the first epoch, which has a whole epoch
            behind it only at its end.
        wrong: The same of this epoch; fewer, if it was cut short.
        total: The images of a whole epoch.
        error: A fraction.

    Returns:
        The number of the batch from 0, or None.
    """
    if not before:
        return len(wrong) - 1 if sum(wrong) <= error * total else None
    within = sum(before)
    for place, (old, new) in enumerate(zip(before, wrong, strict=False)):
        within += new - old
        if within <= error * total:
            return place
    return None
