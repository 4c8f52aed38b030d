"""Runs in processes of their own that are killed at a chosen moment, as by the system: SIGKILL, nothing tidied up."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alexnet_lab.run import train
from alexnet_lab.training import Classifier, checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable


def killed(config: dict[str, Any], moment: str, number: float) -> int:
    """Trains in a process of its own that is killed at a moment; returns its exit code: -9, or 0 if it ended before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "lightning", "torchmetrics", "alexnet_lab.run.worker"])
    process = context.Process(target=_train, args=(config, moment, number))
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def die() -> None:
    """Ends this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def _train(config: dict[str, Any], moment: str, number: float) -> None:
    MOMENTS[moment](number)
    train(config)


def _at_call(owner: Any, name: str, number: float, last_act: Callable[..., None] = lambda *_: None) -> None:
    """Dies at a call of `owner.name`, after `last_act`, which gets the call's arguments."""
    original, calls = getattr(owner, name), iter(range(10**9))

    def counted(*arguments: Any) -> Any:
        if next(calls) == number:
            last_act(*arguments)
            die()
        return original(*arguments)

    setattr(owner, name, counted)


def _write_half(checkpoint: Any, file: Any) -> None:
    buffer = io.BytesIO()
    torch.serialization.save(checkpoint, buffer)
    file.write(buffer.getvalue()[: buffer.tell() // 2])
    file.flush()


def _in_write(number: float) -> None:
    original = torch.save
    torch.serialization.save = original  # what `_write_half` calls
    _at_call(torch, "save", number, _write_half)


MOMENTS: dict[str, Callable[[float], None]] = {
    "step": lambda number: _at_call(Classifier, "training_step", number),
    "validation": lambda number: _at_call(Classifier, "validation_step", number),
    "test": lambda number: _at_call(Classifier, "test_step", number),
    "write": _in_write,
    "move": lambda number: _at_call(Path, "replace", number),
    "link": lambda number: _at_call(checkpoints, "link_or_copy", number),
    "seconds": lambda seconds: threading.Timer(seconds, die).start(),
}
"""Prepares the death at the n-th training, validation or test step, with half a checkpoint written, before the n-th
file takes its place or gets its second name; or after some seconds."""
