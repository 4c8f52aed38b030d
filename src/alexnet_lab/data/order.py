"""The order of the images: a function of (seed, epoch, position in the epoch) for any number of processes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.base.random import generator


def epoch_order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The order (n,) of n images in an epoch: a permutation of 0..n-1."""
    return generator(seed, "order", epoch).permutation(n)


def rank_slice(n: int, rank: int, world_size: int) -> slice:
    """The positions of one process in a global batch of n images: a contiguous range, possibly empty.

    The parts differ by at most one image and together contain each position once.

    Example:
        >>> [rank_slice(5, rank, 3) for rank in range(3)]
        [slice(0, 1, None), slice(1, 3, None), slice(3, 5, None)]
    """
    return slice(rank * n // world_size, (rank + 1) * n // world_size)


class BatchOrder:
    """The batches of an epoch, as positions in a part of the data set.

    Lightning sets the epoch through `loader.batch_sampler.sampler.set_epoch`.

    Args:
        n: Number of images.
        batch_size: Images in a global batch; the last one of an epoch has the rest.
        seed: Of the order; None keeps the stored order.
        constant: Use the order of the first epoch in all epochs.
    """

    def __init__(self, n: int, batch_size: int, seed: int | None, *, constant: bool = False) -> None:
        self.n = n
        self.batch_size = batch_size
        self.seed = seed
        self.constant = constant
        self.epoch = 0

    @property
    def sampler(self) -> BatchOrder:
        """Itself, because Lightning looks for `set_epoch` here."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch (>= 0) of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.n / self.batch_size)

    def positions(self) -> NDArray[np.int64]:
        """The order (n,) of the current epoch."""
        if self.seed is None:
            return np.arange(self.n)
        return epoch_order(self.seed, 0 if self.constant else self.epoch, self.n)
