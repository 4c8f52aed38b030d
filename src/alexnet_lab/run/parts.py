"""The parts of a run that other packages may provide, checked before the run directory is created."""

from __future__ import annotations

import inspect
import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import nn

from alexnet_lab.base import cluster, targets
from alexnet_lab.base.errors import ConfigError, one_line
from alexnet_lab.base.formats import counted
from alexnet_lab.base.log import quiet
from alexnet_lab.base.targets import OURS, build, locate
from alexnet_lab.config.compatibility import monitors
from alexnet_lab.config.schema import BUILT_IN, Train, Trainer
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.transforms import BatchTransforms, try_transform
from alexnet_lab.models.counts import num_parameters
from alexnet_lab.run.distributed import check_strategy
from alexnet_lab.run.pruning import check_trial
from alexnet_lab.run.tolerant_loggers import Steady, steady
from alexnet_lab.training import Classifier
from alexnet_lab.training.extra_metrics import build_metric
from alexnet_lab.training.freezing import freeze
from alexnet_lab.training.losses import check_losses
from alexnet_lab.training.optimizers import build_optimizer
from alexnet_lab.training.schedules import Duration, build_schedule

EARLY = ("model", "module", "data")
"""Groups that are built before the run directory is created anyway."""


def check_parts(config: Train) -> None:
    """Raises ConfigError if a part that is built late does not exist, has the wrong kind, or rejects its fields.

    The optimiser and the schedule are built for a network without data, other packages' classes for a stand-in.
    Raises RunError if `callbacks.pruning` finds no trial of this run.
    """
    if config.callbacks.pruning is not None:
        check_trial(Path(config.run_dir))
    check_strategy(config.trainer.strategy)
    for key, spec in targets.parts(config.model_dump()).items():
        if key in EARLY:
            continue
        found = locate(spec["_target_"], key, config.trusted)
        if isinstance(found, type) and not spec["_target_"].startswith(f"{OURS}."):
            _try(key, spec, config.data, config.trusted)
    _check_directions(config)
    _check_mixing(config)
    _try_optimizer(config)


def _check_directions(config: Train) -> None:
    """Refuses to choose by a metric that does not say whether higher is better."""
    for key, monitor in monitors(config).items():
        spec = config.metrics.get(str(monitor).partition("/")[2])
        if spec is None:
            continue
        metric = locate(spec["_target_"], "metrics", config.trusted)
        if getattr(metric, "higher_is_better", None) is None:
            raise ConfigError(
                f"`{key}` is {monitor}, and {spec['_target_']} does not say whether higher is better; set another one"
            )


def _check_mixing(config: Train) -> None:
    """Refuses to mix images where their second labels would be ignored."""
    specs, classes = config.transforms, config.data["num_classes"]
    mixing = BatchTransforms(specs, seed=0, num_classes=classes, trusted=config.trusted).mixing
    if not mixing:
        return
    target = config.module["_target_"]
    key, found = f"transforms.{next(iter(mixing))}", locate(target, "module", config.trusted)
    own_step = getattr(found, "training_step", None) is not Classifier.training_step
    if own_step or config.optimizer["_target_"].endswith(".diagonal_lm"):
        reader = target if own_step else "optimizer=diagonal_lm"
        raise ConfigError(f"`{key}` gives each image two labels, and {reader} reads one; leave it out")


def _try(group: str, spec: dict[str, Any], data: dict[str, Any], trusted: tuple[str, ...]) -> None:
    """Builds a part for a stand-in of its network or its images."""
    num_classes = data["num_classes"]
    if group == "augment":
        build(spec, group, trusted=trusted)
    elif group.startswith("transforms."):
        try_transform(group, spec, data, trusted)
    elif group.startswith("metrics."):
        build_metric(group.partition(".")[2], spec, num_classes, trusted)
    elif group == "loss":
        _try_loss(build(spec, group, trusted=trusted), spec["_target_"], num_classes)


def _try_optimizer(config: Train) -> None:
    """Builds the optimiser and the schedule for a network whose memory is never touched."""
    spec, trainer, trusted = config.optimizer, config.trainer, config.trusted
    with torch.device("meta"), quiet("alexnet_lab.models"):
        net = build(config.model, "model", trusted=trusted)
        if locate(config.module["_target_"], "module", trusted) is Classifier:
            freeze(net, config.freeze)
    with quiet("alexnet_lab.training", logging.ERROR):  # the run itself logs these messages
        optimizer = build_optimizer(spec, _allocated(net), trusted)
        if config.schedule is not None:
            duration = Duration(trainer.max_epochs, trainer.max_epochs)
            build_schedule(config.schedule, optimizer, duration, trusted)
    if trainer.channels_last and not spec["_target_"].startswith(f"{OURS}."):
        _try_channels_last(spec, trusted)


def _allocated(net: nn.Module) -> nn.Module:
    """The network on the CPU, with any numbers for weights."""
    try:
        return net.to_empty(device="cpu")
    except RuntimeError as error:
        raise ConfigError(
            f"`model` has {num_parameters(net):,} parameters, more than this machine's memory holds; set fewer maps or "
            f"hidden units, or smaller images"
        ) from error


