"""How preparation and an epoch grow with the number of images: 1,000 to 50,000 of CIFAR-10's shape."""

from __future__ import annotations

import logging
import time
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ClassVar

from compare import Row, at_most, script_main, slope
from runs import CIFAR10, random_contents

from alexnet_lab.data import CIFAR10DataModule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alexnet_lab.data.store import Contents

SIZES = [1_000, 4_000, 16_000, 50_000]

AUGMENT = {"_target_": "alexnet_lab.data.augment.Augment", "padding": 4, "pca_colour": "code2012"}


class Random(CIFAR10DataModule):
    """Random images instead of CIFAR-10."""

    images: ClassVar[Contents]

    def contents(self) -> Contents:
        """Returns images made in advance, so that making them is not timed."""
        return self.images


def prepared(size: int, folder: str) -> tuple[float, Random]:
    """Returns the seconds from images in memory to a verified, open store with split and statistics."""
    data = Random(dir=folder, augment=AUGMENT)
    Random.images = random_contents(CIFAR10._replace(train=size, test=1_000))
    start = time.perf_counter()
    data.prepare_data()
    data.setup()
    return time.perf_counter() - start, data


def epoch(data: Random) -> float:
    """Returns the seconds of an epoch of augmented batches."""
    start = time.perf_counter()
    for raw in data.train_dataloader():
        data.transform(raw)
    return time.perf_counter() - start


def best(size: int) -> tuple[float, float]:
    """Returns the minimum of three times for both."""
    preparations, epochs = [], []
    for _ in range(3):
        with TemporaryDirectory(prefix="alexnet-lab-bench-") as folder:
            seconds, data = prepared(size, folder)
            preparations.append(seconds)
            epochs.append(min(epoch(data) for _ in range(2)))
    return min(preparations), min(epochs)


def rows() -> Iterator[Row]:
    """Yields a row for each; the number is the exponent p of seconds ~ images^p."""
    logging.disable()
    best(SIZES[0])  # warm-up
    preparations, epochs = zip(*map(best, SIZES), strict=True)
    for name, seconds in {"preparation": preparations, "an epoch of batches": epochs}.items():
        each = ", ".join(f"{1e6 * taken / size:.1f}" for size, taken in zip(SIZES, seconds, strict=True))
        yield at_most(f"{name}, growth 1,000 to 50,000 ({each} us/image)", slope(SIZES, list(seconds)), "exponent", 1.1)


if __name__ == "__main__":
    script_main(rows, {})
