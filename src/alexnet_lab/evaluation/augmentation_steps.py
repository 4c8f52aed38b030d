"""Training images after each augmentation step applied alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_lab.base.random import generator
from alexnet_lab.data.augment import Augment, AugmentParams, apply
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.loader import RawBatch, read_batch
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
    shown = {"unchanged": _seen(data, images, None)}
    for name, (augment, used) in _factors(data).items():
        shown[name + ("" if used else NOT_USED)] = _seen(data, images, augment, mirror_all=name == "mirrored")
    if data.augment is not None or data.transforms is not None:
        shown["all of this run"] = _as_in_training(data, images, labels)
    return shown


def _factors(data: ImageDataModule) -> dict[str, tuple[Augment, bool]]:
    """For each step: an augmentation with this step alone, and whether the run uses it."""
    own = data.augment
    crop = own is not None and own.crop and data.transform.geometry(training=True).room > 0
    centre_room = data.transform.geometry(training=False).room
    padding = own.padding if own is not None and crop else 0 if centre_room else data.stored_size // 8
    colour = own is not None and own.pca_colour != "none"
    brightness = own.brightness if own is not None else 0.0
    fields: dict[str, tuple[dict[str, Any], bool]] = {
        "cropped": ({"crop": True, "padding": padding}, crop),
        "mirrored": ({"mirror": True}, own is not None and own.mirror),
    }
    if data.channels == 3:
        kind = own.pca_colour if own is not None and colour else "code2012"
        fields["colour noise"] = ({"pca_colour": kind, "pca_std": own.pca_std if own else 0.1}, colour)
    if brightness:
        fields["brightness"] = ({"brightness": brightness}, True)
    off: dict[str, Any] = {"crop": False, "mirror": False}
    return {name: (Augment(**(off | chosen)), used) for name, (chosen, used) in fields.items()}


def _as_in_training(data: ImageDataModule, images: torch.Tensor, labels: torch.Tensor) -> list[NDArray[np.uint8]]:
    """The images after the augmentation and the transforms of the run, which may mix them."""
    count = len(images)
    place = Place(0, 0, range(count), count)
    raw = RawBatch(images, labels, torch.arange(count), count, _draws(data, data.augment, count), place)
    return list(data.transform.grey_levels(data.transform(raw).images))


def _draws(data: ImageDataModule, augment: Augment | None, count: int) -> AugmentParams | None:
    """The same random numbers for every step."""
    if augment is None:
        return None
    geometry = augment.geometry(data.stored_size, data.image_size)
    return augment.draw(generator(data.seed, "factors shown"), count, geometry, data.split.statistics)


def _seen(
    data: ImageDataModule, images: torch.Tensor, augment: Augment | None, *, mirror_all: bool = False
) -> list[NDArray[np.uint8]]:
    """The images as the model sees them, in grey levels."""
    geometry, draws = data.transform.geometry(training=False), _draws(data, augment, len(images))
    if augment is not None:
        geometry = augment.geometry(data.stored_size, data.image_size)
    if draws is not None and mirror_all:
        draws = draws._replace(mirror=torch.ones_like(draws.mirror))
    return list(data.transform.grey_levels(apply(images, draws, geometry, data.transform.normalizer())))
