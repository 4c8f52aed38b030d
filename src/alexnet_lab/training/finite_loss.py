"""Ends a run at the first step whose loss is NaN or infinite, and reports where the value first appears."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback

from alexnet_lab.base.errors import RunError
from alexnet_lab.data.loader import as_batch
from alexnet_lab.models.hooks import watched
from alexnet_lab.training.batch_norm import alone
from alexnet_lab.training.callbacks import main_rate, network_of

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer
    from torch import Tensor, nn

    from alexnet_lab.data.loader import Batch
    from alexnet_lab.training.step_seeds import StepSeeds

FIX = "lower optimizer.learning_rate or set trainer.gradient_clip_val"

ANOMALY = "returned nan values"
"""Part of torch's message when `trainer.detect_anomaly` finds an operation."""


class FiniteLoss(Callback):
    """Checks the loss before each backward pass, so weights and checkpoints stay those of the step before.

    The check reads one number per step from the device: 0.5 microseconds on a CPU. On a GPU it waits for the forward
    pass.

    Args:
        seeds: Repeats the step's dropout when the callback searches for the layer.
    """

    def __init__(self, seeds: StepSeeds) -> None:
        self._seeds = seeds
        self._batch: Batch | None = None
        self._batch_index = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Remembers the batch for the search."""
        self._batch, self._batch_index = batch, batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Raises RunError if the loss of this process's images is NaN or infinite."""
        value = loss.item()
        if not math.isfinite(value):
            self._seeds.seed_for(trainer, self._batch_index)
            place = first_not_finite(network_of(pl_module), as_batch(self._batch, trainer).images)
            raise RunError(f"the training loss is {value} in {step_line(trainer)}: {place}; {FIX}{deeper()}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Adds the step to torch's message about an operation with a NaN gradient."""
        if isinstance(exception, RuntimeError) and ANOMALY in str(exception):
            raise RunError(f"a gradient is nan in {step_line(trainer)}: {exception}; {FIX}") from exception


def step_line(trainer: Trainer) -> str:
    """The current step and epoch, counted from 1, and the learning rate."""
    rate = main_rate(trainer.optimizers[0])
    return f"step {trainer.global_step + 1} (epoch {trainer.current_epoch + 1}), at a learning rate of {rate:g}"


def deeper() -> str:
    """A hint to detect_anomaly, unless it is on."""
    return "" if torch.is_anomaly_enabled() else "; trainer.detect_anomaly=true finds gradients that are no numbers"


@torch.no_grad()
def first_not_finite(net: nn.Module, images: Tensor) -> str:
    """Describes where the first NaN or infinite number appears: in the images, the weights, or a layer's output.

    Args:
        net: In training mode.
        images: (B, C, H, W).
    """
    if not images.isfinite().all():
        return "the images hold numbers that are not finite"
    for name, weights in net.named_parameters():
        if not weights.isfinite().all():
            return f"the weights `{name}` are not finite after the previous step"
    found: list[str] = []

    def record(name: str, layer: nn.Module, _: Any, output: Any) -> None:
        if not found and isinstance(output, torch.Tensor) and not output.isfinite().all():
            found.append(f"first seen in the output of the layer `{name or 'net'}` ({type(layer).__name__})")

    with watched(net, record, containers=True), torch.compiler.set_stance("force_eager"), alone():
        net(images)  # eagerly: hooks do not run in a compiled network
    return found[0] if found else "the network's outputs are finite, so the loss function is the cause"
