"""Training images after each augmentation step applied alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_lab.base.random import generator
from alexnet_lab.data.augment import Augment
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.loader import RawBatch, read_batch
from alexnet_lab.data.transform import Transform
from alexnet_lab.data.transforms import Place
from alexnet_lab.evaluation.loaded_run import FinishedRun

NOT_USED = "\n(not in this run)"


def single_factors(run: FinishedRun, count: int) -> dict[str, list[NDArray[np.uint8]]]:
    """Training images (C, T, T) as the model sees them, by augmentation step: first without, last as in training.

    A step that the run does not use is shown with the papers' values, and its name says so.

    Args:
        run: The finished run.
        count: The number of images.
    """
    data = run.data
    places = generator(data.seed, "factors").permutation(data.num_train)[:count]
    images, labels, _ = read_batch(data.rows("train"), places)
    alone = dataclasses.replace(data.transform, augment=None, then=None)
    shown = {"unchanged": _seen(alone, images, labels)}
    for name, (augment, used) in _factors(data).items():
        factor = dataclasses.replace(alone, augment=augment)
        shown[name + ("" if used else NOT_USED)] = _seen(factor, images, labels, mirror_all=name == "mirrored")
    if data.augment is not None or data.transforms is not None:
        shown["all of this run"] = _seen(data.transform, images, labels)
    return shown


def _factors(data: ImageDataModule) -> dict[str, tuple[Augment, bool]]:
    """For each step: an augmentation with this step alone, and whether the run uses it."""
    own = data.augment or Augment(crop=False, mirror=False)
    crop = own.crop and data.transform.geometry(training=True).room > 0
    centre_room = data.transform.geometry(training=False).room
    padding = own.padding if crop else 0 if centre_room else data.stored_size // 8
    colour = own.pca_colour != "none"
    fields: dict[str, tuple[dict[str, Any], bool]] = {
        "cropped": ({"crop": True, "padding": padding}, crop),
        "mirrored": ({"mirror": True}, own.mirror),
    }
    if data.channels == 3:
        kind = own.pca_colour if colour else "code2012"
        fields["colour noise"] = ({"pca_colour": kind, "pca_std": own.pca_std}, colour)
    if own.brightness:
        fields["brightness"] = ({"brightness": own.brightness}, True)
    off: dict[str, Any] = {"crop": False, "mirror": False}
    return {name: (Augment(**(off | chosen)), used) for name, (chosen, used) in fields.items()}


def _seen(
    transform: Transform, images: torch.Tensor, labels: torch.Tensor, *, mirror_all: bool = False
) -> list[NDArray[np.uint8]]:
    """Training images as a transform turns them into the model's input, in grey levels; all use the same numbers."""
    count, draws = len(images), None
    if transform.augment is not None:
        rng, geometry = generator(transform.seed, "factors shown"), transform.geometry(training=True)
        draws = transform.augment.draw(rng, count, geometry, transform.statistics)
        draws = draws._replace(mirror=draws.mirror | mirror_all)
    raw = RawBatch(images, labels, torch.arange(count), count, draws, Place(0, 0, range(count), count))
    return list(transform.grey_levels(transform(raw).images))
