"""When training reaches a given training error or loss: figure 1 of Krizhevsky, Sutskever, Hinton 2012.

The paper counts the epochs until a network's training error falls to 25 %, but not over which images. Here the error is
the share of wrong answers among the last N training images, where N is the size of an epoch. It is counted during
training (augmented, with dropout, each image before the step that learns from it) and checked after every step. At the
end of an epoch it equals `train/top1_error` of metrics.csv; before the end of the first epoch it does not exist. The
loss is the mean over the same images, and equals `train/loss` at the end of an epoch.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import Annotated, Any, cast

import torch
from annotated_types import Gt, Lt
from lightning import LightningModule, Trainer
from torch import Tensor

from alexnet_lab.base.ranges import PositiveFloat
from alexnet_lab.data.loader import Batch, as_batch
from alexnet_lab.training.callbacks import EpochClock
from alexnet_lab.training.classifier import Classifier
from alexnet_lab.training.early_stopping import minimum_is_done
from alexnet_lab.training.per_rank_state import gathered, own_part

__all__ = ["TimeToError", "TimeToLoss"]

log = logging.getLogger(__name__)


class TimeTo(EpochClock):
    """Finds the first step after which a mean over the last epoch's worth of images reaches the goal.

    Its state is part of the checkpoints, so an interrupted run finds the same step.

    Args:
        goal: The mean to reach.
        stop: Whether to end training with the epoch in which the goal is reached, or after the Trainer's `min_epochs`
            and `min_steps`.

    Attributes:
        reached: `epochs` (a fraction: steps / steps per epoch), `steps` of the optimiser, and `seconds` of training
            (without validation, and checkpoints between epochs), or None.
    """

    name: str
    """The name of the measured value in result.json."""

    def __init__(self, goal: float, *, stop: bool) -> None:
        self.goal = goal
        self.stop = stop
        self.reached: dict[str, float] | None = None
        self._seconds = 0.0  # of the epochs before this one
        self._before: list[float] = []  # the sum over each batch of the last epoch's worth of images
        self._total = 0  # images of that epoch
        self._sums: list[Tensor] = []  # this process's sum in this epoch, after each batch
        self._images: list[int] = []  # in each batch of this epoch, over all processes
        self._ends: list[float] = []  # seconds since the start of the epoch
        self._steps: list[int] = []  # of the optimiser, since the start of the run

    def measure(self, classifier: Classifier, outputs: Any, batch: Batch) -> Tensor:
        """This process's value after a batch, on its device: ()."""
        raise NotImplementedError

    def per_batch(self, sums: list[float]) -> list[float]:
        """Converts an epoch's values of `measure`, summed over the processes, to sums over each batch."""
        raise NotImplementedError

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restarts the clock, keeping the time that an interrupted epoch has used."""
        self.restart(self._ends[-1] if self._ends else 0.0)
        self._sums = [number.to(pl_module.device) for number in self._sums]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of an epoch."""
        self._sums, self._images, self._ends, self._steps = [], [], [], []
        self.restart()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Measures on the device; the values are read at the end of the epoch."""
        batch = as_batch(batch, trainer)
        if self.reached is None:
            self._sums.append(self.measure(cast("Classifier", pl_module), outputs, batch))
        self._images.append(batch.total)
        self._ends.append(self.elapsed())
        self._steps.append(trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums the values over the processes and searches for the step."""
        if self.reached is None and self._sums:
            numbers = cast("Tensor", trainer.strategy.reduce(torch.stack(self._sums), reduce_op="sum")).tolist()
            sums = self.per_batch(numbers)
            size = trainer.num_training_batches
            whole = len(sums) == size  # max_steps may end within an epoch, and the run be continued
            self._total = sum(self._images) if whole else self._total
            before = self._before if len(self._before) == size else []
            place = first_crossing(before, sums, self._total, self.goal) if before or whole else None
            if place is not None:
                self._found(trainer.current_epoch + (place + 1) / trainer.num_training_batches, place)
            self._before = [*before, *sums][-max(len(before), len(sums)) :]
        self._seconds += self._ends[-1] if self._ends else 0.0
        self._sums, self._images, self._ends, self._steps = [], [], [], []
        if self.stop and self.reached and minimum_is_done(trainer):
            trainer.should_stop = True

    def _found(self, epochs: float, place: int) -> None:
        seconds = round(self._seconds + self._ends[place], 3)
        self.reached = {"epochs": round(epochs, 6), "steps": self._steps[place], "seconds": seconds}
        log.info("training %s of %g reached after %.2f epochs", self.name, self.goal, epochs)

    @property
    def result(self) -> dict[str, float | None]:
        """For result.json: the goal, and epochs, steps and seconds; null if not reached."""
        return {self.name: self.goal, **(self.reached or dict.fromkeys(("epochs", "steps", "seconds")))}

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs."""
        epoch = {"sums": gathered([number.item() for number in self._sums])}
        epoch |= {"images": self._images, "ends": self._ends, "steps": self._steps}
        before = {"seconds": self._seconds, "before": self._before, "total": self._total}
        return {"reached": self.reached, **before, "epoch": epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of the interrupted run."""
        self.reached = state_dict["reached"]
        self._seconds = state_dict["seconds"]
        self._before = state_dict["before"]
        self._total = state_dict["total"]
        epoch = state_dict["epoch"]
        self._sums = [torch.tensor(number) for number in own_part(epoch["sums"])]
        self._images, self._ends, self._steps = epoch["images"], epoch["ends"], epoch["steps"]


