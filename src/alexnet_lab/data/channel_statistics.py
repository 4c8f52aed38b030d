"""Statistics of the training images: mean image, channels, principal colours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.base.cores import available_cores

__all__ = ["image_statistics"]

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

    Example:
        >>> images = np.stack([np.zeros((1, 4, 4), np.uint8), np.full((1, 4, 4), 200, np.uint8)])
        >>> statistics = image_statistics(images, np.arange(2))
        >>> statistics.channel_mean.tolist(), statistics.channel_std.tolist()
        ([100.0], [100.0])
    """
    _, channels, height, width = images.shape
    total = np.zeros((channels, height, width), dtype=np.int64)
    products = np.zeros((channels, channels), dtype=np.int64)
    rows = np.sort(indices)
    step = max(1, CHUNK_BYTES // images[0].nbytes)
    with ThreadPoolExecutor(available_cores()) as pool:
        for sums, squares in pool.map(partial(_sums, images), (rows[i : i + step] for i in range(0, len(rows), step))):
            total += sums
            products += squares
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


def _sums(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The sum image (C, S, S) of some images, and the products of their channels, summed (C, C); exact.

    The products of bytes are integers below 2**16, so float64 adds up to 2**37 of them without rounding.
    """
    chunk = images[rows]
    flat = chunk.transpose(1, 0, 2, 3).reshape(chunk.shape[1], -1).astype(np.float64)
    return chunk.sum(axis=0, dtype=np.int64), (flat @ flat.T).astype(np.int64)
