"""The resources that a job of `launcher=slurm` requests from SLURM, computed from the config's `trainer`."""

from __future__ import annotations

from alexnet_lab.base.errors import ConfigError

CORES_PER_GPU = 8
"""Of a process that trains on a GPU: one drives it, the others read and decode its images."""


def gpus_per_node(accelerator: str, devices: int | str) -> int | None:
    """The GPUs of a job on each node; None requests none, as with `accelerator=auto`.

    Raises:
        ConfigError: `devices` is auto; only a number can be requested.

    Example:
        >>> gpus_per_node("gpu", 8), gpus_per_node("auto", 1)
        (8, None)
    """
    if accelerator not in ("gpu", "cuda"):
        return None
    if devices == "auto":
        raise ConfigError("launcher=slurm asks for as many GPUs as `trainer.devices` says, which is auto; set a number")
    return devices if isinstance(devices, int) else None


def cpus_per_task(accelerator: str, devices: int | str, num_threads: int | None) -> int:
    """The cores of a job on each node.

    Example:
        >>> cpus_per_task("gpu", 8, None), cpus_per_task("cpu", 2, None), cpus_per_task("cpu", 2, 4)
        (64, 2, 8)
    """
    each = num_threads or (CORES_PER_GPU if accelerator in ("gpu", "cuda") else 1)
    return each * devices if isinstance(devices, int) else each
