"""Turns raw batches into the model's input (views, augmentation, normalisation), and back into pixels for display."""

from __future__ import annotations

import logging
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.random import generator
from alexnet_lab.base.targets import build
from alexnet_lab.data.augment import Augment, AugmentParams, Geometry, apply
from alexnet_lab.data.channel_statistics import Statistics
from alexnet_lab.data.field_rules import check_colour
from alexnet_lab.data.loader import Batch, RawBatch
from alexnet_lab.data.normalize import Normalizer, make_normalizer
from alexnet_lab.data.transforms import BatchTransforms
from alexnet_lab.data.views import View

log = logging.getLogger(__name__)


def checked_augment(augment: dict[str, Any] | Augment | None, channels: int, normalization: str) -> Augment | None:
    """Builds the augmentation of a config, or returns the given one.

    Raises:
        ConfigError: It is no `Augment`, or does not suit the images.
    """
    built = build(augment, "augment") if isinstance(augment, dict) else augment
    if not isinstance(built, Augment | None):
        kind = type(built).__name__
        raise ConfigError(f"`augment._target_` gives a {kind}, not an alexnet_lab.data.augment.Augment")
    if built is not None:
        check_colour(built.pca_colour, channels, normalization)
    return built


@dataclass(eq=False)
class Transform:
    """Turns raw batches into the model's input, on their device.

    Attributes:
        augment: Of the training images; None trains on the centre views.
        stored_size: Side of the stored images, in pixels.
        image_size: Side of the model's input, in pixels.
        normalization: See `normalize.NORMALIZATIONS`.
        statistics: Of the training images.
        seed: Of the augmentation, >= 0.
        then: Transforms of the training images after the augmentation; None: there are none.
    """

    augment: Augment | None
    _: KW_ONLY
    stored_size: int
    image_size: int
    normalization: str
    statistics: Statistics
    seed: int
    then: BatchTransforms | None = None

    def __post_init__(self) -> None:
        self._normalizer = make_normalizer(self.normalization, self.statistics, self.geometry(training=False).side)
        if self.augment is not None and self.augment.crop and self.geometry(training=True).room == 0:
            sizes = f"images are stored at {self.stored_size} px, the model sees {self.image_size} px"
            log.info("augment.crop changes nothing: %s, and padding is 0", sizes)

    @property
    def mirrors(self) -> bool:
        """Whether training images are mirrored."""
        return bool(getattr(self.augment, "mirror", False))

    def geometry(self, *, training: bool) -> Geometry:
        """Where views are taken."""
        if training and self.augment is not None:
            return self.augment.geometry(self.stored_size, self.image_size)
        return Geometry(self.stored_size, self.image_size)

    def normalizer(self, device: torch.device | None = None) -> Normalizer:
        """The constants of the normalisation, cached on the device of the last call."""
        if device is not None and self._normalizer.mean.device != device:
            self._normalizer = self._normalizer.to(device)
        return self._normalizer

    def draw(self, epoch: int, batch: int, n: int) -> AugmentParams:
        """The random numbers of a whole global batch of n images: a function of (seed, epoch, batch).

        Raises:
            RuntimeError: There is no augmentation.
        """
        if self.augment is None:
            raise RuntimeError("there is no augmentation")
        rng = generator(self.seed, "augment", epoch, batch)
        return self.augment.draw(rng, n, self.geometry(training=True), self.statistics, epoch)

    def __call__(self, raw: RawBatch, view: View | None = None) -> Batch:
        """The normalised views of a raw batch; `view` applies to images without augmentation, None is the centre."""
        draws = raw.draws
        if draws is None and view is not None:
            draws = view.draws(len(raw.labels), raw.images.device)
        normalizer = self.normalizer(raw.images.device)
        images = apply(raw.images, draws, self.geometry(training=draws is not None), normalizer)
        if self.then is None or raw.place is None:
            return Batch(images, raw.labels, raw.indices, raw.total)
        gain = 1.0 if draws is None else draws.gain
        sized = normalizer._replace(scale=normalizer.scale * gain).sized(self.image_size)
        images, labels, mixed = self.then(images, raw.labels, raw.place, sized)
        return Batch(images, labels, raw.indices[raw.place.lead :], raw.total, mixed)

    def grey_levels(self, images: torch.Tensor) -> NDArray[np.uint8]:
        """Normalised views (B, C, T, T) as pixels 0..255 again, rounded and clipped, for display."""
        return self.normalizer(images.device).sized(images.shape[-1]).grey_levels(images).cpu().numpy()
