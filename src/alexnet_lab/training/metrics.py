"""Error rates as the papers count them: fractions of images; each image counts once for any number of processes."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from alexnet_lab.base.ranges import TOP_K
from alexnet_lab.data.loader import as_batch
from alexnet_lab.models.layers.response_norm import at_least_float
from alexnet_lab.training.per_rank_state import over_processes

NO_CLASS = -2
"""The predicted class of an image with a NaN among its logits."""

WAITING = 4096
"""The number of images counted at once. Counting each batch by itself would slow small networks by a tenth."""


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Counts the classes ranked before each image's label; the top-k prediction is wrong if this is k or more.

    A class ranks before the label if its logit is greater, or equal with a lower index. This is the only rule for
    ties, so the result depends on neither device, batch nor dtype. With bfloat16 logits and 1,000 classes about 3 % of
    the images have a tie for the best class. A NaN among the logits ranks the label behind all classes.

    Args:
        logits: (B, C), any float type.
        labels: (B,), int64 in [0, C).

    Returns:
        int64 (B,), in [0, C].

    Example:
        >>> ranks(torch.tensor([[1.0, 2.0, 2.0], [1.0, 2.0, 2.0]]), torch.tensor([1, 2])).tolist()
        [0, 1]
    """
    logits = at_least_float(logits)
    own, lower = logits.gather(1, labels[:, None]), class_indices(logits) < labels[:, None].int()
    before = ((logits > own) | ((logits == own) & lower)).sum(1, dtype=torch.int32)
    return torch.where(logits.amax(1).isnan(), logits.shape[1], before).long()


def predicted_classes(logits: Tensor) -> Tensor:
    """The predicted class of each image, int64 (B,): the class of rank 0, or NO_CLASS if a logit is NaN."""
    logits = at_least_float(logits)
    best = logits == logits.amax(1, keepdim=True)  # (B, C); a NaN equals nothing
    classes = logits.shape[1]
    lowest = torch.where(best, class_indices(logits), classes).amin(1)
    return torch.where(lowest == classes, NO_CLASS, lowest).long()


def best_classes(logits: Tensor, count: int = TOP_K) -> Tensor:
    """The `count` classes of lowest rank, best first: int64 (B, count), or fewer columns with fewer classes."""
    return at_least_float(logits).sort(dim=1, descending=True, stable=True).indices[:, :count]


def class_indices(logits: Tensor) -> Tensor:
    """0, 1, ... C - 1 on the device of the logits."""
    return torch.arange(logits.shape[1], dtype=torch.int32, device=logits.device)


