"""How soon training reaches a given training error or loss: figure 1 of Krizhevsky, Sutskever, Hinton 2012.

The paper counts the epochs until a network's training error falls to 25 %, and does not say over which images. Here it
is the share of wrong answers among the last N images that were trained on, N being one epoch's: counted while training
(augmented, with dropout, each image before the step that learns from it), and looked at after every step. At the end
of an epoch it is the `train/top1_error` of metrics.csv; before the end of the first one it does not exist. The loss is
the mean over the same images, and `train/loss` at the end of an epoch.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch.callbacks import Callback

from alexnet_lab.data.loader import as_batch
from alexnet_lab.training.per_rank_state import gathered, own_part

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Annotated

    from annotated_types import Gt, Lt
    from lightning import LightningModule, Trainer
    from torch import Tensor

    from alexnet_lab.base.ranges import PositiveFloat
    from alexnet_lab.data.loader import Batch
    from alexnet_lab.training.classifier import Classifier

log = logging.getLogger(__name__)


class TimeTo(Callback):
    """Finds the first step after which a mean over the last epoch's worth of images is low enough.

    Its state is part of the checkpoints, so that an interrupted run finds the same step.

    Args:
        goal: The mean to reach.
        stop: End training with the epoch in which it is reached.

    Attributes:
        reached: `epochs` (a fraction: steps / steps of an epoch), `steps` of the optimiser, and `seconds` of training
            (validation and checkpoints left out), or None.
    """

    name: str
    """Of what is measured, in result.json."""

    def __init__(self, goal: float, *, stop: bool) -> None:
        self.goal = goal
        self.stop = stop
        self.reached: dict[str, float] | None = None
        self._seconds = 0.0  # of the epochs before this one
        self._before: list[float] = []  # the sum over each batch of the epoch before this one
        self._total = 0  # images of that epoch
        self._start = 0.0
        self._sums: list[Tensor] = []  # in this epoch so far, this process's share, after each batch
        self._images: list[int] = []  # in each batch of this epoch, all processes together
        self._ends: list[float] = []  # seconds since the start of the epoch
        self._steps: list[int] = []  # of the optimiser, since the start of the run

    def measure(self, classifier: Classifier, outputs: Any, batch: Batch) -> Tensor:
        """This process's number after a batch, on its device: ()."""
        raise NotImplementedError

    def per_batch(self, sums: list[float]) -> list[float]:
        """What `measure` gave in an epoch, added up over the processes, as sums over each batch."""
        raise NotImplementedError

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets the clock of an epoch go on that was interrupted."""
        self._start = time.perf_counter() - (self._ends[-1] if self._ends else 0.0)
        self._sums = [number.to(pl_module.device) for number in self._sums]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of an epoch."""
        self._sums, self._images, self._ends, self._steps = [], [], [], []
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Measures, on the device; the numbers are read at the end of the epoch."""
        batch = as_batch(batch, trainer)
        if self.reached is None:
            self._sums.append(self.measure(cast("Classifier", pl_module), outputs, batch))
        self._images.append(batch.total)
        self._ends.append(time.perf_counter() - self._start)
        self._steps.append(trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the processes' numbers up and looks for the step."""
        if self.reached is None and self._sums:
            numbers = cast("Tensor", trainer.strategy.reduce(torch.stack(self._sums), reduce_op="sum")).tolist()
            sums = self.per_batch(numbers)
            whole = len(sums) == trainer.num_training_batches  # max_steps may end within an epoch
            self._total = sum(self._images) if whole else self._total
            place = first_crossing(self._before, sums, self._total, self.goal) if self._total else None
            if place is not None:
                self._found(trainer.current_epoch + (place + 1) / trainer.num_training_batches, place)
            self._before = sums
        self._seconds += self._ends[-1] if self._ends else 0.0
        self._sums, self._images, self._ends, self._steps = [], [], [], []
        if self.stop and self.reached:
            trainer.should_stop = True

    def _found(self, epochs: float, place: int) -> None:
        seconds = round(self._seconds + self._ends[place], 3)
        self.reached = {"epochs": round(epochs, 6), "steps": self._steps[place], "seconds": seconds}
        log.info("training %s of %g reached after %.2f epochs", self.name, self.goal, epochs)

    @property
    def result(self) -> dict[str, float | None]:
        """For result.json: the goal, and epochs, steps and seconds; null if it was not reached."""
        return {self.name: self.goal, **(self.reached or dict.fromkeys(("epochs", "steps", "seconds")))}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        epoch = {"sums": gathered([number.item() for number in self._sums])}
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
        self._sums = [torch.tensor(number) for number in own_part(epoch["sums"])]
        self._images, self._ends, self._steps = epoch["images"], epoch["ends"], epoch["steps"]


class TimeToError(TimeTo):
    """How soon the training error, a fraction in (0, 1), falls to `error`."""

    name = "error"

    def __init__(self, *, error: Annotated[float, Gt(0), Lt(1)] = 0.25, stop: bool = False) -> None:
        super().__init__(error, stop=stop)

    def measure(self, classifier: Classifier, outputs: Any, batch: Batch) -> Tensor:
        """The wrong answers of the epoch so far."""
        return classifier.train_counts.top1_wrong.clone()

    def per_batch(self, sums: list[float]) -> list[float]:
        """The wrong answers to each batch."""
        return [after - before for before, after in itertools.pairwise([0, *sums])]


class TimeToLoss(TimeTo):
    """How soon the training loss, in nats for the cross-entropy, falls to `loss`."""

    name = "loss"

    def __init__(self, *, loss: PositiveFloat = 1.0, stop: bool = False) -> None:
        super().__init__(loss, stop=stop)

    def measure(self, classifier: Classifier, outputs: Any, batch: Batch) -> Tensor:
        """The losses of this process's images, added up; `outputs` holds their share in the mean of the batch."""
        return outputs["loss"].detach() * (batch.total / classifier.trainer.world_size)

    def per_batch(self, sums: list[float]) -> list[float]:
        """They are."""
        return sums


def first_crossing(before: Sequence[float], sums: Sequence[float], total: int, goal: float) -> int | None:
    """The first batch of an epoch after which the mean over the last epoch's worth of images is at most `goal`.

    Args:
        before: The sum over each batch of the epoch before, such as its wrong answers; empty in the first epoch, which
            has a whole epoch behind it only at its end.
        sums: The same of this epoch; fewer, if it was cut short.
        total: The images of a whole epoch.
        goal: For each image.

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
