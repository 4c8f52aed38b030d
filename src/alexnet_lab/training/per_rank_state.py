"""What the processes of a run exchange: sums of their numbers, and their own states for the common checkpoint."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from torch import Tensor, distributed
from torch.distributed import ReduceOp


def rank_and_size() -> tuple[int, int]:
    """The rank of this process and the number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def gathered(state: Any) -> list[Any]:
    """Gathers the states of all processes by rank; all of them must call this."""
    _, size = rank_and_size()
    if size == 1:
        return [state]
    every = [None] * size
    distributed.all_gather_object(every, state)
    return every


def own_part(every: list[list[Any]]) -> list[Any]:
    """This process's part of a `gathered` list.

    The numbers are terms of sums: with another number of processes, rank 0 gets the totals and the others zeros.
    """
    rank, size = rank_and_size()
    if len(every) == size:
        return every[rank]
    return [sum(numbers) if rank == 0 else 0 for numbers in zip_longest(*every, fillvalue=0)]


def over_processes(numbers: Tensor, operation: Any = ReduceOp.SUM) -> Tensor:
    """The sum over all processes of a run, or another reduction; `numbers` is not changed."""
    if rank_and_size()[1] == 1:
        return numbers
    total = numbers.clone()
    distributed.all_reduce(total, op=operation)
    return total
