"""SIGTERM while a network trains: the step is finished, a checkpoint written, and only then the run ends.

SLURM sends it before the time limit, as clouds do before they take a machine back. A test ends at once, and is repeated
when the run is resumed.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer

from alexnet_lab.base.signals import terminate
from alexnet_lab.training.callbacks import EndsBatch
from alexnet_lab.training.checkpoints import CLOCK_STEPS, Checkpoints

PATIENCE_SHARE = 0.6
"""Of the time that workers get to end, how long a step may take; after that the run ends at once."""

SHUTDOWN_SECONDS = 10
"""The time for workers to end their step and their tracker after a signal; torch would wait for 30 s."""


def shutdown_seconds() -> int:
    """`SHUTDOWN_SECONDS`, unless the user has set torch's own variable."""
    return int(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_SECONDS))


class EndAfterStep(EndsBatch):
    """Ends a run that got SIGTERM at the next step after which it can go on; a second SIGTERM ends it at once.

    Several processes agree on that step, once in `CLOCK_STEPS`.

    Args:
        checkpoints: Writes the checkpoint.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._asked = False
        self._ends = False  # once the processes have agreed
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the place of Lightning's handler, which lets the processes talk to each other in mid-step."""
        super().on_train_start(trainer, pl_module)
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
            signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            terminate(number, frame)
        self._asked = True
        signal.signal(signal.SIGALRM, terminate)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_SHARE * shutdown_seconds())

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends a run that was asked to at the end of the epoch before, if its checkpoint is written."""
        if trainer.global_step and self._is_agreed(trainer) and self._checkpoints.is_written(trainer):
            terminate(signal.SIGTERM, None)

    def end_batch(self, trainer: Trainer, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Writes the checkpoint and ends the run, if that was asked for and a run can go on from here."""
        if trainer.world_size == 1 or trainer.global_step % CLOCK_STEPS == 0:
            self._ends = self._is_agreed(trainer)
        if self._ends and self._checkpoints.write_within_epoch(trainer, batch_idx + 1):
            terminate(signal.SIGTERM, None)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Has this epoch written if the run was asked to end: epochs of a single step have no other checkpoint."""
        if self._is_agreed(trainer):
            self._checkpoints.write_each_epoch()

    def _is_agreed(self, trainer: Trainer) -> bool:
        return (
            self._asked if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(self._asked, all=False)
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the handlers back, and ends a run that was asked to after its last step."""
        asked = self._is_agreed(trainer)
        self._restore()
        if asked:
            terminate(signal.SIGTERM, None)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets SIGTERM end a test at once: Lightning's handler waits for processes that may be waiting for this one.

        Lightning itself restores the handler from before the test.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Puts the handlers back."""
        self._restore()

    def _restore(self) -> None:
        if self._asked:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
