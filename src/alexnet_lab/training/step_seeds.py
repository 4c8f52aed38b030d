"""Seeds dropout by its place in the run, like order and augmentation: a resumed run drops the same units.

N processes drop the same units as one: each draws the numbers for all images of the global batch and uses those of its
own images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from alexnet_lab.base.random import generator
from alexnet_lab.data.loader import as_batch
from alexnet_lab.data.order import rank_slice
from alexnet_lab.models.layers.dropout import ClassicDropout
from alexnet_lab.training.mixins import with_mixin

KINDS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, ClassicDropout)
"""Layers that multiply their input by noise of its shape. All other layers draw their numbers in each process."""


def share_dropout(net: nn.Module) -> None:
    """Makes each dropout of a network draw its numbers over the global batch; only the classes of layers change.

    Args:
        net: Changed in place.
    """
    for layer in net.modules():
        if type(layer) in KINDS:
            layer.__class__ = with_mixin(SharedDropout, type(layer))


class Part(NamedTuple):
    """The images of this process in the global batch."""

    rows: slice
    total: int


class SharedDropout(nn.Module):
    """The mixin that turns a dropout into a shared one."""

    part: Part | None = None  # None: one process has all images
    seed = 0  # of the numbers that all processes draw for this batch
    state: Tensor | None = None  # of their generator; None: nothing drawn for this batch

    def forward(self, x: Tensor) -> Tensor:
        """Applies dropout; x (B, ...) contains this process's images."""
        part = SharedDropout.part
        if not self.training or part is None or len(x) != part.rows.stop - part.rows.start:
            return super().forward(x)
        return x * self._noise(x, part)  # pyright: ignore[reportCallIssue] - torch's stub of its decorator

    @torch.compiler.disable
    def _noise(self, x: Tensor, part: Part) -> Tensor:
        channels_last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format  # numbers are drawn in its order
        ones = torch.empty((part.total, *x.shape[1:]), dtype=x.dtype, device=x.device, memory_format=layout).fill_(1)
        with torch.no_grad(), _common_numbers(x.device):
            return super().forward(ones)[part.rows]


@contextlib.contextmanager
def _common_numbers(device: torch.device) -> Iterator[None]:
    """Within the block all processes draw the same numbers; afterwards each continues with its own."""
    generator = torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator
    own = generator.get_state()
    if SharedDropout.state is None:
        generator.manual_seed(SharedDropout.seed)
    else:
        generator.set_state(SharedDropout.state)
    try:
        yield
    finally:
        SharedDropout.state = generator.get_state()
        generator.set_state(own)


class StepSeeds(Callback):
    """Seeds torch's generators before each training batch by (seed, epoch, batch, rank).

    A checkpoint therefore needs no generator state, whatever a network draws. Each process draws other numbers, except
    for dropout, which uses the numbers of one process.

    Args:
        seed: Of the run, >= 0.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._epoch = -1
        self._base = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seeds the generators of the CPU and of the training device; about 5 microseconds."""
        rank, size = trainer.global_rank, trainer.world_size
        total = as_batch(batch, trainer).total
        SharedDropout.part = Part(rank_slice(total, rank, size), total) if size > 1 else None
        self.seed_for(trainer, batch_idx)

    def seed_for(self, trainer: Trainer, batch_index: int) -> None:
        """Seeds for a batch of the current epoch."""
        if trainer.current_epoch != self._epoch:
            self._epoch = trainer.current_epoch
            self._base = int(generator(self.seed, "dropout", self._epoch).integers(2**62))
        SharedDropout.seed, SharedDropout.state = self._base + batch_index, None
        seed = self._base + batch_index * trainer.world_size + trainer.global_rank
        # torch.manual_seed would format the stack in each step until CUDA is initialised: 0.2 ms
        torch.default_generator.manual_seed(seed)
        kind = trainer.strategy.root_device.type
        if kind == "cuda":
            torch.cuda.manual_seed(seed)
        elif kind == "mps":
            torch.mps.manual_seed(seed)
