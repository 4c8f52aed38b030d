"""Statistics of the training images: mean image, channels, principal colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CHUNK_BYTES = 1 << 22
"""Bytes of images processed at once; as float64 they take eight times as much."""


class Statistics(NamedTuple):
    """Of a set of images, on the scale 0..255."""

    mean_image: NDArray[np.float32]  # (C, S, S)
    channel_mean: NDArray[np.float64]  # (C,)
    channel_std: NDArray[np.float64]  # (C,), of all pixels of a channel; 1 where a channel is constant
    colour_stdevs: NDArray[np.float64]  # (C,), of the pixels along the principal axes, rising
    colour_axes: NDArray[np.float64]  # (C, C), the axes in columns, orthonormal


def image_statistics(images: NDArray[np.uint8], indices: NDArray[np.int64]) -> Statistics:
    """Computes the statistics of some images in chunks, so the images need not fit into memory.

    Args:
        images: (N, C, S, S).
        indices: (n,), which of them count.

    The principal colours are those of all RGB pixels (Krizhevsky 2012, section 4.1): standard deviations, not
    variances, and eigenvectors in columns, as the released code stores them. The sign of an axis is arbitrary; here its
    largest component is positive.
    """
    _, channels, height, width = images.shape
    total = np.zeros((channels, height, width))
    products = np.zeros((channels, channels))
    for chunk in _chunks(images, np.sort(indices)):
        pixels = chunk.astype(np.float64)
        total += pixels.sum(axis=0)
        flat = pixels.transpose(1, 0, 2, 3).reshape(channels, -1)
        products += flat @ flat.T
    count = len(indices) * height * width
    mean = total.sum(axis=(1, 2)) / count
    covariance = products / count - np.outer(mean, mean)
    stdevs, axes = principal_axes(covariance)
    std = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return Statistics(
        mean_image=(total / len(indices)).astype(np.float32),
        channel_mean=mean,
        channel_std=np.where(std > 1e-6, std, 1.0),
        colour_stdevs=stdevs,
        colour_axes=axes,
    )


def principal_axes(covariance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Standard deviations (C,), rising, and axes (C, C) in columns, of a covariance matrix (C, C)."""
    variances, axes = np.linalg.eigh(covariance)
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(len(axes))]
    return np.sqrt(np.maximum(variances, 0.0)), axes * np.sign(largest)


def _chunks(images: NDArray[np.uint8], indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    step = max(1, CHUNK_BYTES // images[0].nbytes)
    for start in range(0, len(indices), step):
        yield images[indices[start : start + step]]
