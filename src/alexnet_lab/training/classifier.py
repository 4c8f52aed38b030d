"""One network being trained to classify: net + loss + metrics + optimiser + schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from lightning import LightningModule

from alexnet_lab.base.targets import build
from alexnet_lab.training.metrics import ErrorCounts
from alexnet_lab.training.optimizers import build_optimizer
from alexnet_lab.training.schedules import Duration

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler
    from torch import Tensor, nn

    from alexnet_lab.data.loader import Batch


class Classifier(LightningModule):
    """Trains and tests a network that returns logits, by the mean cross-entropy over the global batch.

    It takes plain dictionaries (a `_target_` and its fields), so that its checkpoints hold nothing but tensors,
    numbers and strings and `Classifier.load_from_checkpoint(path)` needs no other file.

    Args:
        model: The network, e.g. `{"_target_": "alexnet_lab.models.LeNet5", "activation": "tanh"}`.
        num_classes: The number of classes, >= 2.
        optimizer: E.g. `{"_target_": "alexnet_lab.training.optimizers.sgd", "learning_rate": 0.01}`.
        schedule: E.g. `{"_target_": "alexnet_lab.training.schedules.one_cycle"}`; None keeps the rate constant.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1); in training only.
        memory_format: How images and kernels lie in memory; channels_last is faster for convolutions, the values are
            the same to rounding.
        trusted_packages: Packages besides the usual ones that a `_target_` may name.
    """

    def __init__(
        self,
        *,
        model: dict[str, Any],
        num_classes: int,
        optimizer: dict[str, Any],
        schedule: dict[str, Any] | None = None,
        label_smoothing: float = 0.0,
        memory_format: Literal["contiguous", "channels_last"] = "channels_last",
        trusted_packages: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # W&B gets the whole config as flat keys instead
        self.optimizer_spec = optimizer
        self.schedule_spec = schedule
        self.label_smoothing = label_smoothing
        self.trusted = tuple(trusted_packages or ())
        self.memory_format = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
        net: nn.Module = build(model, trusted=self.trusted)
        self.net = net.to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
        self.train_counts = ErrorCounts(num_classes)
        self.val_counts = ErrorCounts(num_classes)
        self.test_counts = ErrorCounts(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, C, H, W)."""
        return self.net(images.contiguous(memory_format=self.memory_format))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The share of this process in the mean loss over the global batch.

        DDP averages gradients over processes, which may hold unequal shares of a batch: so the sum is scaled by
        world size / global batch size, and N processes take the step that one process would take.
        """
        logits = self(batch.images)
        losses = F.cross_entropy(logits.float(), batch.labels, reduction="none", label_smoothing=self.label_smoothing)
        self.train_counts.update(logits.detach(), batch.labels, losses.detach())
        return losses.sum() * (self.trainer.world_size / batch.total)

    def validation_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Counts one batch of the validation part and returns its logits (B, num_classes)."""
        return self._count(batch, self.val_counts)

    def test_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Counts one batch of the test set and returns its logits (B, num_classes)."""
        return self._count(batch, self.test_counts)

    def _count(self, batch: Batch, counts: ErrorCounts) -> Tensor:
        logits = self(batch.images)
        counts.update(logits, batch.labels, F.cross_entropy(logits.float(), batch.labels, reduction="none"))
        return logits

    def on_train_epoch_end(self) -> None:
        """Logs `train/...` of the epoch, as seen while training: augmented, with dropout."""
        self._log("train", self.train_counts)

    def on_validation_epoch_end(self) -> None:
        """Logs `val/...`."""
        self._log("val", self.val_counts)

    def on_test_epoch_end(self) -> None:
        """Logs `test/...`."""
        self._log("test", self.test_counts)

    def _log(self, stage: str, counts: ErrorCounts) -> None:
        """Reads the counts (summed over processes), logs and clears them."""
        self.log_dict({f"{stage}/{name}": value for name, value in counts.compute().items()})
        counts.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser and schedule of the config; epochs become steps here."""
        optimizer = build_optimizer(self.optimizer_spec, self.net, self.trusted)
        if self.schedule_spec is None:
            return optimizer
        duration = Duration(int(self.trainer.estimated_stepping_batches), self.trainer.max_epochs or 1)
        schedule = build(self.schedule_spec, optimizer, duration, trusted=self.trusted)
        return cast("OptimizerLRScheduler", {"optimizer": optimizer, "lr_scheduler": schedule})
