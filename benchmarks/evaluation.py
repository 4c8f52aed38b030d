"""Ten views against one, and search by binary codes against exact search.

`python benchmarks/evaluation.py [RUN_DIR]`: of a run on CIFAR-10 also the views, which take minutes.
"""

from __future__ import annotations

import resource
import sys

import numpy as np
import torch
from compare import medians

from alexnet_lab.base.log import start_log
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.evaluation.predict import predict
from alexnet_lab.evaluation.retrieval import hamming_nearest, nearest, pack

IMAGES, FEATURES, QUERIES, BITS, NEIGHBOURS = 50_000, 4096, 1000, 256, 10


def search() -> None:
    """Times 1,000 queries among 50,000 vectors of 4096 numbers: exact, and by codes of 256 bits."""
    torch.manual_seed(0)
    gallery, queries = torch.rand(IMAGES, FEATURES), torch.rand(QUERIES, FEATURES)
    bits = np.random.default_rng(0).random((IMAGES + QUERIES, BITS)) < 0.5
    codes = pack(bits)
    seconds = medians(
        {
            "codes": lambda: hamming_nearest(codes[IMAGES:], codes[:IMAGES], NEIGHBOURS),
            "exact": lambda: nearest(queries, gallery, NEIGHBOURS),
        },
        rounds=5,
    )
    print(f"exact search: {seconds['exact']:.2f} s; goal 10 s")
    print(f"codes: {seconds['codes']:.3f} s, {seconds['exact'] / seconds['codes']:.1f} times as fast; goal 10")


def views(directory: str) -> None:
    """Times all test images in ten views, and in one."""
    run = FinishedRun(directory)
    predict(run, "test")
    calls = {"ten": lambda: predict(run, "test", views="ten"), "one": lambda: predict(run, "test")}
    seconds = medians(calls, rounds=2, warm=0)
    print(f"ten views of {run.data.num_test:,} images: {seconds['ten']:.1f} s, one: {seconds['one']:.1f} s")
    print(f"ten views take {seconds['ten'] / seconds['one']:.2f} times as long as one; goal 10.5")
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB; goal 3 GB", flush=True)


if __name__ == "__main__":
    start_log()
    if len(sys.argv) > 1:
        views(sys.argv[1])
    search()
