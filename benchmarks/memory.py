"""Memory of a data set in each worker of a run, and a data set larger than the memory limit."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from compare import Row, at_most, script_main
from runs import CIFAR10, data_folder, train

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = ("model=lenet5", "data=cifar10", "trainer.devices=2", "trainer.num_threads=1", "trainer.max_epochs=1")

MEGABYTE = 2**20
STREAMED, ALLOWED = 4096, 256
"""Megabytes of the store, and the limit of the reading process's private memory beyond its start."""


class Watch:
    """Records the largest private memory of any descendant of a process; mapped files are shared."""

    def __init__(self) -> None:
        self.peak = 0
        self._ended = threading.Event()

    def __call__(self, pid: int) -> None:
        """Starts recording."""
        threading.Thread(target=self._look, args=(pid,), daemon=True).start()

    def _look(self, pid: int) -> None:
        while Path(f"/proc/{pid}").exists():
            for child in descendants(pid):
                self.peak = max(self.peak, private_bytes(child))
            time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """Returns the process ids of all descendants."""
    try:
        children = [
            int(word)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for word in (task / "children").read_text().split()
        ]
    except OSError:  # it has ended
        return []
    return children + [grandchild for child in children for grandchild in descendants(child)]


def private_bytes(pid: int) -> int:
    """Returns the private (dirty) memory of a process."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(1024 * int(number) for number in re.findall(r"^Private_Dirty:\s+(\d+) kB", text, re.MULTILINE))


def peak_of_workers(folder: Path) -> int:
    """Returns the bytes over an epoch of training, validation and test."""
    watch = Watch()
    train(*RUN, f"data.dir={folder}", watch=watch)
    return watch.peak


def stream(path: str) -> None:
    """Reads every image of a store once, in random order; prints images per second and peak private megabytes."""
    from alexnet_lab.data.loader import BatchLoader, Rows  # noqa: PLC0415
    from alexnet_lab.data.order import BatchOrder  # noqa: PLC0415

    limit = status("VmData") + ALLOWED * MEGABYTE
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    before = status("RssAnon")
    images = np.load(path, mmap_mode="r")
    loader = BatchLoader(
        Rows(images, np.zeros(len(images), np.int64), np.arange(len(images))), BatchOrder(len(images), 128, 0)
    )
    start = time.perf_counter()
    seen = sum(len(batch.labels) for batch in loader)
    seconds = time.perf_counter() - start
    assert seen == len(images)
    print(seen / seconds, (status("RssAnon") - before) / MEGABYTE)


def status(field: str) -> int:
    """Returns the bytes that the system reports for this process."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[0])


def stream_elsewhere() -> tuple[float, float]:
    """Does the same in a separate process, from a sparse file."""
    count = STREAMED * MEGABYTE // (3 * 256 * 256)
    with TemporaryDirectory(prefix="alexnet-lab-bench-") as folder:
        path = f"{folder}/train_images.npy"
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, 3, 256, 256))
        done = subprocess.run([sys.executable, __file__, "--stream", path], capture_output=True, text=True, check=True)
    rate, megabytes = map(float, done.stdout.split())
    return rate, megabytes


def rows() -> Iterator[Row]:
    """Yields two rows."""
    few = CIFAR10._replace(train=1000, test=1000)
    with data_folder(CIFAR10) as many_images, data_folder(few) as few_images:
        grown = peak_of_workers(many_images) - peak_of_workers(few_images)
    yield at_most("CIFAR-10 run: private memory of a worker beyond a run on 1,000 images", grown / MEGABYTE, "MB", 200)
    rate, megabytes = stream_elsewhere()
    what = f"private memory to stream {STREAMED:,} MB under a limit ({rate:,.0f} images/s, 256 px)"
    yield at_most(what, megabytes, "MB", ALLOWED)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stream"]:
        stream(sys.argv[2])
    else:
        script_main(rows, {})
