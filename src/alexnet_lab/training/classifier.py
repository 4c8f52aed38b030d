"""The Classifier: net + loss + metrics + optimiser + schedule, as a LightningModule."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import LRSchedulerTypeUnion, OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.base.fields import SHORT, check_value
from alexnet_lab.base.ranges import Classes
from alexnet_lab.base.targets import build, locate, target_of
from alexnet_lab.data.loader import Batch, BatchLoader, as_batch
from alexnet_lab.models.layers.response_norm import at_least_float
from alexnet_lab.training.checkpoint_io import load_checkpoint, load_weights
from alexnet_lab.training.diagonal_lm import DiagonalLM
from alexnet_lab.training.extra_metrics import ExtraMetrics, sign
from alexnet_lab.training.last_validation import LastValidation, last_validation
from alexnet_lab.training.losses import CrossEntropy, losses_of
from alexnet_lab.training.metrics import ErrorCounts
from alexnet_lab.training.optimizers import build_optimizer
from alexnet_lab.training.per_rank_state import gathered, own_part
from alexnet_lab.training.schedules import build_schedule, duration_of, go_to

COUNTS = "train_counts"
"""Checkpoint key: the counts of the current epoch, by rank."""

EXTRA = "train_extra"
"""Checkpoint key: the states of the config's `metrics` in the current epoch, by rank."""

SAVED_FIELDS = ("num_classes", "optimizer", "schedule", "loss", "memory_format")
"""The constructor arguments that a checkpoint keeps, beside those of the network as `model`."""


