"""Which images a batch holds: a function of (seed, epoch, place in the epoch), whatever the number of processes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from alexnet_lab.base.random import generator

if TYPE_CHECKING:
    from numpy.typing import NDArray


def epoch_order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The order (n,) in which an epoch takes n images: a permutation of 0..n-1."""
    return generator(seed, "order", epoch).permutation(n)


def rank_slice(n: int, rank: int, world_size: int) -> slice:
    """The positions of a global batch of n images that one process takes: a contiguous part, perhaps empty.

    The parts differ by at most one image, and together hold each position once.

    Example:
        >>> [rank_slice(5, rank, 3) for rank in range(3)]
        [slice(0, 1, None), slice(1, 3, None), slice(3, 5, None)]
    """
    return slice(rank * n // world_size, (rank + 1) * n // world_size)


class BatchOrder:
    """The batches of an epoch, as positions in a part of the data set.

    Lightning tells it the epoch: it looks for `loader.batch_sampler.sampler.set_epoch`.

    Args:
        n: Number of images.
        batch_size: Images in a global batch; the last one of an epoch holds what is left.
        seed: Of the order; None takes the images as they lie.
        constant: Each epoch has the order of the first one.
    """

    def __init__(self, n: int, batch_size: int, seed: int | None, *, constant: bool = False) -> None:
        self.n = n
        self.batch_size = batch_size
        self.seed = seed
        self.constant = constant
        self.epoch = 0

    @property
    def sampler(self) -> BatchOrder:
        """Itself: where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Makes `epoch` (>= 0) the one that the next iteration goes through."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.n / self.batch_size)

    def positions(self) -> NDArray[np.int64]:
        """The order (n,) of the present epoch."""
        if self.seed is None:
            return np.arange(self.n)
        return epoch_order(self.seed, 0 if self.constant else self.epoch, self.n)
