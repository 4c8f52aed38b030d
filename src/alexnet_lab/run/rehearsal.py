"""Callbacks of other packages, rehearsed before the run directory is made: some need what a run lacks."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping
from functools import partial

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
)
from lightning.pytorch.utilities.model_helpers import is_overridden

from alexnet_lab.base import targets
from alexnet_lab.base.errors import ConfigError, one_line
from alexnet_lab.base.log import quiet
from alexnet_lab.config.schema import Train
from alexnet_lab.run import engine, parts
from alexnet_lab.training import Classifier
from alexnet_lab.training.optimizers import build_optimizer

LOUD = "lightning.pytorch"
"""The log in which a Trainer lists the devices that it does not use."""


INSTEAD = {
    GradientAccumulationScheduler: "schedules and resuming need steps of one size; set trainer.accumulate_grad_batches",
    StochasticWeightAveraging: "its average exists only after the last checkpoint and would never be tested; take "
    "lightning.pytorch.callbacks.WeightAveraging",
}
"""Callbacks that cannot keep what a run promises, with the reason and another way."""


def check_callbacks(config: Train) -> None:
    """Raises ConfigError where Lightning would refuse the callbacks of a config once the run has begun.

    Their first hooks are called as in a run, on a network without numbers. Only what Lightning calls a
    misconfiguration counts: other errors may come from the stand-ins.
    """
    callbacks = parts.build_callbacks(config)
    _check_states(callbacks)
    foreign = {
        key: callback for key, callback in callbacks.items() if not type(callback).__module__.startswith(targets.OURS)
    }
    for key, callback in foreign.items():
        for kind, reason in INSTEAD.items():
            if isinstance(callback, kind):
                raise ConfigError(f"`{key}` is a {kind.__name__}: {reason}")
    if not foreign:
        return
    with quiet(LOUD, logging.ERROR), warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        trainer, module = _stand_ins(config, folder)
        for key, callback in foreign.items():
            _begin(key, callback, trainer, module)


def _stand_ins(config: Train, folder: str) -> tuple[Trainer, LightningModule]:
    """A Trainer like the run's, on the processor and without files, and the module, without numbers."""
    trainer = Trainer(
        accelerator="cpu", devices=1, max_epochs=config.trainer.max_epochs, default_root_dir=folder,
        accumulate_grad_batches=config.trainer.accumulate_grad_batches, enable_checkpointing=False,
        logger=engine.silent_logger(config), enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    with torch.device("meta"), quiet("alexnet_lab.models"):
        module = engine.build_classifier(config)
    module.trainer = trainer
    trainer.strategy.connect(module)
    if isinstance(module, Classifier):
        net = module.net.to_empty(device="cpu")
        trainer.strategy.optimizers = [build_optimizer(config.optimizer, net, config.trusted)]
    return trainer, module


def _begin(key: str, callback: Callback, trainer: Trainer, module: LightningModule) -> None:
    """Calls the hooks of a callback up to the first step, except for the finders, which would train."""
    finds = isinstance(callback, BatchSizeFinder | LearningRateFinder)
    hooks = (partial(callback.setup, stage="fit"), *(() if finds else (callback.on_fit_start, callback.on_train_start)))
    for hook in hooks:
        try:
            hook(trainer, module)
        except MisconfigurationException as error:
            raise ConfigError(f"`{key}`: {one_line(error)}") from error
        except Exception:  # noqa: S112 - the run itself reports it
            continue


def _check_states(callbacks: Mapping[str, Callback]) -> None:
    """Raises ConfigError for two callbacks whose states a checkpoint could not tell apart."""
    keys: dict[str, str] = {}
    for key, callback in callbacks.items():
        other = keys.setdefault(callback.state_key, key)
        if other != key and is_overridden("state_dict", callback):
            raise ConfigError(
                f"`{other}` and `{key}` are both a {type(callback).__name__} with one `state_key`, so a checkpoint "
                f"keeps the state of one; give the class a property `state_key` that differs"
            )
