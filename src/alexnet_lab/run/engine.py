"""Builds the parts of a run from its config: data, model, callbacks, logger, trainer."""

from __future__ import annotations

import contextlib
import logging
import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.profilers import AdvancedProfiler, PassThroughProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from torch import nn

from alexnet_lab.base import cluster, targets
from alexnet_lab.base.log import shows_bars
from alexnet_lab.base.targets import build
from alexnet_lab.config.schema import OUR_TRAINER_KEYS, Train
from alexnet_lab.data.field_rules import has_validation_images
from alexnet_lab.data.transforms import BatchTransforms
from alexnet_lab.models.layers.pooling import make_deterministic
from alexnet_lab.run import parts
from alexnet_lab.run.devices import lightnings_name
from alexnet_lab.run.distributed import Processes, build_strategy
from alexnet_lab.run.own_module import build_module
from alexnet_lab.run.pruning import Pruning, Rule
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.run.step_log import step_log
from alexnet_lab.run.tolerant_loggers import Steady
from alexnet_lab.training.batch_norm import batch_dependent, synchronise
from alexnet_lab.training.callbacks import network_of
from alexnet_lab.training.checkpoint_io import SafeCheckpointIO
from alexnet_lab.training.freezing import freeze
from alexnet_lab.training.layer_statistics import LayerStatistics
from alexnet_lab.training.progress_bar import ProgressLine
from alexnet_lab.training.step_seeds import share_dropout

log = logging.getLogger(__name__)


def build_data(config: Train) -> Any:
    """The LightningDataModule of a config."""
    trusted = config.trusted
    augment = None if config.augment is None else build(config.augment, "augment", trusted=trusted)
    given: dict[str, Any] = {"seed": config.seed, "augment": augment}
    if any(config.transforms.values()):
        classes = config.data["num_classes"]
        given["transforms"] = BatchTransforms(config.transforms, seed=config.seed, num_classes=classes, trusted=trusted)
    return build(config.data, "data", trusted=trusted, **given)


def without_verification(config: Train) -> Train:
    """The config for a process that need not read every byte of the store, because the first one of the run does."""
    if "verify" not in config.data:
        return config
    return config.model_copy(update={"data": config.data | {"verify": "stamp"}})


def build_classifier(config: Train) -> LightningModule:
    """The LightningModule of a config, in its memory layout, and compiled if requested: see `own_module.build_module`.

    The layers of `freeze` are frozen. Batch normalisation and dropout work over the whole global batch. Adaptive
    average pooling is deterministic on GPUs.
    """
    module = build_module(config)
    net = network_of(module)
    freeze(net, config.freeze)
    if config.trainer.channels_last:
        net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
    synchronise(net)
    share_dropout(net)
    make_deterministic(net)
    if config.trainer.compile:
        net.compile()  # in place: the names in the checkpoint stay the same
    return module


def warn_of_shared_batches(net: nn.Module, data: Mapping[str, Any]) -> None:
    """Warns about layers whose result depends on the number of processes that share a batch.

    Args:
        net: Before training.
        data: The config's `data`.
    """
    here = cluster.place()
    if here.size == 1 or here.rank:
        return
    layers = batch_dependent(net, (data["channels"], data["image_size"], data["image_size"]))
    if layers:
        log.warning(
            "%s: the result for an image depends on the other images of its batch, and each of the %d processes sees "
            "only its part of a batch; one process would give other losses",
            ", ".join(layers[:5]), here.size,
        )  # fmt: skip


def optional_callbacks(config: Train, directory: RunDirectory) -> list[Callback]:
    """The callbacks that the config asks for."""
    callbacks: list[Callback] = list(parts.build_callbacks(config).values())
    pruning = config.callbacks.pruning
    if pruning is not None:
        monitor = cast("str", config.callbacks.checkpoint.monitor)  # without one, the config is refused
        callbacks.append(Pruning(directory.path, monitor, Rule(pruning.startup_trials, pruning.warmup_epochs)))
    if config.callbacks.layer_statistics:
        callbacks.append(LayerStatistics())
    by_step = step_log(config, directory.steps)
    callbacks += [] if by_step is None else [by_step]
    others = any(isinstance(callback, ProgressBar) for callback in callbacks)
    if config.trainer.progress_bar and shows_bars() and not others:
        callbacks.append(ProgressLine())
    return callbacks


def silent_logger(config: Train) -> DummyLogger | bool:
    """Stands for the loggers of a config where they are not started: a callback that needs one runs there too."""
    return DummyLogger() if targets.parts({"logger": config.logger}) else False


def build_trainer(config: Train, directory: RunDirectory, loggers: list[Steady], callbacks: list[Callback]) -> Trainer:
    """Builds Lightning's Trainer; our callbacks do everything besides training."""
    use_tf32(config.trainer.float32 == "tf32")
    settings = config.trainer.model_dump(exclude=set(OUR_TRAINER_KEYS))
    processes, trusted = Processes(), config.trusted
    settings["accelerator"] = lightnings_name(settings["accelerator"])
    settings["strategy"] = build_strategy(settings["strategy"], processes.world_size(), trusted)
    settings["profiler"] = build_profiler(settings["profiler"], directory.path, trusted)
    warnings.filterwarnings("ignore", message=".*srun. command is available")  # on SLURM's login nodes
    warnings.filterwarnings("ignore", message="Trying to infer the `batch_size`")  # of a `Batch` it is right
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")  # between Lightning 2.6 and torch 2.14
    if config.freeze:  # the layers that are meant to be so
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")
    # A debugging aid of `deterministic` that writes every new tensor twice.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue] - by torch's own trick
    trainer = Trainer(
        **settings,
        logger=cast("list[Logger]", loggers) or silent_logger(config),
        callbacks=callbacks,
        plugins=[SafeCheckpointIO(), processes],
        default_root_dir=directory.path,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),  # ours is none of these
        use_distributed_sampler=False,  # our loader divides the batches itself
    )
    if not has_validation_images(config.data):  # now: overfit_batches and fast_dev_run set the limit themselves
        trainer.limit_val_batches = 0
    # with max_steps, Lightning would resume a finished epoch as one in progress
    trainer.fit_loop._iteration_based_training = lambda: False
    return trainer


PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


NOTHING = contextlib.nullcontext()


class NoProfiler(PassThroughProfiler):
    """A fast profiler that measures nothing. Lightning calls its profiler around each hook of each callback."""

    def profile(self, action_name: str) -> Any:
        """Does nothing around the action."""
        return NOTHING


def build_profiler(asked: str | dict[str, Any] | None, run_dir: Path, trusted: tuple[str, ...]) -> Profiler:
    """The profiler of `trainer.profiler`; a named one writes `fit-profile.txt` into the run directory."""
    if asked is None:
        return NoProfiler()
    if isinstance(asked, dict):
        return build(asked, "trainer.profiler", trusted=trusted)
    return PROFILERS[asked](dirpath=run_dir, filename="profile")


def use_tf32(wanted: bool) -> None:
    """Sets how an NVIDIA GPU multiplies float32 numbers, in convolutions and matrix products alike.

    torch's own defaults compute convolutions in TF32 and matrix products in float32.
    """
    torch.backends.cudnn.allow_tf32 = wanted
    torch.backends.cuda.matmul.allow_tf32 = wanted


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch without setting an environment variable."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that still use the global stream
    torch.manual_seed(seed)
