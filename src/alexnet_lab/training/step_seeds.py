"""Seeds dropout by its place in the run, like order and augmentation: a resumed run drops the same units.

A run of several processes drops the same units too; see `shared_dropout`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback

from alexnet_lab.base.random import generator
from alexnet_lab.data.loader import as_batch
from alexnet_lab.data.order import rank_slice
from alexnet_lab.training.shared_dropout import Part, SharedDropout

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer


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
