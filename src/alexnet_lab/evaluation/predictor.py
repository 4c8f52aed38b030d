"""A trained network for use from Python: the network itself, and the class probabilities of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.data.loader import Rows
from alexnet_lab.evaluation.predict import UNKNOWN, Views, predict
from alexnet_lab.training.callbacks import network_of

if TYPE_CHECKING:
    from lightning import LightningModule
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from alexnet_lab.data.datamodule import ImageDataModule
    from alexnet_lab.run.run_directory import RunDirectory

__all__ = ["Predictor"]


class Predictor:
    """What a finished run and a weights file have in common.

    Attributes:
        path: As given.
        config: Checked, set to evaluate in one process.
        directory: Where it was found.
        classifier: The trained LightningModule.
        data: Turns images into the network's input.
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
    config: dict[str, Any]
    directory: RunDirectory
    classifier: LightningModule
    data: ImageDataModule
    checkpoint_hash: str

    @property
    def net(self) -> nn.Module:
        """The network, in evaluation mode; it takes normalised images and returns logits."""
        return network_of(self.classifier)

    @property
    def class_names(self) -> list[str]:
        """In the order of the columns of `predict`."""
        return self.data.class_names

    def predict(self, images: NDArray | Tensor, *, views: Views = "center") -> Tensor:
        """Predicts the probability of each class for images of one size.

        Images are processed as in the run's own evaluation: the shorter side is scaled to the size of the stored
        images, the centre is cropped, and the result is normalised.

        Args:
            images: (B, C, H, W) with the channels of the run's data. uint8 from 0 to 255, or floating-point numbers
                from 0 to 1, which are rounded to 8 bits.
            views: "center", or "ten" or "nine" to average several views.

        Returns:
            float32 (B, num_classes), on the CPU; rows sum to 1.

        Raises:
            ConfigError: The shape, dtype or range is not allowed.
        """
        stored = stored_images(torch.as_tensor(images), self.data.channels, self.data.stored_size)
        count = len(stored)
        if count == 0:
            return torch.empty(0, self.data.num_classes)
        rows = Rows(stored.numpy(), np.full(count, UNKNOWN), np.arange(count))
        return predict(self, "test", views=views, rows=rows).probabilities


def stored_images(images: Tensor, channels: int, size: int) -> Tensor:
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
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ConfigError(f"`images` is {images.dtype}; allowed: uint8 from 0 to 255, or floating point from 0 to 1")
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
