"""Keeps the epoch's values that a LightningModule logs with `self.log`, which Lightning's checkpoints leave out.

This module alone uses Lightning's private results of a training epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from alexnet_lab.training.per_rank_state import gathered, rank_and_size

KEY = "alexnet_lab_logged"
"""The checkpoint's key of the values logged so far in the epoch, by rank."""

Logged = dict[str, Any]
"""What was logged under a name: `value`, the number of `images` of a mean, and the arguments of `self.log`."""


class LoggedSums(Callback):
    """After a resume within an epoch, means, sums, maxima and minima are those of the whole epoch.

    Objects of torchmetrics that are logged are not covered: their states are those of the module's code.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Logged] = {}  # restored, for names that have not been logged again
        self._is_over = False  # whether the epoch has ended

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Saves the values of the epoch in progress, if there are any."""
        self._add(trainer)
        own = {} if self._is_over else self._waiting | {name: _logged(item) for name, item in _results(trainer)}
        every = gathered(own)
        if any(every):
            checkpoint[KEY] = every

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restores them; with another number of processes the first gets the sums of all."""
        every = checkpoint.get(KEY, [])
        rank, size = rank_and_size()
        self._waiting = dict(every[rank]) if len(every) == size else _joined(every, is_first=rank == 0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A new epoch begins; the hook is not called when a run resumes within one."""
        self._is_over = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Adds a restored value to the first one that is logged under its name."""
        self._add(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the values of names that were not logged again."""
        self._add(trainer)
        for logged in self._waiting.values():
            name, value, images, more = (logged[key] for key in ("name", "value", "images", "more"))
            mean = value / images if images else value
            pl_module.log(name, mean, on_step=False, on_epoch=True, batch_size=images, **more)
        self._waiting = {}
        self._is_over = True

    def _add(self, trainer: Trainer) -> None:
        for name, item in _results(trainer) if self._waiting else ():
            if name in self._waiting:
                before = self._waiting.pop(name)
                value = before["value"].to(item.value.device)
                if item.meta.is_mean_reduction:
                    item.cumulated_batch_size = before["images"] + item.cumulated_batch_size
                item.value = _combined(before, value, item.value)


def _results(trainer: Trainer) -> list[tuple[str, Any]]:
    """Lightning's objects that sum up what is logged with `on_epoch=True`, by the hook and the name."""
    found = trainer.fit_loop.epoch_loop._results.items()
    return [(name, item) for name, item in found if item.is_tensor and item.meta.on_epoch and not item.has_reset]


def _logged(item: Any) -> Logged:
    meta = item.meta
    return {
        "name": meta.forked_name(on_step=False),
        "value": item.value.detach().cpu(),
        "images": int(item.cumulated_batch_size) if meta.is_mean_reduction else 0,
        "more": {"reduce_fx": meta.reduce_fx.__name__, "sync_dist": bool(meta.sync.should)},
    }


def _combined(logged: Logged, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A sum (of a mean, too), maximum or minimum of two parts of an epoch."""
    kind = logged["more"]["reduce_fx"]
    return getattr(torch, f"{kind}imum")(one, other) if kind in ("max", "min") else one + other


def _joined(every: Sequence[dict[str, Logged]], *, is_first: bool) -> dict[str, Logged]:
    """The values of all former processes, of which all but the first get maxima and minima alone, and sums of 0."""
    joined: dict[str, Logged] = {}
    for name, logged in (item for part in every for item in part.items()):
        before = joined.get(name)
        if before is not None:
            value = _combined(logged, before["value"], logged["value"])
            logged = {**logged, "value": value, "images": before["images"] + logged["images"]}  # noqa: PLW2901
        joined[name] = logged
    if is_first:
        return joined
    zero = {"value": torch.tensor(0.0), "images": 0}
    return {
        name: logged if logged["more"]["reduce_fx"] in ("max", "min") else logged | zero
        for name, logged in joined.items()
    }
