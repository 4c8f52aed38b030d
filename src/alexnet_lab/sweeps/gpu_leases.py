"""Gives each job of a sweep GPUs of its own: the sweep lists them once, and a job takes what is free.

It works across processes and sweeps of one user on one machine. Under SLURM the cluster assigns the GPUs instead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from alexnet_lab.base import leases
from alexnet_lab.base.environment import variables
from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.formats import counted
from alexnet_lab.base.gpus import VISIBLE, visible_gpus
from alexnet_lab.config.schema import Trainer
from alexnet_lab.sweeps.shutdown import POLL_SECONDS, place

log = logging.getLogger(__name__)

OFFERED = "ALEXNET_LAB_GPUS"
"""The variable that lists, for the jobs of a sweep on the same machine, the GPUs that they may take."""

ON_GPU = ("auto", "gpu", "cuda")
"""Values of `trainer.accelerator` that take an NVIDIA GPU where there is one."""

WITHOUT_GPU = 2
"""Jobs that `launcher.jobs_side_by_side=auto` runs at the same time on processors."""


def offered_gpus(trainer: Mapping[str, Any], launcher: Mapping[str, Any]) -> tuple[str, ...]:
    """The UUIDs of the GPUs for the jobs of a sweep: all that are visible to it, if it is to use any.

    Args:
        trainer: The node `trainer` of the sweep; it need not be checked yet.
        launcher: Its node `launcher`.
    """
    if trainer["accelerator"] not in ON_GPU or launcher["slurm"] or launcher["workers"] is False:
        return ()
    return tuple(gpu.uuid for gpu in visible_gpus().devices)


def is_shared(trainer: Mapping[str, Any], launcher: Mapping[str, Any]) -> bool:
    """Whether all jobs use the first GPU: without worker processes (`launcher.workers=false`) none can take another."""
    without = trainer["accelerator"] in ON_GPU and launcher["workers"] is False and not launcher["slurm"]
    return without and bool(visible_gpus().devices)


def jobs_side_by_side(trainer: Mapping[str, Any], launcher: Mapping[str, Any], gpus: int) -> int:
    """How many jobs run at the same time under `launcher.jobs_side_by_side=auto`.

    Example:
        >>> jobs_side_by_side({"devices": 2}, {"jobs_per_gpu": 1}, 8)
        4
        >>> jobs_side_by_side({"devices": 1}, {"jobs_per_gpu": 3}, 8)
        24
        >>> jobs_side_by_side({"devices": "auto"}, {"jobs_per_gpu": 1}, 8)
        1
    """
    if not gpus:
        return WITHOUT_GPU
    numbers = (trainer["devices"], launcher["jobs_per_gpu"])
    devices, per_gpu = (number if isinstance(number, int) and number > 0 else None for number in numbers)
    return max(1, gpus * (per_gpu or 1) // (devices or gpus))


def check_enough(trainer: Trainer, gpus: Sequence[str]) -> None:
    """Raises ConfigError for a job that needs more GPUs than the sweep has: it would wait forever."""
    if gpus and trainer.accelerator in ON_GPU and _needed(trainer, gpus) > len(gpus):
        raise ConfigError(
            f"`trainer.devices` is {trainer.devices}, but the sweep sees {counted(len(gpus), 'GPU')}; "
            f"set trainer.devices={len(gpus)}"
        )


def offering(gpus: Sequence[str]) -> AbstractContextManager[None]:
    """Within the block, jobs that are started on this machine may take these GPUs."""
    return variables(**{OFFERED: f"{place()}={','.join(gpus)}"}) if gpus else contextlib.nullcontext()


@contextlib.contextmanager
def leased(trainer: Trainer, per_gpu: int) -> Iterator[None]:
    """Within the block a job has GPUs that no other job uses; waits until enough are free.

    CUDA sees these alone, whatever mask the job's launcher has set. Without an offer of the sweep nothing changes.

    Args:
        trainer: The job's node `trainer`, checked.
        per_gpu: How many jobs may share a GPU.
    """
    gpus = _offered_here() if trainer.accelerator in ON_GPU else ()
    if not gpus:
        yield
        return
    lease = _awaited(gpus, _needed(trainer, gpus), per_gpu)
    try:
        locks = os.pathsep.join(map(str, lease.locks))
        with variables(**{VISIBLE: ",".join(lease.gpus), leases.SHARED: locks}):
            yield
    finally:
        lease.release()


def _needed(trainer: Trainer, gpus: Sequence[str]) -> int:
    return len(gpus) if trainer.devices == "auto" else trainer.devices


def _offered_here() -> tuple[str, ...]:
    """The GPUs that the sweep offers, if it runs on this machine and in this SLURM job; elsewhere there are others."""
    where, _, gpus = os.environ.get(OFFERED, "").rpartition("=")
    return tuple(gpus.split(",")) if where == place() else ()


def _awaited(gpus: Sequence[str], count: int, per_gpu: int) -> leases.Lease:
    waiting = False
    while (lease := leases.take(gpus, count, per_gpu)) is None:
        if not waiting:
            log.info("waiting for %d of %d GPUs: other jobs use them", count, len(gpus))
        waiting = True
        time.sleep(POLL_SECONDS)
    return lease
