"""Ends a run at the first step whose loss is NaN or infinite, and reports where the value first appears.

On a CPU the loss is read before the backward pass. On a GPU that would wait for the forward pass in every step. There
the optimiser skips the step on the device (torch's `found_inf`), and the loss is read one step later. Either way the
weights are those of the step before.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed import ReduceOp
from torch.optim import Optimizer

from alexnet_lab.base.errors import RunError
from alexnet_lab.data.loader import as_batch
from alexnet_lab.models.hooks import watched
from alexnet_lab.training.batch_norm import alone
from alexnet_lab.training.callbacks import main_group, network_of
from alexnet_lab.training.krizhevsky import KrizhevskySGD
from alexnet_lab.training.per_rank_state import over_processes
from alexnet_lab.training.step_seeds import StepSeeds

IMAGES = "the images hold numbers that are not finite"

ANOMALY = "returned nan values"
"""Part of torch's message when `trainer.detect_anomaly` finds an operation."""


class Step(NamedTuple):
    """A forward pass whose loss is checked."""

    batch: Any  # of this process
    batch_index: int  # in the epoch
    number: int  # optimiser steps before it
    rates: list[float]  # of the optimiser's groups


class Pending(NamedTuple):
    """The check of a step, on its way from the GPU."""

    step: Step
    numbers: Tensor  # float32 (2,) in the CPU's memory: this process's loss; 1 if that of any process is not finite
    arrived: torch.cuda.Event | None  # None: at once


class FiniteLoss(Callback):
    """Checks the loss of each step. Weights and checkpoints stay those of the step before a bad one.

    On a CPU the check reads one number per step: 0.5 microseconds. On a GPU it reads that of the step before, which has
    arrived by then. With an optimiser that cannot skip a step on the device (see `skips_on_device`) it waits.

    Args:
        seeds: Repeats the step's dropout when the callback searches for the layer.
    """

    def __init__(self, seeds: StepSeeds) -> None:
        self._seeds = seeds
        self._batch: tuple[Any, int] = (None, 0)
        self._pending: Pending | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remembers the batch for the search."""
        self._batch = batch, batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Raises RunError if the loss of this process's images, now or one step before, is NaN or infinite."""
        if not is_read_late(trainer, loss):
            value = loss.item()
            if not math.isfinite(value):
                self._fail(trainer, pl_module, value, self._step(trainer))
            return
        self._settle(trainer, pl_module)
        is_bad = over_processes((~loss.detach().isfinite()).float(), ReduceOp.MAX)  # 1 if that of any process is bad
        if getattr(trainer.precision_plugin, "scaler", None) is None:  # a scaler sets it itself
            trainer.optimizers[0].found_inf = is_bad  # pyright: ignore[reportAttributeAccessIssue] - torch's own name
        self._pending = sent(self._step(trainer), torch.stack([loss.detach().float(), is_bad]))

    def _step(self, trainer: Trainer) -> Step:
        return Step(*self._batch, trainer.global_step, rates_of(trainer))

    def _settle(self, trainer: Trainer, pl_module: LightningModule, *, of_all: bool = False) -> None:
        """Checks the step before; `of_all` raises for the loss of another process too."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if pending.arrived is not None:
            pending.arrived.synchronize()
        loss, is_bad = pending.numbers.tolist()
        if not math.isfinite(loss):
            self._fail(trainer, pl_module, loss, pending.step)
        if of_all and is_bad:
            raise RunError(f"the training loss of another process is not finite in {step_line(trainer, pending.step)}")

    def _fail(self, trainer: Trainer, pl_module: LightningModule, loss: float, step: Step) -> NoReturn:
        self._seeds.seed_for(trainer, step.batch_index)
        place = first_not_finite(network_of(pl_module), as_batch(step.batch, trainer).images)
        advice = "" if place == IMAGES else f"; {fix(trainer, step)}{deeper()}"
        raise RunError(f"the training loss is {loss} in {step_line(trainer, step)}: {place}{advice}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the last step before it is measured, and before the metrics of its epoch are logged."""
        self._settle(trainer, pl_module, of_all=True)

    on_train_epoch_end = on_validation_start

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Checks the last step before it is saved."""
        self._settle(trainer, pl_module, of_all=True)


@contextlib.contextmanager
def anomalies_located(trainer: Trainer) -> Iterator[None]:
    """Within the block, the step is added to torch's message about an operation with a NaN gradient.

    A callback's `on_exception` must not raise: Lightning would call no further callback, and leave the terminal and
    the signal handlers as they are.
    """
    try:
        yield
    except RuntimeError as error:
        if ANOMALY not in str(error):
            raise
        step = Step(None, 0, trainer.global_step, rates_of(trainer))
        message = f"a gradient is nan in {step_line(trainer, step)}: {error}; {fix(trainer, step)}"
        raise RunError(message) from error


def is_read_late(trainer: Trainer, loss: Tensor) -> bool:
    """Whether the loss is read one step later: on a GPU, if the only optimiser can skip a step there."""
    automatic = trainer.lightning_module.automatic_optimization and len(trainer.optimizers) == 1
    return loss.is_cuda and automatic and skips_on_device(trainer.optimizers[0])


def skips_on_device(optimizer: Optimizer) -> bool:
    """Whether an optimiser leaves the weights as they are if its attribute `found_inf` is 1: torch's fused ones do."""
    return getattr(optimizer, "skips_on_device", False) or all(group.get("fused") for group in optimizer.param_groups)


def sent(step: Step, numbers: Tensor) -> Pending:
    """Copies the numbers to the CPU's memory without waiting for them."""
    if not numbers.is_cuda:
        return Pending(step, numbers, None)
    host = torch.empty_like(numbers, device="cpu", pin_memory=True)
    host.copy_(numbers, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return Pending(step, host, arrived)


def rates_of(trainer: Trainer) -> list[float]:
    """The learning rate of each of the optimiser's groups."""
    return [group.get("lr", math.nan) for group in trainer.optimizers[0].param_groups]


def step_line(trainer: Trainer, step: Step) -> str:
    """A step and its epoch, counted from 1, and the learning rate: of the group with the most weights."""
    rate = step.rates[main_group(trainer.optimizers[0])]
    return f"step {step.number + 1} (epoch {trainer.current_epoch + 1}), at a learning rate of {rate:g}"


def fix(trainer: Trainer, step: Step) -> str:
    """What to change.

    Weight decay alone diverges if rate x decay exceeds 2 (1 + momentum). Above half of that, the gradient of the loss
    has the smaller part in a divergence.
    """
    optimizer = trainer.optimizers[0]
    for group, rate in zip(optimizer.param_groups, step.rates, strict=True):
        product, limit = rate * group.get("weight_decay", 0.0), 2 * (1 + group.get("momentum", 0.0))
        if product > limit / 2 and isinstance(optimizer, torch.optim.SGD | KrizhevskySGD):
            grow = f"their product is {product:.3g}, and above {limit:.3g} decay alone makes weights grow"
            return f"lower optimizer.weight_decay or optimizer.learning_rate: {grow}"
    return "lower optimizer.learning_rate or set trainer.gradient_clip_val"


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
        return IMAGES
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
