"""The default number of threads of a run against the best choice: alone, and beside one busy process.

A step is worth a thread for each `MACS_PER_THREAD` multiply-adds (`alexnet_lab.run.threads`). The default must not lose
more than a third in either case: neither by leaving cores idle, nor by waiting for threads that others keep from them.
The batches of LeNet-5 lie on both sides of the place where a second thread begins; AlexNet takes all cores.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from compare import Row, more, script_main
from runs import CIFAR10, MNIST, data_folder, train

if TYPE_CHECKING:
    from collections.abc import Iterator

LENET5 = ("model=lenet5", "data=mnist", "augment=none")
ALEXNET = ("experiment=alexnet_cifar10_cpu", "data.batch_size=128", "trainer.limit_train_batches=5")
WORKS = {
    f"LeNet-5, batch {size}": (*LENET5, f"data.batch_size={size}", f"trainer.limit_train_batches={12_800 // size}")
    for size in (64, 192, 256, 512)
} | {"AlexNet, half width, batch 128": ALEXNET}
"""Recipes by name."""

SHORT = ("trainer.max_epochs=4", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1")

ROUNDS = 3


@contextmanager
def company(processes: int) -> Iterator[None]:
    """Keeps some cores busy."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def rates(recipe: tuple[str, ...], folder: str) -> dict[str, float]:
    """Returns images per second with one thread, one per core, and the default; medians of alternating runs."""
    choices = {"1": "1", "all": str(os.cpu_count()), "default": "null"}
    found: dict[str, list[float]] = {name: [] for name in choices}
    for _ in range(ROUNDS):
        for name, threads in choices.items():
            run = train(*recipe, *SHORT, f"data.dir={folder}", f"trainer.num_threads={threads}")
            found[name].append(run.rate)
    return {name: statistics.median(values) for name, values in found.items()}


def rows() -> Iterator[Row]:
    """Yields two rows for each recipe."""
    os.environ.pop("OMP_NUM_THREADS", None)  # it would be the default
    with data_folder(MNIST, CIFAR10) as folder:
        for name, recipe in WORKS.items():
            for beside, where in enumerate(("alone", "beside a busy process")):
                with company(beside):
                    found = rates(recipe, str(folder))
                each = ", ".join(f"{rate:,.0f} with {key}" for key, rate in found.items() if key != "default")
                best = max(found.values())
                yield more(f"{name}, {where} ({each}): default / best", found["default"], best, "images/s", 0.67)


if __name__ == "__main__":
    script_main(rows, {})
