"""A run whose loss is no number any more ends at that step, and says where it was first seen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch.callbacks import Callback

from alexnet_lab.base.errors import RunError
from alexnet_lab.models.hooks import watched
from alexnet_lab.training.batch_norm import alone
from alexnet_lab.training.callbacks import main_rate

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer
    from torch import Tensor, nn

    from alexnet_lab.data.loader import Batch
    from alexnet_lab.training.classifier import Classifier
    from alexnet_lab.training.step_seeds import StepSeeds

MEND = "lower optimizer.learning_rate or set trainer.gradient_clip_val"

ANOMALY = "returned nan values"
"""What torch says where `trainer.detect_anomaly` finds an operation."""


class FiniteLoss(Callback):
    """Looks at each step's loss before it is learned from: the weights and the checkpoints are those before.

    One number is read from the device a step: 0.5 microseconds on a processor; a GPU is waited for, to the end of its
    forward pass.

    Args:
        seeds: Which repeat what dropout drew, where the step is looked into.
    """

    def __init__(self, seeds: StepSeeds) -> None:
        self._seeds = seeds
        self._batch: Batch | None = None
        self._batch_index = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Remembers the batch, to look into it if need be."""
        self._batch, self._batch_index = batch, batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Raises RunError where the loss of this process's images is NaN or infinite."""
        value = loss.item()
        if not math.isfinite(value):
            self._seeds.seed_for(trainer, self._batch_index)
            place = first_not_finite(cast("Classifier", pl_module).net, cast("Batch", self._batch).images)
            raise RunError(f"the training loss is {value} in {step_line(trainer)}: {place}; {MEND}{deeper()}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Adds the step to what torch says of an operation whose gradient is NaN."""
        if isinstance(exception, RuntimeError) and ANOMALY in str(exception):
            raise RunError(f"a gradient is nan in {step_line(trainer)}: {exception}; {MEND}") from exception


def step_line(trainer: Trainer) -> str:
    """Where a run is, counted from 1, and the learning rate there."""
    rate = main_rate(trainer.optimizers[0])
    return f"step {trainer.global_step + 1} (epoch {trainer.current_epoch + 1}), at a learning rate of {rate:g}"


def deeper() -> str:
    """How to find out more, unless that is done already."""
    return "" if torch.is_anomaly_enabled() else "; trainer.detect_anomaly=true finds gradients that are no numbers"


@torch.no_grad()
def first_not_finite(net: nn.Module, images: Tensor) -> str:
    """Where the first number that is NaN or infinite stands: in the images, the weights, or what a layer gives.

    Args:
        net: In the mode in which it trains.
        images: (B, C, H, W).
    """
    if not images.isfinite().all():
        return "the images hold numbers that are not finite"
    for name, weights in net.named_parameters():
        if not weights.isfinite().all():
            return f"the weights `{name}` were no finite numbers any more after the step before"
    found: list[str] = []

    def record(name: str, layer: nn.Module, _: Any, output: Any) -> None:
        if not found and isinstance(output, torch.Tensor) and not output.isfinite().all():
            found.append(f"first seen in what the layer `{name or 'net'}` ({type(layer).__name__}) gives")

    with watched(net, record, containers=True), torch.compiler.set_stance("force_eager"), alone():
        net(images)  # eagerly: hooks see nothing of a compiled network
    return found[0] if found else "the network's outputs are finite, so it is the loss function's"
