"""Random streams that depend on their names and positions, not on earlier draws."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, stream: str, *position: int) -> np.random.Generator:
    """The random numbers of one place in a run; the same whenever and wherever they are drawn.

    Args:
        seed: The seed of the run, >= 0.
        stream: The purpose of the numbers: "order", "augment", "split".
        position: The place in the run: (epoch,) or (epoch, batch), each >= 0.

    Example:
        >>> int(generator(0, "order", 3).integers(1000)) == int(generator(0, "order", 3).integers(1000))
        True
    """
    return np.random.default_rng([seed, zlib.crc32(stream.encode()), *position])
