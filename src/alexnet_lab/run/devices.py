"""The devices of a run: their kind and number, and the dtype."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import torch

from alexnet_lab.base import gpus
from alexnet_lab.base.cores import Bfloat16, bfloat16_arithmetic
from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.formats import counted
from alexnet_lab.config.schema import Train, Trainer

log = logging.getLogger(__name__)


OLDEST_DRIVERS = {12: "525", 13: "580"}
"""NVIDIA's first driver for each major version of CUDA; it also supports all minor versions."""

OLDER_CUDA = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cu126"
"""Installs the build of torch that the drivers of CUDA 12 support."""


def check_devices(trainer: Trainer) -> None:
    """Checks that this machine has the GPUs that a run needs, and that torch can use them.

    With `accelerator=auto` and a driver that is too old, it warns, and the process uses the CPU from then on.

    Raises:
        ConfigError: There is no such GPU, there are too few, or the driver is too old.
    """
    wanted, devices = trainer.accelerator, trainer.devices
    if wanted == "cpu":
        return
    old = old_driver()
    if old and wanted != "auto":
        raise ConfigError(f"`trainer.accelerator` is {wanted}, but {old}; or take trainer.accelerator=cpu")
    if old:
        log.warning("training on the CPU: %s; trainer.accelerator=cpu silences this warning", old)
        os.environ[gpus.VISIBLE] = ""
    found = count_gpus(wanted)
    if found == 0 and wanted != "auto":
        raise ConfigError(f"`trainer.accelerator` is {wanted}, but there is none here; take trainer.accelerator=cpu")
    if found and devices != "auto" and devices > found:
        there = counted(found, "GPU")
        raise ConfigError(f"`trainer.devices` is {devices}, but this machine has {there}; take trainer.devices={found}")


def old_driver() -> str:
    """Why torch cannot use the driver of this machine's NVIDIA GPUs, and the fix; empty if it can."""
    built_for, supported = torch.version.cuda, gpus.visible_gpus().cuda
    if built_for is None or not supported:
        return ""
    major = int(built_for.partition(".")[0])
    if supported // 1000 >= major:
        return ""
    newer = f"install NVIDIA's driver {OLDEST_DRIVERS[major]} or newer" if major in OLDEST_DRIVERS else "update it"
    other = f", or a torch for CUDA 12: {OLDER_CUDA}" if supported // 1000 == 12 else ""
    return (
        f"the NVIDIA driver supports CUDA {supported // 1000}.{supported % 1000 // 10}, and torch {torch.__version__} "
        f"needs CUDA {built_for}: {newer}{other}"
    )


def check_precision(accelerator: str, precision: str) -> None:
    """Warns about a dtype that the CPU only emulates.

    Raises:
        ConfigError: The device lacks the dtype; Lightning would silently use another one.
    """
    on_cpu = is_cpu(accelerator)
    if precision == "16-mixed" and on_cpu:
        raise ConfigError("`trainer.precision` is 16-mixed, which needs a GPU; take trainer.precision=bf16-mixed")
    if precision == "64-true" and not on_cpu and not torch.cuda.is_available():
        raise ConfigError("`trainer.precision` is 64-true, which Apple's GPU lacks; take trainer.accelerator=cpu")
    if on_cpu and precision.startswith("bf16") and bfloat16_arithmetic() is Bfloat16.EMULATED:
        log.warning(
            "trainer.precision=%s is emulated, about 20 times slower: this processor has no bfloat16 arithmetic; set "
            "trainer.precision=32-true", precision,
        )  # fmt: skip


def usable_precision(accelerator: str, precision: str) -> str:
    """The dtype in which this machine evaluates a network that was trained in `precision`.

    Half precision needs a GPU, or a CPU with bfloat16 arithmetic. Other machines use float32, whose results differ from
    those of the training machine in the last digits.

    Example:
        >>> usable_precision("cpu", "64-true")
        '64-true'
    """
    if not precision.endswith("-mixed") or not is_cpu(accelerator):
        return precision
    return "bf16-mixed" if bfloat16_arithmetic() is not Bfloat16.EMULATED else "32-true"


def is_cpu(accelerator: str) -> bool:
    """Whether a run computes on the CPU; `auto` uses an NVIDIA GPU if there is one."""
    return accelerator in ("cpu", "auto") and not count_gpus(accelerator)


def lightnings_name(accelerator: str) -> str:
    """The accelerator to pass to Lightning, whose own `auto` would use Apple's GPU, where nothing has been tried."""
    return ("cpu" if is_cpu("auto") else "cuda") if accelerator == "auto" else accelerator


def usable_accelerator(accelerator: str) -> str:
    """The accelerator that evaluates a run: the one it was trained on, or `auto` if this machine lacks it.

    Example:
        >>> usable_accelerator("cpu")
        'cpu'
    """
    return accelerator if accelerator == "cpu" or count_gpus(accelerator) else "auto"


def count_mps() -> int:
    """1 if Apple's GPU can be used, else 0."""
    return int(torch.backends.mps.is_available())


GPUS: dict[str, tuple[Callable[[], int], ...]] = {
    "auto": (torch.cuda.device_count,),  # Apple's only on request: nothing has been tried on it
    "gpu": (torch.cuda.device_count, count_mps),
    "cuda": (torch.cuda.device_count,),
    "mps": (count_mps,),
}
"""For each `trainer.accelerator` except cpu, functions that count its GPUs."""


def count_gpus(accelerator: str) -> int:
    """The GPUs here that a `trainer.accelerator` can use; none for cpu."""
    return max((count() for count in GPUS.get(accelerator, ())), default=0)


def count_processes(trainer: Trainer) -> int:
    """One process per device; `auto` is every GPU, or one process without a GPU."""
    return max(1, count_gpus(trainer.accelerator)) if trainer.devices == "auto" else trainer.devices


def uses_workers(config: Train) -> bool:
    """Whether a run gets worker processes; a run of one process can use the calling one.

    Raises:
        ConfigError: It needs several, and `launcher.workers` forbids them.
    """
    processes = count_processes(config.trainer) * config.trainer.num_nodes
    workers = config.launcher.workers
    if workers == "auto":
        return processes > 1
    if processes > 1 and not workers:
        raise ConfigError(
            f"`launcher.workers` is false, so the run can only use the calling process, but it needs {processes}; "
            f"set trainer.devices=1, or launcher=local"
        )
    return workers
