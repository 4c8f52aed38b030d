"""Errors of devices and libraries, by their text: whether another attempt may succeed, and what to do about the others.

A worker hands on the text of an error alone, so the text decides wherever the error was raised.
"""

from __future__ import annotations

import re

from alexnet_lab.config.schema import Train
from alexnet_lab.run.devices import count_processes

CHANCE = re.compile(
    r"^Interrupted:|[Cc]onnection (closed|reset|refused)|[Bb]roken pipe|gloo|NCCL|Dist\w*Error|TCPStore"
    r"|ECC error|NVLink error|launch failure|hardware stack error|busy or unavailable"
)
"""This worker alone was interrupted, or the process that it waited for has ended, or the GPU failed."""

OUT_OF_MEMORY = re.compile(r"OutOfMemory|out of memory|can't allocate memory|STATUS_ALLOC_FAILED")
"""Of a GPU or of the processor. It fails again in the same way: memory depends on the batch and the network."""

NOT_DETERMINISTIC = re.compile(r"(\w+) does not have a deterministic implementation")

SHOWN = 160
"""Characters of the library's own text."""


def is_chance(error: str) -> bool:
    """Whether another attempt may succeed.

    Example:
        >>> is_chance("AcceleratorError: CUDA error: uncorrectable ECC error encountered")
        True
        >>> is_chance("OutOfMemoryError: CUDA out of memory")
        False
    """
    return CHANCE.search(error) is not None and OUT_OF_MEMORY.search(error) is None


def advice(error: str, config: Train) -> str | None:
    """The line that explains an error to the user, if it is one of those that have a known remedy.

    Args:
        error: The error's text, with or without its type.
        config: Of the run.
    """
    if OUT_OF_MEMORY.search(error):
        return _out_of_memory(error, config)
    found = NOT_DETERMINISTIC.search(error)
    if found is None:
        return None
    return (
        f"`trainer.deterministic` is true, but {found[1]} has no deterministic form on this device; "
        f"set trainer.deterministic=warn, which lets such operations differ in bits from run to run"
    )


def _out_of_memory(error: str, config: Train) -> str:
    trainer, batch = config.trainer, config.data["batch_size"]
    processes = count_processes(trainer) * trainer.num_nodes
    shared = f", {-(-batch // processes)} for each of {processes} processes" if processes > 1 else ""
    twice = 2 * trainer.accumulate_grad_batches
    same_step = f"with trainer.accumulate_grad_batches={twice} a step still has as many images"
    remedies = [f"set data.batch_size={max(1, batch // 2)} ({same_step})"]
    if trainer.precision == "32-true":
        remedies.append("trainer.precision=bf16-mixed")
    if config.launcher.jobs_per_gpu > 1:
        remedies.append("launcher.jobs_per_gpu=1")
    text = error[error.find(": ") + 2 :] if re.match(r"\w*Error: ", error) else error
    return (
        f"out of memory with data.batch_size={batch} images{shared} in trainer.precision={trainer.precision}; "
        f"{', or '.join(remedies)} ({text[:SHOWN]})"
    )
