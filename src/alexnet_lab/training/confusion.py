"""The confusion matrix of the test set."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback

from alexnet_lab.data.loader import as_batch
from alexnet_lab.training.metrics import NO_CLASS, over_processes, predicted_classes

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer
    from torch import Tensor

log = logging.getLogger(__name__)


class ConfusionMatrix:
    """Counts images by true class (rows) and predicted class (columns).

    Args:
        num_classes: The number of classes, >= 2.
        device: The device of the logits.

    Attributes:
        counts: int64 (num_classes, num_classes): 8 MB for 1,000 classes.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds one batch. An image with a NaN among its logits has no predicted class and is not counted.

        Args:
            logits: (B, num_classes), any float type.
            labels: (B,), int64; images with negative labels are not counted.
        """
        guess = predicted_classes(logits)
        known = (guess != NO_CLASS) & (labels >= 0)
        cells = torch.where(known, labels * len(self.counts) + guess, 0)
        self.counts.view(-1).index_add_(0, cells, known.long())


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
        self.matrix = ConfusionMatrix(self.num_classes, pl_module.device)
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
            self.matrix.update(outputs, labels)
        elif batch_idx == 0:
            log.warning("there is no confusion matrix: test_step of %s returns no logits", type(pl_module).__name__)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums over the processes."""
        if self.complete:
            self.counts = over_processes(self.matrix.counts).tolist()


def are_logits(outputs: Any, images: int, num_classes: int) -> bool:
    """Whether a step returned the logits (images, num_classes)."""
    return isinstance(outputs, torch.Tensor) and outputs.shape == (images, num_classes)
