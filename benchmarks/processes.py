"""Two processes of one thread against one process of two threads: AlexNet at half width on CIFAR-10, batch 128."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from compare import Row, more, script_main
from runs import CIFAR10, data_folder, train

if TYPE_CHECKING:
    from collections.abc import Iterator

RECIPE = (
    "experiment=alexnet_cifar10_cpu", "data.batch_size=128", "trainer.max_epochs=4", "trainer.limit_train_batches=25",
    "trainer.limit_val_batches=1", "trainer.limit_test_batches=1",
)  # fmt: skip

ROUNDS = 2


def rows() -> Iterator[Row]:
    """Yields one row."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    with data_folder(CIFAR10) as folder:
        for _ in range(ROUNDS):
            for processes, found in rates.items():
                shares = [f"trainer.devices={processes}", f"trainer.num_threads={2 // processes}"]
                found.append(train(*RECIPE, f"data.dir={folder}", *shares).rate)
    one, two = (statistics.median(found) for found in rates.values())
    yield more("alexnet_cifar10_cpu: two ddp processes / one of two threads", two, one, "images/s", 0.85)


if __name__ == "__main__":
    script_main(rows, {})
