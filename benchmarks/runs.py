"""Runs `python train.py ...` like a user, on stores of random images: nothing is downloaded."""

from __future__ import annotations

import csv
import json
import os
import pty
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alexnet_lab.data.store import Contents, Part
from alexnet_lab.data.store_writing import make_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parent.parent


class Images(NamedTuple):
    """The content of a store."""

    store: str  # its name
    shape: tuple[int, int, int]
    train: int
    test: int


MNIST = Images("mnist-28", (1, 28, 28), 60_000, 10_000)
CIFAR10 = Images("cifar10-32", (3, 32, 32), 50_000, 10_000)


@contextmanager
def data_folder(*data_sets: Images) -> Iterator[Path]:
    """Makes a folder for `data.dir` with stores of random images in ten classes."""
    with TemporaryDirectory(prefix="alexnet-lab-bench-") as name:
        for images in data_sets:
            make_store(Path(name) / "store" / images.store, lambda images=images: random_contents(images))
        yield Path(name)


def random_contents(images: Images) -> Contents:
    """Makes random pixels and labels."""
    rng = np.random.default_rng(0)

    def part(n: int) -> Part:
        pixels = rng.integers(0, 256, (n, *images.shape), dtype=np.uint8)
        return Part(np.arange(n) % 10, pixels.__getitem__)

    names = [str(label) for label in range(10)]
    return Contents("random", names, images.shape, {"train": part(images.train), "test": part(images.test)})


class Run(NamedTuple):
    """A finished run."""

    result: dict[str, Any]  # result.json
    epochs: list[float]  # images per second of each

    @property
    def rate(self) -> float:
        """Images per second of the fastest epoch; the first is a warm-up."""
        return max(self.epochs[1:])


def train(*overrides: str, watch: Callable[[int], None] | None = None) -> Run:
    """Runs `python train.py` in a terminal, for its progress bar; `watch` receives its process id."""
    with TemporaryDirectory(prefix="alexnet-lab-run-") as name:
        run_dir = Path(name) / "run"
        terminal(["train.py", f"run_dir={run_dir}", "logger=csv", *overrides], watch)
        with (run_dir / "metrics.csv").open() as file:
            epochs = [float(row["images_per_second"]) for row in csv.DictReader(file)]
        return Run(json.loads((run_dir / "result.json").read_text()), epochs)


def terminal(words: list[str], watch: Callable[[int], None] | None = None) -> None:
    """Runs `python WORDS` in a pseudo-terminal; raises with its output if it fails."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []
    process = subprocess.Popen([sys.executable, *words], cwd=REPOSITORY, stdout=theirs, stderr=theirs)
    os.close(theirs)
    reader = threading.Thread(target=_drain, args=(ours, shown))
    reader.start()
    if watch is not None:
        watch(process.pid)
    code = process.wait()
    reader.join()
    os.close(ours)
    if code != 0:
        raise RuntimeError(f"{' '.join(words)} ended with {code}: {b''.join(shown).decode(errors='replace')[-2000:]}")


def _drain(terminal: int, shown: list[bytes]) -> None:
    """Reads the output of a process to its end."""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux: the other end is closed
            return
        if not data:
            return
        shown.append(data)
