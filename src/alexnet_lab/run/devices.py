"""The devices of a run: their kind and number, and the dtype."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from alexnet_lab.base.cores import Bfloat16, bfloat16_arithmetic
from alexnet_lab.base.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)


def check_devices(trainer: Mapping[str, Any]) -> None:
    """Raises ConfigError if a run needs more GPUs than this machine has."""
    wanted, devices = trainer["accelerator"], trainer["devices"]
    if wanted not in GPUS:
        return
    found = max(count() for count in GPUS[wanted])
    if found == 0:
        raise ConfigError(f"`trainer.accelerator` is {wanted}, but there is none here; take trainer=cpu")
    if devices != "auto" and devices > found:
        raise ConfigError(f"`trainer.devices` is {devices}, but there are {found} here; take trainer.devices={found}")


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
    """Whether a run computes on the CPU; `auto` uses a GPU if there is one."""
    return accelerator == "cpu" or (accelerator == "auto" and not any(count() for count in GPUS["gpu"]))


def count_mps() -> int:
    """1 if Apple's GPU can be used, else 0."""
    return int(torch.backends.mps.is_available())


GPUS: dict[str, tuple[Callable[[], int], ...]] = {
    "gpu": (torch.cuda.device_count, count_mps),
    "cuda": (torch.cuda.device_count,),
    "mps": (count_mps,),
}
"""For each kind of GPU, functions that count them."""


def count_processes(trainer: Mapping[str, Any]) -> int:
    """One process per device; `auto` is every GPU, or one process without a GPU."""
    if trainer["devices"] != "auto":
        return trainer["devices"]
    on_gpu = trainer["accelerator"] in ("auto", "gpu", "cuda")
    return max(1, torch.cuda.device_count()) if on_gpu else 1


def uses_workers(config: Mapping[str, Any]) -> bool:
    """Whether a run gets worker processes; a run of one process can use the calling one.

    Raises:
        ConfigError: It needs several, and `launcher.workers` forbids them.
    """
    processes = count_processes(config["trainer"]) * config["trainer"]["num_nodes"]
    workers = config["launcher"]["workers"]
    if workers == "auto":
        return processes > 1
    if processes > 1 and not workers:
        raise ConfigError(
            f"`launcher.workers` is false, so the run can only use the calling process, but it needs {processes}; "
            f"set trainer.devices=1, or launcher=local"
        )
    return workers
