"""Callbacks that disturb a run, or watch it: `+callbacks.x._target_=disturbances.Stop`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer


class Stop(Callback):
    """Sends SIGTERM in step 3."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Here, so that the step continues meanwhile."""
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


class KilledRank(Callback):
    """Kills the last process of a run in step 3, once.

    Args:
        marker: A file that says that it was done.
    """

    def __init__(self, marker: str) -> None:
        self.marker = Path(marker)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Before the step."""
        if trainer.global_step == 2 and trainer.global_rank == trainer.world_size - 1 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class BadRank(Callback):
    """Gives the last process a weight that is no number, in step 3."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Before the step."""
        if trainer.global_step == 2 and trainer.global_rank == trainer.world_size - 1:
            with torch.no_grad():
                next(pl_module.parameters()).fill_(torch.nan)


class NoWaiting(Callback):
    """Makes torch raise an error where the host waits for the GPU, from the fourth step on."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The steady state begins."""
        if batch_idx == 3:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """It ends before the last batches of the epoch."""
        if batch_idx == 10:
            torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lets this process wait again."""
        torch.cuda.set_sync_debug_mode("default")
