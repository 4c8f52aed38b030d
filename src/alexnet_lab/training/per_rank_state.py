"""Numbers that each process of a run has its own of, kept in the one checkpoint that they share."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from torch import distributed


def rank_and_size() -> tuple[int, int]:
    """The place of this process, and the number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def gathered(numbers: list[Any]) -> list[list[Any]]:
    """The numbers of all processes, by rank. All of them have to ask."""
    _, size = rank_and_size()
    if size == 1:
        return [numbers]
    every: list[Any] = [None] * size
    distributed.all_gather_object(every, numbers)
    return every


def own_part(every: list[list[Any]]) -> list[Any]:
    """This process's numbers of those that `gathered` gave.

    They are addends of sums: among another number of processes the first one takes them all.
    """
    rank, size = rank_and_size()
    if len(every) == size:
        return every[rank]
    return [sum(numbers) if rank == 0 else 0 for numbers in zip_longest(*every, fillvalue=0)]
