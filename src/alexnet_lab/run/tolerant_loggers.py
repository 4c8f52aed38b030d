"""Loggers that cannot stop a run: after its first error a logger is dropped with a warning."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from alexnet_lab.base.errors import one_line

log = logging.getLogger(__name__)


class Steady(Logger):
    """Wraps a logger, and drops it with one warning at its first error.

    Args:
        inner: The logger; attributes beyond Lightning's interface are passed through.
        title: Of the logger, for the warning.
    """

    def __init__(self, inner: Logger, title: str = "W&B") -> None:
        super().__init__()
        self.inner = inner
        self.title = title
        self.lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    @property
    def name(self) -> str | None:
        """The inner logger's name."""
        return self.inner.name

    @property
    def version(self) -> int | str | None:
        """The inner logger's version."""
        return self.inner.version

    @property
    def save_dir(self) -> str | None:
        """The inner logger's directory."""
        return self.inner.save_dir

    def attempt(self, action: Callable[[], object]) -> None:
        """Runs an action unless the logger has failed before."""
        if self.lost:
            return
        try:
            action()
        except Exception as error:  # of any kind: a logger must not stop the run
            self.lost = True
            given_up(self.title, error)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Logs a row."""
        self.attempt(lambda: self.inner.log_metrics(metrics, step))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Logs the fields of a module."""
        self.attempt(lambda: self.inner.log_hyperparams(params, *args, **kwargs))

    def log_graph(self, model: nn.Module, input_array: Tensor | None = None) -> None:
        """Logs the network."""
        self.attempt(lambda: self.inner.log_graph(model, input_array))

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Passes on a checkpoint callback."""
        self.attempt(lambda: self.inner.after_save_checkpoint(checkpoint_callback))

    def save(self) -> None:
        """Writes buffered data."""
        self.attempt(self.inner.save)

    def finalize(self, status: str) -> None:
        """Lightning's end of a stage."""
        self.attempt(lambda: self.inner.finalize(status))


def given_up(title: str, error: Exception) -> None:
    """Warns, and keeps W&B, if it has failed, from retrying when the process ends."""
    log.warning("%s is dropped (%s: %s); metrics.csv continues", title, type(error).__name__, one_line(error))
    if title in OF_WANDB and (wandb := sys.modules.get("wandb")):  # it would also end W&B's runs that go on
        with contextlib.suppress(Exception):
            wandb.teardown()


TITLES = {"wandb_logger": "W&B", "tensorboard_logger": "TensorBoard"}
"""Names of our loggers in messages."""

OF_WANDB = (TITLES["wandb_logger"], "WandbLogger")
"""The titles of W&B's loggers: ours and Lightning's."""


def steady(target: str, make: Callable[[], Logger]) -> list[Steady]:
    """Starts a logger, the only item of the list; with a warning, the list is empty if that fails.

    Args:
        target: The `_target_` of its config.
        make: Starts it.
    """
    name = target.rpartition(".")[2]
    title = TITLES.get(name, name)
    try:
        return [Steady(make(), title)]
    except Exception as error:  # of any kind: a logger must not stop the run
        given_up(title, error)
        return []