class ErrorCounts:
    """Mean loss, top-1 and top-5 error over all images since the last reset.

    Counts are summed on the device and read once an epoch. Across processes the counts are summed too, so that batches
    of unequal size have the right weight.

    Args:
        num_classes: The number of classes, >= 2; with more than 5 the top-5 error is counted too.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.reset()

    def reset(self) -> None:
        """Clears all counts."""
        self._logits: list[tuple[Tensor, Tensor]] = []  # with their labels, not yet counted
        self._losses: list[Tensor] = []  # not yet summed
        self._losses_waiting = 0
        self._counts: Tensor | None = None  # int64 (3,): images, top-1 errors, top-5 errors
        self._loss_sum: Tensor | None = None  # float32 ()

    def update(self, logits: Tensor, labels: Tensor, losses: Tensor) -> None:
        """Adds one batch.

        Args:
            logits: (B, num_classes), any float type; must not be changed in place afterwards.
            labels: (B,), int64 in [0, num_classes).
            losses: (B,), the loss of each image.
        """
        self._logits.append((logits.detach(), labels))
        self._losses.append(losses.detach().float())
        self._losses_waiting += len(labels)
        if self._losses_waiting >= WAITING:
            self._count()
            self._add_losses()

    def _count(self) -> None:
        """Counts the waiting batches. The time of counting does not matter: counts are whole numbers."""
        if not self._logits:
            return
        logits, labels = (torch.cat(parts) for parts in zip(*self._logits, strict=True))
        self._logits = []
        rank = ranks(logits, labels)
        counts = torch.stack([torch.full_like(rank, 1).sum(), (rank >= 1).sum(), (rank >= TOP_K).sum()])
        self._counts = counts if self._counts is None else self._counts.to(counts.device) + counts

    def _add_losses(self) -> None:
        """Sums the waiting losses, always after the same number of images: the order decides the last bits."""
        if not self._losses:
            return
        total = self._waiting_losses().sum(dtype=torch.float32)
        self._losses, self._losses_waiting = [], 0
        self._loss_sum = total if self._loss_sum is None else self._loss_sum.to(total.device) + total

    def _waiting_losses(self) -> Tensor:
        """The waiting losses on the device of the latest one; those of a checkpoint are still on the CPU."""
        device = self._losses[-1].device
        return torch.cat([losses.to(device) for losses in self._losses])

    @property
    def images(self) -> Tensor:
        """The number of images that this process has counted: int64 ()."""
        return self._read(0)

    @property
    def top1_wrong(self) -> Tensor:
        """The number of wrong top-1 predictions among them: int64 ()."""
        return self._read(1)

    def _read(self, place: int) -> Tensor:
        self._count()
        return torch.zeros((), dtype=torch.int64) if self._counts is None else self._counts[place]

    def numbers(self) -> list[float]:
        """The exact state of this process since the last reset.

        The list contains images, top-1 errors, top-5 errors, the sum of losses, and each loss not yet summed.
        """
        self._count()
        counts = [0, 0, 0] if self._counts is None else self._counts.tolist()
        loss_sum = 0.0 if self._loss_sum is None else self._loss_sum.item()
        return [*counts, loss_sum, *(self._waiting_losses().tolist() if self._losses else [])]

    def set_numbers(self, numbers: list[float]) -> None:
        """Restores the state that `numbers` returned."""
        self.reset()
        if not numbers[0]:
            return
        self._counts = torch.tensor(numbers[:3], dtype=torch.int64)
        self._loss_sum = torch.tensor(numbers[3], dtype=torch.float32)
        self._losses = [torch.tensor(numbers[4:], dtype=torch.float32)]
        self._losses_waiting = len(numbers) - 4

    def compute(self) -> dict[str, Tensor]:
        """`loss`, `top1_error` and, with more than 5 classes, `top5_error`: scalars; NaN without images.

        All processes of a run must call this together.
        """
        self._count()
        self._add_losses()
        names = ["loss", "top1_error", *(["top5_error"] if self.num_classes > TOP_K else [])]
        if self._counts is None or self._loss_sum is None:  # the same in all processes: each has as many batches
            return {name: torch.tensor(math.nan) for name in names}
        counts, loss_sum = over_processes(self._counts), over_processes(self._loss_sum)
        images, top1, top5 = counts.unbind()
        return dict(zip(names, (loss_sum / images, top1 / images, top5 / images), strict=False))


log = logging.getLogger(__name__)


def add_confusions(counts: Tensor, logits: Tensor, labels: Tensor) -> None:
    """Counts the images of a batch by true class (rows) and predicted class (columns).

    An image with a NaN among its logits has no predicted class and is not counted.

    Args:
        counts: int64 (num_classes, num_classes), changed in place.
        logits: (B, num_classes), any float type.
        labels: (B,), int64; images with negative labels are not counted.
    """
    guess = predicted_classes(logits)
    known = (guess != NO_CLASS) & (labels >= 0)
    cells = torch.where(known, labels * len(counts) + guess, 0)
    counts.view(-1).index_add_(0, cells, known.long())


class Confusion(Callback):
    """Counts the test images by true class (rows) and predicted class (columns), over all processes.

    Args:
        num_classes: The number of classes, >= 2.

    Attributes:
        counts: (num_classes, num_classes) after the test; None before.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts: list[list[int]] | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Creates the matrix on the network's device."""
        self.matrix = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64, device=pl_module.device)
        self.complete = True

    def on_test_batch_end(  # noqa: PLR0917 - Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Adds a batch; `outputs` are the logits (B, num_classes) of `test_step`."""
        labels = as_batch(batch, trainer).labels
        self.complete &= are_logits(outputs, len(labels), self.num_classes)
        if self.complete:
            add_confusions(self.matrix, outputs, labels)
        elif batch_idx == 0:
            log.warning("there is no confusion matrix: test_step of %s returns no logits", type(pl_module).__name__)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums over the processes."""
        if self.complete:
            self.counts = over_processes(self.matrix).tolist()


def are_logits(outputs: Any, images: int, num_classes: int) -> bool:
    """Whether a step returned the logits (images, num_classes)."""
    return isinstance(outputs, torch.Tensor) and outputs.shape == (images, num_classes)
