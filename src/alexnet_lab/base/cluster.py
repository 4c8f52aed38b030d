"""What the environment says of the processes that share a run beyond those that it starts itself."""

from __future__ import annotations

import os
from typing import NamedTuple


class Place(NamedTuple):
    """One of several processes that were started together: `rank` counts from 0."""

    rank: int
    size: int


def slurm_place() -> Place | None:
    """Among the tasks of a job step of SLURM (`srun`); None outside of one, and where it has a single task."""
    size = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    return Place(int(os.environ["SLURM_PROCID"]), size) if size > 1 else None


def torchrun_place() -> Place | None:
    """Among the workers of `torchrun`; None outside of it."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or "RANK" not in os.environ:
        return None
    return Place(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def is_first() -> bool:
    """Whether this process is the one that keeps the records."""
    place = torchrun_place() or slurm_place()
    return place is None or place.rank == 0


def slurm_cores() -> int | None:
    """The cores that SLURM gave to this task; None outside of a job."""
    given = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE")
    return int(given) if given else None
