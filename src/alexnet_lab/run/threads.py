"""The threads of a process and other settings of torch's, and a warning if other programs occupy the cores."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from alexnet_lab.base.cluster import number
from alexnet_lab.base.cores import available_cores, omp_threads, waited_seconds
from alexnet_lab.config.schema import Train

log = logging.getLogger(__name__)

MACS_PER_THREAD = 50_000_000
"""Multiply-adds of a step's forward pass that justify another thread.

LeNet-5 has 27 million with 64 images, so it gets one thread. Beside a busy process, two threads reach 62 % of the
images/s of one there, and 72 to 109 % with 256 and 512 images. On idle cores one thread reaches 69 to 94 % of two.
docs/speed.md has the table.
"""

WINDOW_SECONDS = 20.0
"""The interval after which a run checks its share of the cores."""

MOST_WAITED = 0.2
"""A run is crowded if its threads wait for a core for a larger share of their time."""

LEAST_SHARE, MOST_LOAD = 0.7, 1.4
"""If the system does not report how long threads wait, a run is crowded if its main thread gets less than this share of
a core, while the machine has this many times as many runnable threads as it has cores, or as the run has itself. Each
alone has harmless reasons."""


def chosen_threads(config: Train, macs: int, processes: int) -> int:
    """The threads of one process: `trainer.num_threads`, `OMP_NUM_THREADS`, or as many as a step has work for.

    With more threads than `OMP_THREAD_LIMIT` allows, oneDNN would wait for ever for those that do not start.

    Args:
        config: A checked config.
        macs: Multiply-adds of the network for one image.
        processes: On this machine.

    Raises:
        ConfigError: `OMP_NUM_THREADS` or `OMP_THREAD_LIMIT` is no number.
    """
    trainer = config.trainer
    share = available_cores() // (processes * config.launcher.side_by_side)
    images = config.data["batch_size"] / (processes * trainer.num_nodes)
    by_work = max(1, min(share, int(macs * images / MACS_PER_THREAD)))
    threads = trainer.num_threads or omp_threads() or by_work
    return min(threads, number("OMP_THREAD_LIMIT", 0) or threads)


def with_threads(config: Train, macs: int, processes: int) -> Train:
    """The config with the number of threads: a resumed run needs the same number to sum in the same order."""
    return config.with_trainer(num_threads=chosen_threads(config, macs, processes))


BACKENDS: Any = torch.backends  # whose attributes torch adds at run time

SETTINGS = (
    (BACKENDS.cudnn.conv, "fp32_precision"),
    (BACKENDS.cudnn.rnn, "fp32_precision"),
    (BACKENDS.cuda.matmul, "fp32_precision"),
    (BACKENDS.mkldnn.matmul, "fp32_precision"),
    (BACKENDS.cudnn, "benchmark"),
    (torch.utils.deterministic, "fill_uninitialized_memory"),
)
"""Settings of torch's that a run changes."""


@contextlib.contextmanager
def settings_restored() -> Iterator[None]:
    """After the block torch's threads and how it computes are the caller's choice again, whose process this may be."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    before, precision = [getattr(*setting) for setting in SETTINGS], None
    with contextlib.suppress(RuntimeError):  # the caller has set `fp32_precision` alone
        precision = torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        # torch's older names first: they set `fp32_precision` too
        torch.backends.cudnn.allow_tf32 = before[0] == "tf32"
        if precision is not None:
            torch.set_float32_matmul_precision(precision)
        for (owner, name), value in zip(SETTINGS, before, strict=True):
            setattr(owner, name, value)


class CrowdedCores(Callback):
    """Warns once if training is slow because its threads wait for cores."""

    def __init__(self) -> None:
        self._warned = False
        self._start = self._used = 0.0
        self._waited: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts a window."""
        self._start, self._used, self._waited = time.perf_counter(), time.thread_time(), waited_seconds()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluates the window when it is over; a GPU's thread waits by design."""
        seconds = time.perf_counter() - self._start
        if seconds < WINDOW_SECONDS or self._warned:
            return
        used, waited = self._used, self._waited
        self.on_train_start(trainer, pl_module)
        if not trainer.is_global_zero or trainer.strategy.root_device.type != "cpu":
            return
        processes = trainer.num_devices
        if waited is None or self._waited is None:
            lost = lost_by_load((self._used - used) / seconds, torch.get_num_threads() * processes)
        else:
            lost = (self._waited - waited) / (seconds * torch.get_num_threads())
        if lost > MOST_WAITED:
            self._warned = True
            log.warning("%s", crowded_message(lost, torch.get_num_threads(), processes))


def lost_by_load(share: float, own: int) -> float:
    """Estimates the share of time that the main thread waits for a core from the machine's load.

    Args:
        share: Of a core that the main thread got.
        own: Threads of the whole run on this machine.
    """
    if not hasattr(os, "getloadavg") or share >= LEAST_SHARE:
        return 0.0
    return 1 - share if os.getloadavg()[0] > MOST_LOAD * max(own, os.cpu_count() or 1) else 0.0


def crowded_message(lost: float, threads: int, processes: int) -> str:
    """The warning of a crowded run, with the setting to change.

    Args:
        lost: The share of their time that its threads wait.
        threads: Of each process.
        processes: Of the run, on this machine.
    """
    problem = f"training is slow: its threads wait for a core {lost:.0%} of the time"
    cores = available_cores()
    if threads * processes > cores:
        most = max(1, cores // processes)
        return f"{problem}, since the run has {threads * processes} on {cores}; set trainer.num_threads={most}"
    advice = f", or set trainer.num_threads=1 (it is {threads})" if threads > 1 else ""
    return f"{problem}, since other programs use the cores; end them{advice}"
