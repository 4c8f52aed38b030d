"""State that differs between the processes of a run, kept in their common checkpoint."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from torch import distributed


def rank_and_size() -> tuple[int, int]:
    """The rank of this process and the number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def gathered(numbers: list[Any]) -> list[list[Any]]:
    """Gathers the numbers of all processes by rank; all of them must call this."""
    _, size = rank_and_size()
    if size == 1:
        return [numbers]
    every: list[Any] = [None] * size
    distributed.all_gather_object(every, numbers)
    return every


def own_part(every: list[list[Any]]) -> list[Any]:
    """This process's part of a `gathered` list.

    The numbers are terms of sums: with another number of processes, rank 0 gets the totals and the others zeros.
    """
    rank, size = rank_and_size()
    if len(every) == size:
        return every[rank]
    return [sum(numbers) if rank == 0 else 0 for numbers in zip_longest(*every, fillvalue=0)]