def _try_channels_last(spec: dict[str, Any], trusted: tuple[str, ...]) -> None:
    """Raises ConfigError for an optimiser that only supports the usual memory layout, such as LBFGS."""
    if not _steps(spec, trusted, torch.channels_last) and _steps(spec, trusted, torch.contiguous_format):
        raise ConfigError(
            f"`optimizer`: {spec['_target_']} fails on kernels in the memory layout of `trainer.channels_last`; "
            f"set trainer.channels_last=false"
        )


def _steps(spec: dict[str, Any], trusted: tuple[str, ...], layout: torch.memory_format) -> bool:
    """Whether an optimiser takes a step on a kernel (2, 2, 2, 2) in a memory layout."""
    net = nn.Conv2d(2, 2, 2, bias=False).to(memory_format=layout)

    def closure() -> float:
        net.weight.grad = torch.zeros_like(net.weight)
        return 0.0

    try:
        build_optimizer(spec, net, trusted).step(closure)
    except Exception:  # another package may raise anything
        return False
    return True


def _try_loss(loss: nn.Module, target: str, num_classes: int) -> None:
    """Raises ConfigError unless a loss returns one value per image."""
    try:
        labels = torch.tensor([0, 1])
        losses = loss(torch.zeros(2, num_classes), labels)
    except Exception as error:
        text = one_line(f"{type(error).__name__}: {error}")[:300]
        raise ConfigError(f"`loss`: {target} fails on logits (2, {num_classes}) and labels (2,): {text}") from error
    check_losses(losses, labels, target)


PARTS = {"limit_train_batches": "train", "limit_val_batches": "val", "limit_test_batches": "test"}
"""The part of the data that each key limits."""


def check_batches(trainer: Trainer, data: Any) -> None:
    """Raises ConfigError for a share of the batches that is less than one batch.

    Args:
        trainer: Of the config.
        data: The data module, set up.
    """
    if not isinstance(data, ImageDataModule) or trainer.fast_dev_run:
        return
    _check_interval(trainer, math.ceil(data.num_train / data.batch_size))
    limits = list(PARTS.items())
    if trainer.overfit_batches:  # Lightning takes that share of both
        limits = [("overfit_batches", "train"), ("overfit_batches", "val")]
    for key, part in limits:
        limit, batches = getattr(trainer, key), math.ceil(getattr(data, f"num_{part}") / data.batch_size)
        if isinstance(limit, float) and 0 < limit * batches < 1:
            raise ConfigError(
                f"`trainer.{key}` is {limit}, of {counted(batches, 'batch')} less than one; set it to 1 (a number of "
                f"batches), or to at least {math.ceil(1e4 / batches) / 1e4}"
            )


def _check_interval(trainer: Trainer, batches: int) -> None:
    """Refuses a validation interval that is longer than an epoch, or than the run if it counts across epochs."""
    interval, limit = trainer.val_check_interval, trainer.overfit_batches or trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else max(1, int(batches * limit))
    within, remedy = "an epoch", ", or count across epochs: trainer.check_val_every_n_epoch=null"
    if trainer.check_val_every_n_epoch is None:
        within, remedy, batches = "the run", "", batches * trainer.max_epochs
    if isinstance(interval, int) and interval > batches:
        raise ConfigError(
            f"`trainer.val_check_interval` is {interval}, but {within} has {counted(batches, 'batch')}; set it to at "
            f"most {batches}{remedy}"
        )
    if isinstance(interval, float) and interval * batches < 1:
        raise ConfigError(
            f"`trainer.val_check_interval` is {interval}, of {counted(batches, 'batch')} less than one; set it to 1 (a "
            f"number of batches) or more"
        )


def build_callbacks(config: Train) -> dict[str, Callback]:
    """The callbacks of a config with a `_target_`, or a name of `BUILT_IN`, by their keys."""
    trusted, specs = config.trusted, targets.parts({"callbacks": config.callbacks.model_dump()})
    for name, target in BUILT_IN.items():
        fields = getattr(config.callbacks, name)
        if fields is not None:
            specs.setdefault(f"callbacks.{name}", {"_target_": target, **fields})
    return {key: build(spec, key, trusted=trusted) for key, spec in specs.items()}


def build_loggers(config: Train, run_dir: Path) -> list[Steady]:
    """Starts the loggers of a config in rank 0; none with `fast_dev_run`."""
    if config.trainer.fast_dev_run or not cluster.is_first():
        return []
    specs = targets.parts({"logger": config.logger})
    loggers: list[Steady] = []
    for key, spec in specs.items():
        loggers += steady(spec["_target_"], partial(build_logger, key, spec, run_dir, config))
    return loggers


def build_logger(key: str, spec: dict[str, Any], run_dir: Path, config: Train) -> Logger:
    """Builds one logger of a config.

    Ours, and functions of other packages, get the run directory and the config. A class of another package gets its
    own fields, and the run directory as `save_dir` unless the config sets it.

    Args:
        key: Of the logger in the config.
        spec: A `_target_` and its fields.
        run_dir: Of the run.
        config: The checked config, with its `trusted_packages`.
    """
    found = locate(spec["_target_"], key, config.trusted)
    if not isinstance(found, type):
        return build(spec, key, run_dir, config.model_dump(), trusted=config.trusted)
    if "save_dir" in inspect.signature(found).parameters:
        spec = {"save_dir": str(run_dir), **spec}
    return build(spec, key, trusted=config.trusted)
