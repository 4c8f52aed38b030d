"""Error rates as the papers count them: fractions of images, each image once, whatever the number of processes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from torch import Tensor

TOP_K = 5
"""ILSVRC's second measure; told only where there are more classes than this."""

WAITING = 4096
"""Images that are counted in one go: counting each batch by itself would cost small networks a tenth of their speed."""


class ErrorCounts:
    """Mean loss, top-1 and top-5 error over all images seen since the last reset.

    Whole counts are added up on the device and read once an epoch; across processes the counts are summed, so that
    batches of unequal size weigh what they should.

    Args:
        num_classes: The number of classes, >= 2; with more than 5 the top-5 error is counted too.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self._logits: list[tuple[Tensor, Tensor]] = []  # with their labels, not counted yet
        self._losses: list[Tensor] = []  # not added up yet
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
        self._losses.append(losses.detach())
        self._losses_waiting += len(labels)
        if self._losses_waiting >= WAITING:
            self._count()
            self._add_losses()

    def _count(self) -> None:
        """Counts the batches that wait. When that is done makes no difference: these are whole numbers."""
        if not self._logits:
            return
        logits, labels = (torch.cat(parts) for parts in zip(*self._logits, strict=True))
        self._logits = []
        best = logits.topk(min(TOP_K, self.num_classes), dim=1).indices  # (N, 5)
        hits = best == labels[:, None]
        images = hits.new_full((), len(labels), dtype=torch.int64)
        counts = torch.stack([images, images - hits[:, 0].sum(), images - hits.sum()])
        self._counts = counts if self._counts is None else self._counts.to(counts.device) + counts

    def _add_losses(self) -> None:
        """Adds up the losses that wait: after a fixed number of images, for the order decides about the last bits."""
        if not self._losses:
            return
        device = self._losses[-1].device  # a resumed run's first ones come from a file
        total = torch.cat([losses.to(device) for losses in self._losses]).sum(dtype=torch.float32)
        self._losses, self._losses_waiting = [], 0
        self._loss_sum = total if self._loss_sum is None else self._loss_sum.to(total.device) + total

    @property
    def images(self) -> Tensor:
        """How many this process has seen: int64 ()."""
        return self._read(0)

    @property
    def top1_wrong(self) -> Tensor:
        """Of how many of them the best guess was wrong: int64 ()."""
        return self._read(1)

    def _read(self, place: int) -> Tensor:
        self._count()
        return torch.zeros((), dtype=torch.int64) if self._counts is None else self._counts[place]

    def numbers(self) -> list[float]:
        """What this process has seen since the last reset, exactly.

        Images, top-1 errors, top-5 errors, the sum of losses, and then each loss that was not added to it yet.
        """
        self._count()
        counts = [0, 0, 0] if self._counts is None else self._counts.tolist()
        loss_sum = 0.0 if self._loss_sum is None else self._loss_sum.item()
        return [*counts, loss_sum, *(torch.cat(self._losses).tolist() if self._losses else [])]

    def set_numbers(self, numbers: list[float]) -> None:
        """Goes on from what `numbers` gave."""
        self.reset()
        if not numbers[0]:
            return
        self._counts = torch.tensor(numbers[:3], dtype=torch.int64)
        self._loss_sum = torch.tensor(numbers[3], dtype=torch.float32)
        self._losses = [torch.tensor(numbers[4:], dtype=torch.float32)]
        self._losses_waiting = len(numbers) - 4

    def compute(self) -> dict[str, Tensor]:
        """`loss`, `top1_error` and, with more than 5 classes, `top5_error`: scalars; NaN if no image was seen.

        All processes of a run must ask together.
        """
        self._count()
        self._add_losses()
        names = ["loss", "top1_error", *(["top5_error"] if self.num_classes > TOP_K else [])]
        if self._counts is None or self._loss_sum is None:  # so it is in all processes: each has as many batches
            return {name: torch.tensor(math.nan) for name in names}
        counts, loss_sum = over_processes(self._counts), over_processes(self._loss_sum)
        images, top1, top5 = counts.unbind()
        return dict(zip(names, (loss_sum / images, top1 / images, top5 / images), strict=False))


def over_processes(sums: Tensor) -> Tensor:
    """The sum over all processes of a run; `sums` itself stays what it is."""
    if not (dist.is_available() and dist.is_initialized()):
        return sums
    total = sums.clone()
    dist.all_reduce(total)
    return total
