"""Decides whether this process shares a run with others, and which rank it has. All other modules ask this one.

Only a launcher's own mark counts: `TORCHELASTIC_RUN_ID` of torchrun, which also starts our workers, and the tasks of a
job step of SLURM (`srun`). A `RANK` or `SLURM_NTASKS` without such a mark is a leftover of something else.
"""

from __future__ import annotations

import logging
import os
from typing import Literal, NamedTuple

from alexnet_lab.base.errors import ConfigError

log = logging.getLogger(__name__)

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""The variables that torchrun sets for each worker: all or none."""

RANKS = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID", "SLURM_LOCALID", "JSM_NAMESPACE_RANK")
SIZES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE")
"""Variables from which libraries derive this process's rank; Lightning reads them when it is imported."""

MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "JSM_NAMESPACE_SIZE")
"""The number of processes that mpirun (Open MPI, MPICH) or jsrun started."""


class Place(NamedTuple):
    """One of several processes that were started together, or a single one."""

    starter: Literal["torchrun", "srun"] | None = None  # None: the process is alone
    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on its node, from 0
    local_size: int = 1  # processes on its node


def place() -> Place:
    """This process's place among those that were started together.

    Raises:
        ConfigError: A launcher's variables are incomplete, no numbers, or contradict each other.
    """
    return _torchrun_place() or _srun_place() or Place()


def _torchrun_place() -> Place | None:
    if "TORCHELASTIC_RUN_ID" not in os.environ or "RANK" not in os.environ:
        return None
    rank, size, local_rank, local_size = (number(name) for name in TORCHRUN)
    if not (rank < size and local_rank < local_size and size % local_size == 0):
        shown = ", ".join(f"{name}={os.environ[name]}" for name in TORCHRUN)
        raise ConfigError(f"the variables of torchrun contradict each other ({shown}); unset TORCHELASTIC_RUN_ID")
    return Place("torchrun", rank, size, local_rank, local_size)


def _srun_place() -> Place | None:
    size = number("SLURM_STEP_NUM_TASKS", 1)
    if size <= 1:
        return None
    rank = number("SLURM_PROCID")
    if rank >= size:
        raise ConfigError(
            f"SLURM_PROCID is {rank}, but srun started {size} tasks (SLURM_STEP_NUM_TASKS); unset SLURM_STEP_NUM_TASKS"
        )
    return Place("srun", rank, size)


def number(name: str, default: int | None = None) -> int:
    """A whole number >= 0 from the environment.

    Args:
        name: Of the variable.
        default: For a variable that is not set, or empty; None if it must be set.

    Raises:
        ConfigError: It is missing, or no such number.
    """
    text = os.environ.get(name, "")
    if not text and default is not None:
        return default
    if not (text.isascii() and text.isdigit()):
        got = f"is {text!r}" if text else "is not set"
        raise ConfigError(f"the environment variable {name} {got}; it must be a whole number >= 0: correct or unset it")
    return int(text)


def is_first() -> bool:
    """Whether this process has rank 0, which keeps the records."""
    return place().rank == 0


def settle() -> None:
    """Makes a single process look like one to every library; call it before torch and Lightning are imported.

    Raises:
        ConfigError: See `place`; or mpirun started several processes, each of which would do the whole run.
    """
    slurm_cores()  # so that a wrong number is reported now
    if place().starter:
        return
    for name in MPI_SIZES:
        if number(name, 1) > 1:
            raise ConfigError(
                f"mpirun started {os.environ[name]} processes ({name}), each of which would do all of the work; "
                f"start them with torchrun or srun instead, or unset {name}"
            )
    found = {name: os.environ[name] for name in RANKS if os.environ.get(name, "0") != "0"}
    found |= {name: os.environ[name] for name in SIZES if os.environ.get(name, "1") != "1"}
    for name in found:
        del os.environ[name]
    if found:
        shown = " ".join(f"{name}={value}" for name, value in found.items())
        log.warning("ignoring %s in the environment: neither torchrun nor srun started this process", shown)


def require_alone(command: str) -> None:
    """Raises ConfigError if several processes were started for a command that needs one."""
    here = place()
    if here.size > 1:
        raise ConfigError(
            f"{command} works in one process, but {here.starter} started {here.size}; start it once, without it"
        )


def slurm_cores() -> int | None:
    """The cores that SLURM gave this task; None outside a job."""
    return number("SLURM_CPUS_PER_TASK", 0) or number("SLURM_CPUS_ON_NODE", 0) or None
