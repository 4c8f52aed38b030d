"""Error rates as the papers count them: fractions of images, each image once, whatever the number of processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

TOP_K = 5
"""ILSVRC's second measure; told only where there are more classes than this."""


class ErrorCounts(Metric):
    """Mean loss, top-1 and top-5 error over all images seen since the last reset.

    Whole counts are added up on the device and read once an epoch; across processes the counts are summed, so that
    batches of unequal size weigh what they should.

    Args:
        num_classes: The number of classes, >= 2; with more than 5 the top-5 error is counted too.
    """

    full_state_update = False
    images: Tensor
    loss_sum: Tensor
    top1_wrong: Tensor
    top5_wrong: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("images", "top1_wrong", "top5_wrong"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("loss_sum", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor, losses: Tensor) -> None:
        """Adds one batch.

        Args:
            logits: (B, num_classes), any float type.
            labels: (B,), int64 in [0, num_classes).
            losses: (B,), the loss of each image.
        """
        best = logits.topk(min(TOP_K, self.num_classes), dim=1).indices  # (B, 5)
        hits = best == labels[:, None]
        self.images += len(labels)
        self.top1_wrong += len(labels) - hits[:, 0].sum()
        self.top5_wrong += len(labels) - hits.sum()
        self.loss_sum += losses.sum(dtype=torch.float32)

    def compute(self) -> dict[str, Tensor]:
        """`loss`, `top1_error` and, with more than 5 classes, `top5_error`: scalars; NaN if no image was seen."""
        values = {"loss": self.loss_sum / self.images, "top1_error": self.top1_wrong / self.images}
        if self.num_classes > TOP_K:
            values["top5_error"] = self.top5_wrong / self.images
        return values
