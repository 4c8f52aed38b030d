"""Predictions of a trained network for a set of images: logits and the features of its last hidden layer."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import nn

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.fields import check_value
from alexnet_lab.base.log import quiet
from alexnet_lab.config.schema import Train
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.loader import Rows
from alexnet_lab.data.preparation_bar import progress_bar
from alexnet_lab.data.views import View, views_of
from alexnet_lab.models.counts import num_parameters, trace
from alexnet_lab.models.layers import EuclideanRBF
from alexnet_lab.run.engine import build_trainer
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.run.threads import settings_restored
from alexnet_lab.training import Classifier
from alexnet_lab.training.callbacks import network_of, plain
from alexnet_lab.training.metrics import ErrorCounts, are_logits, ranks

__all__ = ["Predictor"]

Views = Literal["center", "ten", "nine"]

CENTRE = {"center": 0, "ten": 2, "nine": 4}
"""The position of the unmirrored centre among the views."""

DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Of images from Python."""

PIXELS = "allowed: uint8 from 0 to 255, or floating point from 0 to 1"

UNKNOWN = -1
"""The label of an image without a class folder."""


ONE_AT_A_TIME = threading.Lock()
"""Held while a thread predicts: a Trainer belongs to one thread, and to find a layer its weights are set aside."""

NO_RANKS = torch.empty(0, dtype=torch.int64)


class Predictions(NamedTuple):
    """A network's predictions for N images, in the order of the set."""

    logits: torch.Tensor  # float32 (N, num_classes); with several views, the logarithm of the mean probabilities
    features: torch.Tensor  # float32 (N, D): of the last hidden layer, in the centre view
    labels: torch.Tensor  # int64 (N,), or UNKNOWN
    indices: torch.Tensor  # int64 (N,), rows of the stored images, or numbers of the files
    names: list[str]  # of the user's own files, otherwise empty
    class_names: list[str]
    metrics: dict[str, float]  # test/loss, test/top1_error, ... counted as in training; empty without labels
    center_metrics: dict[str, float]  # the same for the centre view alone
    center_ranks: torch.Tensor = NO_RANKS  # int64 (N,), of the labels in the centre view; empty if it is the only view

    @property
    def probabilities(self) -> torch.Tensor:
        """The softmax of the logits (N, num_classes)."""
        return self.logits.softmax(1)


