"""Normalises grey levels 0..255 for the model: (pixel - mean) * scale."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor

from alexnet_lab.data.channel_statistics import Statistics

__all__ = ["make_normalizer"]

NORMALIZATIONS = ("mean_image", "channel_mean", "standardize", "unit", "symmetric")
"""The values of `normalization`.

- mean_image: 0..255 minus the mean image, as AlexNet and cuda-convnet (Krizhevsky 2012, section 2).
- channel_mean: 0..255 minus the mean of each channel, as Caffe.
- standardize: (pixel - mean) / standard deviation, per channel.
- unit: 0..1, as seeds 000 and 001.
- symmetric: -1..1, as seed 002.
"""


class Normalizer(NamedTuple):
    """The two constants of a normalisation, broadcastable over a batch (B, C, K, K)."""

    mean: Tensor  # float32 (C, K, K) or (C, 1, 1), in grey levels
    scale: Tensor  # float32 (C, 1, 1)

    def to(self, device: torch.device) -> Normalizer:
        """The same on another device."""
        return Normalizer(self.mean.to(device), self.scale.to(device))

    def sized(self, side: int) -> Normalizer:
        """The same for views that were enlarged to `side` pixels."""
        if self.mean.shape[-1] in (1, side):
            return self
        mean = F.interpolate(self.mean[None], size=(side, side), mode="bilinear", align_corners=False)[0]
        return self._replace(mean=mean)

    def normalised(self, pixels: Tensor) -> Tensor:
        """The model's input, float32, of pixels (B, C, K, K) in grey levels."""
        return (pixels.float() - self.mean) * self.scale

    def grey_levels(self, images: Tensor) -> Tensor:
        """The pixels of normalised images again: uint8, rounded and clipped."""
        return (images / self.scale + self.mean).round().clamp(0, 255).byte()


def make_normalizer(normalization: str, statistics: Statistics, side: int) -> Normalizer:
    """The constants for views of `side` x `side` pixels.

    The centre of the mean image is subtracted wherever a view was taken, as in the 2012 code (data_mean_crop in its
    data provider).

    Example:
        >>> from alexnet_lab.data.channel_statistics import image_statistics
        >>> statistics = image_statistics(np.full((2, 1, 8, 8), 100, dtype=np.uint8), np.arange(2))
        >>> make_normalizer("mean_image", statistics, 6).mean.shape
        torch.Size([1, 6, 6])
    """
    channels, stored, _ = statistics.mean_image.shape
    margin = (stored - side) // 2
    centre = statistics.mean_image[:, margin : margin + side, margin : margin + side]
    ones = np.ones(channels)
    mean, scale = {
        "mean_image": (centre, ones),
        "channel_mean": (statistics.channel_mean, ones),
        "standardize": (statistics.channel_mean, 1 / statistics.channel_std),
        "unit": (0 * ones, ones / 255),
        "symmetric": (127.5 * ones, ones / 127.5),
    }[normalization]
    return Normalizer(_constant(mean), _constant(scale))


def _constant(values: np.ndarray) -> Tensor:
    tensor = torch.tensor(values, dtype=torch.float32)
    return tensor if tensor.ndim == 3 else tensor[:, None, None]