class Classifier(LightningModule):
    """Trains and tests a network that returns logits, with the mean loss over the global batch.

    Batches come from a data module of `alexnet_lab.data`, or from any loader whose batches unpack as
    `images, labels = batch[:2]`, such as a plain `DataLoader` of float images (C, H, W) and labels.

    Checkpoints contain only tensors, numbers and strings. If all arguments are plain dictionaries (a `_target_` and its
    fields), `Classifier.load_from_checkpoint(path)` needs no other file. A network given as a module is passed again:
    `load_from_checkpoint(path, net=MyNet())`.

    A subclass may add fields: `def __init__(self, *, margin: float = 0.1, **fields)`, which calls
    `super().__init__(**fields)`.

    Args:
        net: The network: a module, or e.g. `{"_target_": "alexnet_lab.models.LeNet5", "activation": "tanh"}`.
        num_classes: The number of classes, >= 2.
        optimizer: E.g. `{"_target_": "alexnet_lab.training.optimizers.sgd", "learning_rate": 0.01}`.
        schedule: E.g. `{"_target_": "alexnet_lab.training.schedules.one_cycle"}`; None keeps the rate constant.
        loss: A module that computes the loss of each image, (B,), from logits and labels, e.g.
            `{"_target_": "alexnet_lab.training.losses.LeNet5Criterion"}`; None is the cross-entropy.
        memory_format: Memory layout of images and kernels. Convolutions are faster with channels_last; the values
            are equal to rounding.
        metrics: Further metrics of torchmetrics by name, e.g.
            `{"f1": {"_target_": "torchmetrics.classification.MulticlassF1Score", "num_classes": 10}}`, logged as
            `train/f1`, `val/f1` and `test/f1`. Checkpoints do not keep this argument.
        trusted_packages: Additional packages that a `_target_` may name. A checkpoint does not keep them: a file
            cannot grant trust to itself.

    Raises:
        ConfigError: An argument of another kind or out of its range, or a `_target_` that is not allowed.

    Example:
        >>> module = Classifier(
        ...     {"_target_": "alexnet_lab.models.LeNet5"},
        ...     num_classes=10,
        ...     optimizer={"_target_": "alexnet_lab.training.optimizers.sgd", "learning_rate": 0.01},
        ... )
        >>> module(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        net: nn.Module | dict[str, Any],
        *,
        num_classes: int,
        optimizer: dict[str, Any],
        schedule: dict[str, Any] | None = None,
        loss: dict[str, Any] | None = None,
        memory_format: Literal["contiguous", "channels_last"] = "channels_last",
        metrics: dict[str, dict[str, Any]] | None = None,
        trusted_packages: list[str] | None = None,
    ) -> None:
        super().__init__()
        num_classes = check_value("num_classes", num_classes, Classes)
        memory_format = check_value("memory_format", memory_format, Literal["contiguous", "channels_last"])
        metrics = check_value("metrics", metrics, dict[str, Any] | None)
        trusted_packages = check_value("trusted_packages", trusted_packages, list[str] | None)
        self.trusted = tuple(trusted_packages or ())
        if not isinstance(net, nn.Module | dict):
            raise ConfigError(f"`net` is {SHORT.repr(net)} ({type(net).__name__}); allowed: a module, or a dictionary")
        for group, spec in {"optimizer": optimizer, "schedule": schedule, "loss": loss}.items():
            if spec is not None or group == "optimizer":
                locate(target_of(spec, group), group, self.trusted)
        # W&B gets the config as flat keys instead
        self.save_hyperparameters(ignore=["net", "metrics", "trusted_packages"], logger=False)
        if isinstance(net, dict):
            self.hparams["model"] = net
        self.optimizer_spec = optimizer
        self.schedule_spec = schedule
        self.memory_format = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
        built = net if isinstance(net, nn.Module) else build(net, "model", trusted=self.trusted)
        if any(isinstance(parameter, UninitializedParameter) for parameter in built.parameters()):
            raise ConfigError("`net` has lazy layers, whose sizes are unknown; call it with one batch first")
        self.net = built.to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
        self.loss: nn.Module = CrossEntropy() if loss is None else build(loss, "loss", trusted=self.trusted)
        self.num_classes = num_classes
        self._counted: int | None = None  # the last batch of this epoch that was counted
        self.train_counts = ErrorCounts(num_classes)
        self.val_counts = ErrorCounts(num_classes)
        self.test_counts = ErrorCounts(num_classes)
        extra = (ExtraMetrics(metrics or {}, num_classes, self.trusted) for _ in range(3))
        self.train_extra, self.val_extra, self.test_extra = extra
        self.higher_is_better = self.train_extra.higher_is_better

    @classmethod
    def load_from_checkpoint(  # pyright: ignore[reportIncompatibleMethodOverride] - Lightning's version trusts the file
        cls,
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        *,
        net: nn.Module | None = None,
        trusted_packages: list[str] | None = None,
    ) -> Self:
        """Loads the trained classifier of a checkpoint file; no other file is needed.

        Args:
            checkpoint_path: E.g. `RUN_DIR/checkpoints/best.ckpt`.
            map_location: The device for its tensors, as in `torch.load`.
            net: The network, if the classifier was given a module.
            trusted_packages: See `Classifier`; any value in the file is ignored.

        Raises:
            RunError: The file is missing, damaged, or no checkpoint of a classifier.
            ConfigError: The file names a `_target_` that is not allowed.
        """
        path = Path(checkpoint_path)
        checkpoint = load_checkpoint(path, map_location)
        fields = checkpoint.get("hyper_parameters") if isinstance(checkpoint, dict) else None
        if not isinstance(fields, dict) or not set(fields) >= {"num_classes", "optimizer"}:
            raise RunError(f"{path} is no checkpoint of a Classifier: it does not name its network")
        if net is None and "model" not in fields:
            raise RunError(f"{path} does not name its network; pass it: load_from_checkpoint(path, net=...)")
        names = {*SAVED_FIELDS, *inspect.signature(cls).parameters} - {"net", "metrics", "trusted_packages"}
        known = {name: fields[name] for name in names if name in fields}
        classifier = cls(net=fields["model"] if net is None else net, **known, trusted_packages=trusted_packages)
        load_weights(classifier, checkpoint, path)
        return classifier

    def forward(self, images: Tensor) -> Tensor:
        """Computes the logits (B, num_classes) of images (B, C, H, W)."""
        return self.net(images.contiguous(memory_format=self.memory_format))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Returns this process's share of the mean loss over the global batch.

        DDP averages gradients over processes, whose shares of a batch may differ in size. The sum is therefore scaled
        by world size / global batch size, and N processes take the step that one process would take. A mixed image has
        the losses of both labels by their shares; the training error counts it as its label of the larger share.
        """
        images, labels, _, total, mixed = as_batch(batch, self.trainer)
        logits = self._logits(images)
        losses = losses_of(self.loss, at_least_float(logits), labels, mixed)
        if batch_index != self._counted:  # an optimiser such as LBFGS computes a batch several times
            self._counted = batch_index
            self.train_counts.update(logits, labels, losses)
            self.train_extra.update(logits, labels)
        return losses.sum() * (self.trainer.world_size / total)

    def validation_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Counts one validation batch and returns its logits (B, num_classes)."""
        return self._count(batch, self.val_counts, self.val_extra)

    def test_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Counts one test batch and returns its logits (B, num_classes)."""
        return self._count(batch, self.test_counts, self.test_extra)

    def predict_step(self, batch: Any, batch_index: int, dataloader_idx: int = 0) -> Tensor:
        """Returns the logits (B, num_classes) of a batch: images (B, C, H, W), or what begins with them."""
        return self(batch if isinstance(batch, torch.Tensor) else batch[0])

    def _logits(self, images: Tensor) -> Tensor:
        """The logits, which must be enough for all classes."""
        logits = self(images)
        if logits.ndim != 2 or logits.shape[1] < self.num_classes:
            raise ConfigError(
                f"`net` gives outputs of the shape {tuple(logits.shape)} for {len(images)} images; allowed: one number "
                f"for each of the {self.num_classes} classes (`num_classes`)"
            )
        return logits

    def _count(self, batch: Batch, counts: ErrorCounts, extra: ExtraMetrics) -> Tensor:
        images, labels, *_ = as_batch(batch, self.trainer)
        logits = self._logits(images)
        counts.update(logits, labels, losses_of(self.loss, at_least_float(logits), labels, None))
        extra.update(logits, labels)
        return logits

    def setup(self, stage: str) -> None:
        """Forgets what a loop that ended early had counted; a checkpoint's counts are restored later."""
        self._counted = None
        for counts in (self.train_counts, self.val_counts, self.test_counts):
            counts.reset()
        for extra in (self.train_extra, self.val_extra, self.test_extra):
            extra.reset()

    def on_train_start(self) -> None:
        """Moves the schedule to the current epoch if the epochs have more steps than before the resume."""
        if getattr(getattr(self.trainer, "datamodule", None), "folded_in", False):
            epochs_done = self.trainer.current_epoch * duration_of(self.trainer).steps_per_epoch
            for config in self.trainer.lr_scheduler_configs:
                if config.interval == "step":
                    go_to(config.scheduler, round(epochs_done))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Lets an optimiser that measures curvature read the coming training images, when an estimate is due."""
        optimizer = self.trainer.optimizers[0]
        if isinstance(optimizer, DiagonalLM):
            loader = readable_ahead(self.trainer)
            if optimizer.estimate_is_due(batch_idx, loader.batch_sampler.batch_size):
                coming = coming_batches(self.trainer, loader, batch_idx, optimizer.samples)
                optimizer.estimate_curvature(self.net, self.loss, coming)

    def on_train_epoch_end(self) -> None:
        """Logs `train/...` as measured during training (augmented, with dropout), then steps a plateau schedule."""
        self._log("train", self.train_counts, self.train_extra)
        self._counted = None
        self._step_plateau()

    def on_validation_epoch_end(self) -> None:
        """Logs `val/...`."""
        self._log("val", self.val_counts, self.val_extra)

    def on_test_epoch_end(self) -> None:
        """Logs `test/...`, or the data module's `test_stage` instead of `test`."""
        stage = getattr(getattr(self.trainer, "datamodule", None), "test_stage", "test")
        self._log(stage, self.test_counts, self.test_extra)

    def _log(self, stage: str, counts: ErrorCounts, extra: ExtraMetrics) -> None:
        """Logs the counts and further metrics over all processes, and resets them."""
        values = {f"{stage}/{name}": value for name, value in (counts.compute() | extra.compute()).items()}
        during = self.trainer.state.fn == TrainerFn.FITTING  # then epochs count from 1; afterwards it is the last one
        epoch = self.trainer.current_epoch + during
        self.log_dict(values | {"epoch": float(epoch), "step": float(self.trainer.global_step)})  # axes of trackers
        counts.reset()
        extra.reset()

    def _step_plateau(self) -> None:
        """Passes this epoch's metric to a plateau schedule; an epoch without validation only uses up patience.

        Lightning would do this after it has written the epoch's checkpoints, so a resumed run would be one epoch
        behind. It therefore happens here, and `lr_scheduler_step` skips Lightning's own call.
        """
        validated = last_validation(self.trainer)
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                if str(config.monitor) in validated:
                    config.scheduler.step(validated[str(config.monitor)] * sign(self, config.monitor))
                else:
                    config.scheduler.num_bad_epochs += 1

    def lr_scheduler_step(self, scheduler: LRSchedulerTypeUnion, metric: Any | None) -> None:
        """Lightning's call after each step or epoch; skips plateau schedules, see `_step_plateau`."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the norm of all gradients, or each value, if `trainer.gradient_clip_val` is above 0.

        Lightning refuses to clip for fused optimisers under mixed precision, because these divide by the loss scale
        within their step. With bfloat16 there is no scale. With float16 the scaler unscales here, and the step then
        has nothing to divide.
        """
        if gradient_clip_val is None or gradient_clip_val <= 0:
            return
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        by_value = gradient_clip_algorithm == "value"  # Lightning passes a StrEnum
        clip = torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_
        clip(parameters, gradient_clip_val)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Saves the counts and metrics of the epoch in progress."""
        checkpoint[COUNTS] = gathered(self.train_counts.numbers())
        checkpoint[EXTRA] = gathered(self.train_extra.state())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the counts and metrics; checkpoints of older versions have no metrics."""
        self.train_counts.set_numbers(own_part(checkpoint[COUNTS]))
        self.train_extra.restore(checkpoint.get(EXTRA, []))

    def configure_callbacks(self) -> list[Callback]:
        """Keeps the last validation for a plateau schedule, under any Trainer."""
        known = any(isinstance(callback, LastValidation) for callback in self.trainer.callbacks)  # pyright: ignore[reportAttributeAccessIssue] - set out of its sight
        return [] if known else [LastValidation()]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Builds the optimiser and schedule of the config; epochs become steps here."""
        optimizer = build_optimizer(self.optimizer_spec, self.net, self.trusted)
        size = self.trainer.world_size
        if isinstance(optimizer, LBFGS) and size > 1:
            raise ConfigError(
                f"`optimizer` is LBFGS, whose number of passes depends on the loss of each of the {size} processes; "
                f"set trainer.devices=1"
            )
        if self.schedule_spec is None:
            return optimizer
        schedule = build_schedule(self.schedule_spec, optimizer, duration_of(self.trainer), self.trusted)
        if isinstance(schedule["scheduler"], ReduceLROnPlateau) and not self._validates():
            raise ConfigError(
                "`schedule` waits for validation, and `trainer.limit_val_batches` or `data.val_fraction` is 0: set it "
                "above 0, or choose another schedule, e.g. schedule=step"
            )
        return cast("OptimizerLRScheduler", {"optimizer": optimizer, "lr_scheduler": schedule})

    def _validates(self) -> bool:
        """Whether there are images to validate on; a data module may have none."""
        data = getattr(self.trainer, "datamodule", None)
        return self.trainer.limit_val_batches != 0 and getattr(data, "num_val", None) != 0


def readable_ahead(trainer: Trainer) -> BatchLoader:
    """Returns the training loader, which must support reading ahead.

    Raises:
        ConfigError: It is not a `BatchLoader`.
    """
    loader = trainer.train_dataloader
    if not isinstance(loader, BatchLoader):
        raise ConfigError("optimizer=diagonal_lm reads ahead in the training data, which only a BatchLoader allows")
    return loader


def coming_batches(trainer: Trainer, loader: BatchLoader, first: int, images: int) -> Iterator[Batch]:
    """Yields this process's share of the coming batches of the epoch, starting with number `first`.

    The batches are read separately; the loader keeps its place in the epoch.

    Args:
        trainer: The trainer of the run.
        loader: The training loader.
        first: The first batch. After the last batch of the epoch, its beginning follows.
        images: The minimum number of images over all processes, if the epoch has as many.
    """
    order = loader.batch_sampler
    positions = order.positions()
    for number in range(first, first + min(math.ceil(images / order.batch_size), len(loader))):
        yield trainer.strategy.batch_to_device(loader.batch(order.epoch, number % len(loader), positions))
