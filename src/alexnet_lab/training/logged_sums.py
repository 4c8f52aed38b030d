"""Keeps the epoch's values that a LightningModule logs with `self.log`, which Lightning's checkpoints leave out.

This module alone uses Lightning's private results of a training epoch.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback

from alexnet_lab.training.per_rank_state import gathered, rank_and_size

if TYPE_CHECKING:
    from lightning import LightningModule, Trainer
    from torch import Tensor

log = logging.getLogger(__name__)

KEY = "alexnet_lab_logged"
"""The checkpoint's key of the values logged so far in the epoch, by rank."""

Logged = tuple["Tensor", "Tensor"]
"""A sum over images and their number, or a sum, maximum or minimum with 0 images."""


class LoggedSums(Callback):
    """After a resume within an epoch, means, sums, maxima and minima are those of the whole epoch.

    Objects of torchmetrics that are logged are not covered: their states are those of the module's code.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Logged] = {}  # restored, for names that have not been logged again

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Saves the values of the epoch in progress, if there are any."""
        is_over = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        own = {} if is_over else self._waiting | {name: _numbers(item) for name, item in _results(trainer)}
        every = [logged for (logged,) in gathered([own])]
        if any(every):
            checkpoint[KEY] = every

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restores them."""
        every = checkpoint.get(KEY, [])
        rank, size = rank_and_size()
        if every and len(every) != size:
            log.warning("the number of processes has changed: what %s logs in this epoch lacks the images before it",
                        type(pl_module).__name__)  # fmt: skip
        self._waiting = dict(every[rank]) if len(every) == size else {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds a restored value to the first one that is logged under its name."""
        if self._waiting:
            for name, item in _results(trainer):
                if name in self._waiting:
                    _add(item, self._waiting.pop(name))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets names that were not logged again."""
        self._waiting = {}


def _results(trainer: Trainer) -> list[tuple[str, Any]]:
    """Lightning's objects that sum up what is logged with `on_epoch=True`, by the hook and the name."""
    found = trainer.fit_loop.epoch_loop._results.items()
    return [(name, item) for name, item in found if item.is_tensor and item.meta.on_epoch and not item.has_reset]


def _numbers(item: Any) -> Logged:
    images = item.cumulated_batch_size if item.meta.is_mean_reduction else torch.tensor(0)
    return item.value.detach().cpu(), images.cpu()


def _add(item: Any, before: Logged) -> None:
    value, images = (number.to(item.value.device) for number in before)
    if item.meta.is_mean_reduction:
        item.value, item.cumulated_batch_size = value + item.value, images + item.cumulated_batch_size
    elif item.meta.is_sum_reduction:
        item.value = value + item.value
    else:
        item.value = item.meta.reduce_fx(value, item.value)
