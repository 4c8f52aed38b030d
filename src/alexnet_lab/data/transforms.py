"""torchvision's transforms after our augmentation: functions of seed, epoch and position, like everything else.

torch draws the numbers of a transform from one global stream. It is therefore seeded for each image with a number that
depends on (seed, transform, epoch, batch, position in the global batch), and restored afterwards. Each image gets the
same changes for any number of processes, and after a resume.

MixUp and CutMix mix each image with the one before it in the global batch, the first with the last, by numbers that are
the same for the whole global batch. Each process also reads the image before its own ones, so N processes mix what one
process would.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2

from alexnet_lab.base.errors import ConfigError, one_line
from alexnet_lab.base.random import generator
from alexnet_lab.base.targets import build
from alexnet_lab.data.normalize import Normalizer

MIXING = (v2.MixUp, v2.CutMix)
"""Transforms of a whole batch."""

NORMALISED = (v2.RandomErasing, v2.GaussianNoise, *MIXING)
"""Transforms that see normalised images, where 0 is the mean colour; the others see pixels, uint8 from 0 to 255."""


class Place(NamedTuple):
    """The place of a process's images in a run."""

    epoch: int  # from 0
    batch: int  # from 0, in the epoch
    positions: range  # of the process's images in the global batch
    total: int  # images in the global batch
    lead: int = 0  # images before them, read for mixing only: 1, or 0

    def read(self) -> list[int]:
        """The positions in the global batch of all images that are read; before the first one is the last."""
        start = self.positions.start
        return [at % self.total for at in range(start - self.lead, self.positions.stop)]


class Mixed(NamedTuple):
    """The second labels of mixed images; each image's own label is the one with the larger share."""

    others: Tensor  # int64 (B,)
    shares: Tensor  # float32 (B,): of the first labels, at least 1/2


class BatchTransforms:
    """The transforms of a config, in its order; those of pixels come first, mixing comes last.

    Args:
        specs: A `_target_` and its fields for each name.
        seed: Of the run.
        num_classes: The number of classes.
        trusted: Additional packages that a `_target_` may name.

    Raises:
        ConfigError: A class refuses its fields, or two of them mix images.
    """

    def __init__(self, specs: Mapping[str, Any], *, seed: int, num_classes: int, trusted: tuple[str, ...] = ()) -> None:
        parts = {name: spec for name, spec in specs.items() if spec is not None}
        built = {name: build(spec, f"transforms.{name}", trusted=trusted) for name, spec in parts.items()}
        self.seed = seed
        self.num_classes = num_classes
        self.of_pixels = {name: item for name, item in built.items() if not isinstance(item, NORMALISED)}
        self.mixing = {name: item for name, item in built.items() if isinstance(item, MIXING)}
        self.normalised = {name: built[name] for name in built if name not in self.of_pixels | self.mixing}
        if len(self.mixing) > 1:
            raise ConfigError(f"`transforms` mixes images twice, in {' and '.join(self.mixing)}; leave one of them out")

    def __call__(
        self, images: Tensor, labels: Tensor, place: Place, normalizer: Normalizer
    ) -> tuple[Tensor, Tensor, Mixed | None]:
        """Changes a batch.

        Args:
            images: float32 (lead + B, C, T, T), normalised.
            labels: int64 (lead + B,).
            place: Of these images.
            normalizer: For images of this size.

        Returns:
            The images (B, C, T, T), their labels (B,), and the second labels if images are mixed.
        """
        if self.of_pixels and len(images):
            pixels = normalizer.grey_levels(images)
            images = normalizer.normalised(self._each(self.of_pixels, pixels, place))
        images = self._each(self.normalised, images, place)
        if not self.mixing:
            return images, labels, None
        if not len(labels):  # a process without a part of a small batch
            return images, labels, Mixed(labels, labels.float())
        return self._mixed(images, labels, place)

    def _each(self, transforms: Mapping[str, Callable[[Tensor], Tensor]], images: Tensor, place: Place) -> Tensor:
        """Each image by itself, with its own random numbers."""
        if not transforms or not len(images):
            return images
        with _own_numbers(images.device):
            for name, transform in transforms.items():
                seeds = self._seeds(name, place, place.total)
                changed = [_seeded(seeds[at], transform, image) for at, image in zip(place.read(), images, strict=True)]
                images = torch.stack(changed)
        return images

    def _mixed(self, images: Tensor, labels: Tensor, place: Place) -> tuple[Tensor, Tensor, Mixed]:
        """Mixes each image with the one before it."""
        ((name, transform),) = self.mixing.items()
        with _own_numbers(images.device):
            images, targets = _seeded(self._seeds(name, place, 1)[0], transform, images, labels)
        shares, classes = targets.sort(dim=1, descending=True, stable=True)  # (lead + B, num_classes)
        mixed = Mixed(classes[place.lead :, 1], shares[place.lead :, 0])
        return images[place.lead :], classes[place.lead :, 0], mixed

    def _seeds(self, name: str, place: Place, count: int) -> list[int]:
        """One seed for the whole global batch, or one for each of its images."""
        return generator(self.seed, f"transforms.{name}", place.epoch, place.batch).integers(2**62, size=count).tolist()