class TimeToError(TimeTo):
    """Measures when the training error, a fraction in (0, 1), falls to `error`.

    Example:
        >>> callback = TimeToError(error=0.25, stop=True)
        >>> callback.goal, callback.reached
        (0.25, None)
    """

    name = "error"

    def __init__(self, *, error: Annotated[float, Gt(0), Lt(1)] = 0.25, stop: bool = False) -> None:
        super().__init__(error, stop=stop)

    def measure(self, classifier: Classifier, outputs: Any, batch: Batch) -> Tensor:
        """The number of wrong answers in the epoch so far."""
        return classifier.train_counts.top1_wrong.clone()

    def per_batch(self, sums: list[float]) -> list[float]:
        """The number of wrong answers in each batch."""
        return [after - before for before, after in itertools.pairwise([0, *sums])]


class TimeToLoss(TimeTo):
    """Measures when the training loss, in nats for the cross-entropy, falls to `loss`.

    Example:
        >>> TimeToLoss(loss=1.0).goal
        1.0
    """

    name = "loss"

    def __init__(self, *, loss: PositiveFloat = 1.0, stop: bool = False) -> None:
        super().__init__(loss, stop=stop)

    def measure(self, classifier: Classifier, outputs: Any, batch: Batch) -> Tensor:
        """The sum of this process's losses; `outputs` contains their share of the mean over the step's images."""
        trainer = classifier.trainer
        return outputs["loss"].detach() * (batch.total * trainer.accumulate_grad_batches / trainer.world_size)

    def per_batch(self, sums: list[float]) -> list[float]:
        """The values are sums over each batch already."""
        return sums


def first_crossing(before: Sequence[float], sums: Sequence[float], total: int, goal: float) -> int | None:
    """The first batch of an epoch after which the mean over the last epoch's worth of images is at most `goal`.

    Args:
        before: The sum over each batch of the previous epoch, such as its wrong answers. Empty in the first epoch,
            where a whole epoch's worth of images exists only at the end.
        sums: The same for this epoch; fewer if it was cut short.
        total: The number of images of a whole epoch.
        goal: Per image.

    Returns:
        The number of the batch from 0, or None.
    """
    if not before:
        return len(sums) - 1 if sum(sums) <= goal * total else None
    within = sum(before)
    for place, (old, new) in enumerate(zip(before, sums, strict=False)):
        within += new - old
        if within <= goal * total:
            return place
    return None
