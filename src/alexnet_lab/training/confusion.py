"""Which classes a network takes for which, counted while it is tested."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback
from torchmetrics.classification import MulticlassConfusionMatrix

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer
    from torch import Tensor


class Confusion(Callback):
    """Counts the test images of each true class (rows) that were called each class (columns), over all processes.

    Args:
        num_classes: The number of classes, >= 2.

    Attributes:
        counts: (num_classes, num_classes) once the test is over, before that None.
    """

    def __init__(self, num_classes: int) -> None:
        self.matrix = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self.counts: list[list[int]] | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts where the network is."""
        self.matrix = self.matrix.to(pl_module.device)

    def on_test_batch_end(  # noqa: PLR0917 - Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Adds a batch; `outputs` are the logits (B, num_classes) of `Classifier.test_step`."""
        self.matrix.update(outputs.argmax(1), batch.labels)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums over the processes."""
        total: Tensor = self.matrix.compute()
        self.counts = total.tolist()
        self.matrix.reset()