def _own_numbers(device: torch.device) -> Any:
    """Within the block random numbers do not disturb the run's own streams."""
    return torch.random.fork_rng(devices=[device.index] if device.type == "cuda" else [])


def _seeded(seed: int, transform: Callable[..., Any], *inputs: Tensor) -> Any:
    torch.manual_seed(seed)
    return transform(*inputs)


def try_transform(key: str, spec: Mapping[str, Any], data: Mapping[str, Any], trusted: tuple[str, ...]) -> None:
    """Tries a transform on stand-ins for the images of a config.

    Args:
        key: Of the transform in the config.
        spec: A `_target_` and its fields.
        data: The config's `data`.
        trusted: Additional packages that a `_target_` may name.

    Raises:
        ConfigError: It refuses its fields, fails, gives images of another shape or kind, or other images each time.
    """
    transform, target = build(spec, key, trusted=trusted), spec["_target_"]
    shape = (3, data["channels"], data["image_size"], data["image_size"])
    images = torch.arange(torch.Size(shape).numel(), dtype=torch.int32).remainder(256).reshape(shape)
    images = images / 255 if isinstance(transform, NORMALISED) else images.byte()
    inputs = (images, torch.tensor([0, 1, data["num_classes"] - 1])) if isinstance(transform, MIXING) else (images[0],)
    try:
        with _own_numbers(images.device), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tries = [_seeded(seed, transform, *(item.clone() for item in inputs)) for seed in (0, *range(1, 20), 0)]
    except Exception as error:  # of any kind: the class is another package's
        text = one_line(f"{type(error).__name__}: {error}")[:300]
        raise ConfigError(f"`{key}`: {target} fails on images of {shape[1:]}: {text}") from error
    if isinstance(transform, MIXING) and tries[0][1].shape[-1] != data["num_classes"]:
        raise ConfigError(
            f"`{key}.num_classes` is {tries[0][1].shape[-1]}, but `data.num_classes` is {data['num_classes']}"
        )
    found = [each[0] if isinstance(each, tuple) else each for each in tries]
    for image in found:
        if not isinstance(image, Tensor) or (image.shape, image.dtype) != (inputs[0].shape, inputs[0].dtype):
            what = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise ConfigError(
                f"`{key}`: {target} turns {inputs[0].dtype} {tuple(inputs[0].shape)} into {what}; it must keep both: "
                f"the model's input is set by data.image_size"
            )
    if not torch.equal(found[0], found[-1]):
        raise ConfigError(f"`{key}`: {target} gives other images for the same seed of torch, so no run could repeat it")