class Collector(Callback):
    """Collects logits, labels and indices of each evaluated batch, and what the layer sees that `look` is hooked to.

    Args:
        num_classes: The number of classes of the data.
        advance: Called with the number of images of each batch.
    """

    def __init__(self, num_classes: int, advance: Callable[[int], None]) -> None:
        self.num_classes = num_classes
        self.advance = advance
        self.features: list[torch.Tensor] = []
        self.kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def look(self, _layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Keeps the inputs of a layer: of maps, their means."""
        hidden = inputs[0].float()
        self.features.append((hidden.mean((2, 3)) if hidden.ndim == 4 else hidden).cpu())

    def on_test_batch_end(  # noqa: PLR0917 - Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps a batch."""
        images = len(batch.labels)
        if not are_logits(outputs, images, self.num_classes):
            raise ConfigError(
                f"validation_step and test_step of {type(pl_module).__name__} must return the logits ({images}, "
                f"{self.num_classes}) for eval.py; they return {_described(outputs)}"
            )
        self.kept.append((outputs.float().cpu(), batch.labels.cpu(), batch.indices.cpu()))
        self.advance(images)

    on_validation_batch_end = on_test_batch_end


def _described(value: Any) -> str:
    return f"a tensor of {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


def predict(
    run: Predictor, split: str, *, views: Views = "center", rows: Rows | None = None, names: list[str] | None = None
) -> Predictions:
    """Predicts a set of images with a run's best checkpoint, in one process.

    Data, batches and dtype are those of training, so the metrics equal the run's own to the bit.

    Args:
        run: The finished run, or a network from its weights file.
        split: "test", "val" or "train" (unaugmented, in the order of the store).
        views: The views of each image; the probabilities of several views are averaged.
        rows: Other images in place of the split; labels may be UNKNOWN.
        names: Of their files.

    Raises:
        ConfigError: Several views were asked for, but the images have only one.
    """
    places: list[View | None] = [None] if views == "center" else [*views_of_run(run, views)]
    name = split if rows is None else "test"
    labelled = rows is None or bool((rows.labels != UNKNOWN).all())
    images = name if rows is None else rows._replace(labels=rows.labels.clip(0))  # a loss needs some label
    data = [run.data.tested_on("test" if images == "val" else images, view=place) for place in places]
    centre, mean = _all_views(run, "val" if name == "val" else "test", data, CENTRE[views])
    labels = centre.labels if labelled else torch.full_like(centre.labels, UNKNOWN)
    centre_metrics = {f"{name}/{key.partition('/')[2]}": value for key, value in centre.metrics.items() if labelled}
    found = centre._replace(
        logits=mean, labels=labels, names=names or [], metrics=centre_metrics, center_metrics=centre_metrics
    )
    if not labelled or len(places) == 1:
        return found
    return found._replace(metrics=count(mean, labels, name), center_ranks=ranks(centre.logits, labels))


def views_of_run(run: Predictor, views: Views) -> list[View]:
    """The views of a run, mirrored only if training mirrors images; raises ConfigError if there is only one view."""
    return views_of(views, run.data.transform.geometry(training=True).room, mirror=run.data.transform.mirrors)


def count_views(run: Predictor, views: Views) -> int:
    """The number of averaged views per image: 5 for `views=ten` if training mirrors no image."""
    return 1 if views == "center" else len(views_of_run(run, views))


def _all_views(
    run: Predictor, stage: str, views: list[ImageDataModule], centre: int
) -> tuple[Predictions, torch.Tensor]:
    """The predictions of the centre view, and the logits of all views together; `views` has the data of each view."""
    total: torch.Tensor | None = None  # the running sum of probabilities
    found: Predictions | None = None
    images = len(views[0].rows(stage).indices)
    with progress_bar("evaluating", images * len(views)) as advance:
        for number, data in enumerate(views):
            seen = _one_view(run, stage, data, advance, features=number == centre)
            found = seen if number == centre else found
            if len(views) == 1:
                return seen, seen.logits
            total = seen.probabilities if total is None else total.add_(seen.probabilities)
    assert found is not None  # noqa: S101 - the centre is one of the views
    assert total is not None  # noqa: S101 - so there is at least one
    return found, log_of(total / len(views))


def _one_view(
    run: Predictor, stage: str, data: ImageDataModule, advance: Callable[[int], None], *, features: bool
) -> Predictions:
    """One pass over the images, in the view of `data`."""
    collector = Collector(run.data.num_classes, advance)
    with quiet("lightning.pytorch"):  # which would list the devices each time
        trainer = build_trainer(run.settings, run.directory, [], [collector])
        evaluate = trainer.test if stage == "test" else trainer.validate
        with last_layer(run).register_forward_pre_hook(collector.look) if features else contextlib.nullcontext():
            evaluate(run.classifier, data, verbose=False)
    logits, labels, indices = (torch.cat(parts) for parts in zip(*collector.kept, strict=True))
    hidden = torch.cat(collector.features) if features else torch.empty(0)
    metrics = {name: plain(value) for name, value in trainer.callback_metrics.items() if name.startswith(f"{stage}/")}
    if not isinstance(run.classifier, Classifier):  # which may log only some of them
        metrics = count(logits, labels, stage) | metrics
    return Predictions(logits, hidden, labels, indices, [], run.data.class_names, metrics, metrics)


def last_layer(run: Predictor) -> nn.Module:
    """The layer that computes the logits: the last one with weights. Its inputs are the features."""
    data = run.data
    calls = trace(run.net, (data.channels, data.image_size, data.image_size))
    return next(
        call.layer
        for call in reversed(calls)
        if num_parameters(call.layer) or isinstance(call.layer, EuclideanRBF)  # its prototypes are fixed
    )


def count(logits: torch.Tensor, labels: torch.Tensor, split: str) -> dict[str, float]:
    """The metrics of a whole set of logits (N, num_classes) and labels (N,)."""
    counts = ErrorCounts(logits.shape[1])
    counts.update(logits, labels, F.cross_entropy(logits, labels, reduction="none"))
    return {f"{split}/{name}": plain(value) for name, value in counts.compute().items()}


def log_of(probabilities: torch.Tensor) -> torch.Tensor:
    """Logits of given probabilities; values below the smallest normal float32 are raised to it."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


class Predictor:
    """What a finished run and a weights file have in common.

    Attributes:
        path: As given.
        trained_by: The config, checked.
        settings: The same config, set to evaluate in one process.
        directory: Where it was found.
        classifier: The trained LightningModule.
        data: Turns images into the network's input.
        threads: Of torch, while it predicts.
        checkpoint_hash: SHA-256 of the file with the weights.

    Example:
        >>> from alexnet_lab import load
        >>> run = load("logs/runs/first")
        >>> isinstance(run, Predictor), sum(weight.numel() for weight in run.net.parameters())
        (True, 61706)
        >>> probabilities = run.predict(np.zeros((1, 1, 8, 8), dtype=np.uint8), views="ten")
        >>> round(float(probabilities.sum()), 5)
        1.0
    """

    path: str
    trained_by: Train
    settings: Train
    directory: RunDirectory
    classifier: LightningModule
    data: ImageDataModule
    threads: int
    checkpoint_hash: str

    @property
    def config(self) -> dict[str, Any]:
        """`settings` as a plain dictionary with the keys of config.yaml: a copy, whose changes have no effect."""
        return self.settings.model_dump()

    @property
    def net(self) -> nn.Module:
        """The network, in evaluation mode; it takes normalised images and returns logits."""
        return network_of(self.classifier)

    @property
    def class_names(self) -> list[str]:
        """In the order of the columns of `predict`."""
        return self.data.class_names

    def predict(self, images: NDArray | torch.Tensor, *, views: Views = "center") -> torch.Tensor:
        """Predicts the probability of each class for images of one size.

        Images are processed as in the run's own evaluation: the shorter side is scaled to the size of the stored
        images, the centre is cropped, and the result is normalised. Several threads may call it; they take turns.

        Args:
            images: (B, C, H, W) with the channels of the run's data. uint8 from 0 to 255, or floating-point numbers
                from 0 to 1, which are rounded to 8 bits.
            views: "center", or "ten" or "nine" to average several views.

        Returns:
            float32 (B, num_classes), on the CPU; rows sum to 1.

        Raises:
            ConfigError: The shape, dtype, range or number of views is not allowed.
        """
        check_value("views", views, Views)
        if not isinstance(images, np.ndarray | torch.Tensor):
            kind = type(images).__name__
            raise ConfigError(f"`images` is of type {kind}; allowed: an array or a tensor (B, C, H, W)")
        if isinstance(images, np.ndarray):
            if images.dtype.kind not in "biuf" or images.dtype.itemsize > 8:  # which torch lacks
                raise ConfigError(f"`images` is {images.dtype}; {PIXELS}")
            # torch takes neither negative strides nor other byte orders
            images = torch.from_numpy(np.array(images, images.dtype.newbyteorder("="), order="C"))
        if images.is_meta or images.is_nested or images.layout is not torch.strided:
            raise ConfigError(f"`images` is {'without content' if images.is_meta else images.layout}; {PIXELS}")
        with ONE_AT_A_TIME, settings_restored():
            torch.set_num_threads(self.threads)
            stored = stored_images(images, self.data.channels, self.data.stored_size)
            count = len(stored)
            if count == 0:
                return torch.empty(0, self.data.num_classes)
            rows = Rows(stored.numpy(), np.full(count, UNKNOWN), np.arange(count))
            return predict(self, "test", views=views, rows=rows).probabilities


def stored_images(images: torch.Tensor, channels: int, size: int) -> torch.Tensor:
    """Converts images to the format of a store.

    Args:
        images: (B, C, H, W), uint8 or floating-point numbers in [0, 1].
        channels: The required C.
        size: Of the stored images, in pixels.

    Returns:
        uint8 (B, C, size, size).

    Raises:
        ConfigError: The shape, dtype or range is not allowed.
    """
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[1] != channels or 0 in shape[2:]:
        raise ConfigError(f"`images` has the shape {shape}; allowed: (B, {channels}, H, W)")
    if images.dtype not in DTYPES:
        raise ConfigError(f"`images` is {images.dtype}; {PIXELS}")
    grey = images.detach().cpu()
    if images.is_floating_point():
        if not bool(((grey >= 0) & (grey <= 1)).all()):
            low, high = (float(value) for value in grey.aminmax())
            raise ConfigError(f"`images` has numbers from {low:g} to {high:g}; allowed: floating point from 0 to 1")
        grey = (grey.float() * 255).round().byte()
    height, width = shape[2:]
    if (height, width) == (size, size):
        return grey
    short = min(height, width)
    height, width = size * height // short, size * width // short
    grey = F.interpolate(grey.float(), (height, width), mode="bilinear", antialias=True).round().clamp(0, 255).byte()
    top, left = round((height - size) / 2), round((width - size) / 2)
    return grey[:, :, top : top + size, left : left + size].contiguous()
