"""AlexNet at 224 px on a GPU: training steps, the data path from the page cache, and the response norm.

`make bench-gpu` runs it; it needs an NVIDIA GPU. A step is timed between two moments at which the GPU is idle.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from alexnet_step import plain_net
from compare import Row, at_least, medians, more, script_main, slower
from torch import nn

from alexnet_lab.data.augment import Augment
from alexnet_lab.data.channel_statistics import image_statistics
from alexnet_lab.data.datamodule import READ_AHEAD
from alexnet_lab.data.loader import BatchLoader, Rows
from alexnet_lab.data.order import BatchOrder
from alexnet_lab.data.transform import Transform
from alexnet_lab.models import AlexNet
from alexnet_lab.models.counts import num_macs
from alexnet_lab.models.layers import LocalResponseNorm
from alexnet_lab.training.optimizers import sgd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH = 512
STEPS = 16
STORED = 8192
"""Images of 256 px in the store of the data path: 1.6 GB."""
TIMES = 8
"""How often an epoch of the data path reads each, so that the wait for its first batch, 22 ms, is 1 % of it."""


def synchronised(work: Callable[[], object]) -> Callable[[], object]:
    """The work, until the GPU has done it."""

    def call() -> None:
        work()
        torch.cuda.synchronize()

    return call


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, batches: Callable[[], Iterator]) -> Callable[[], object]:
    """`STEPS` training steps in bfloat16."""

    def work() -> None:
        for images, labels in batches():
            with torch.autocast("cuda", torch.bfloat16):
                logits = net(images)
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

    return synchronised(work)


def synthetic() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches that are on the GPU already."""
    shape = (BATCH, 3, 224, 224)
    images = torch.randn(shape, device="cuda").contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (BATCH,), device="cuda")
    return ((images, labels) for _ in range(STEPS))


def ours(
    norm: Literal["lrn", "none"] = "lrn", batches: Callable[[], Iterator] = synthetic, *, compiled: bool = False
) -> Callable[[], object]:
    """AlexNet as `trainer=gpu` trains it, or with `trainer.compile=true`."""
    net = AlexNet(norm=norm).cuda().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's stubs
    if compiled:
        net.compile()
    return steps(net, sgd(net), batches)


def plain() -> Callable[[], object]:
    """A plain PyTorch AlexNet with torch's response norm, and torch's default optimiser."""
    net = plain_net().cuda()
    return steps(net, torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4), synthetic)


def product() -> Callable[[], object]:
    """Products of matrices of 8192 x 8192 in bfloat16: the most that this GPU reaches in practice."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return synchronised(lambda: [a @ b for _ in range(STEPS)])


def stored_batches(folder: str) -> Callable[[], Iterator[tuple[torch.Tensor, torch.Tensor]]]:
    """Batches of random crops out of a store in the page cache, through the reader's thread."""
    path = Path(folder) / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (STORED, 3, 256, 256), dtype=np.uint8))
    images = np.load(path, mmap_mode="r")
    statistics = image_statistics(images, np.arange(min(64, STORED)))
    augment = Augment(pca_colour="code2012")
    transform = Transform(
        augment, stored_size=256, image_size=224, normalization="mean_image", statistics=statistics, seed=0
    )
    rows = Rows(images, np.arange(STORED) % 1000, np.tile(np.arange(STORED), TIMES))
    order = BatchOrder(len(rows.indices), BATCH, 0)
    loader = BatchLoader(rows, order, draw=transform.draw, ahead=READ_AHEAD, gpu=torch.device("cuda"))

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for number, raw in enumerate(loader):
            if number == TIMES * STEPS:
                return
            yield transform(raw)[:2]

    return batches


def norm_pass(norm: nn.Module) -> Callable[[], object]:
    """Forward and backward passes of a norm after conv1."""
    shape = (BATCH, 96, 55, 55)
    x, slope = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    x, slope = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, slope))
    x.requires_grad_()
    return synchronised(lambda: [norm(x).backward(slope) for _ in range(STEPS)])


def copied(batches: Callable[[], Iterator]) -> Callable[[], object]:
    """The data path alone."""
    return synchronised(lambda: [None for _ in batches()])


def rows() -> Iterator[Row]:
    """Yields the rows of docs/gpu.md."""
    started = time.perf_counter()
    with TemporaryDirectory() as folder:
        batches = stored_batches(folder)
        works = {
            "ours": ours(), "no norm": ours("none"), "plain": plain(), "store": ours(batches=batches),
            "data": copied(batches), "product": product(), "norm": norm_pass(LocalResponseNorm()),
            "torch norm": norm_pass(nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)), "compiled": ours(compiled=True),
        }  # fmt: skip
        seconds = medians(works, rounds=5, warm=2)
    rates = {name: STEPS * BATCH / taken for name, taken in seconds.items()}
    for name in ("store", "data"):
        rates[name] *= TIMES
    a_step = 3 * 2 * num_macs(AlexNet(), (3, 224, 224))  # operations for an image: forward, and twice as many backward
    share = rates["ours"] * a_step / (STEPS * 2 * 8192**3 / seconds["product"])
    what = f"alexnet 224 px, bf16, batch {BATCH}"
    yield at_least(f"{what}, at {share:.0%} of the speed of a matrix product", rates["ours"], "images/s", 25_000)
    yield slower(f"{what}: with LRN / without", seconds["ours"], seconds["no norm"], 1.1)
    yield more(f"{what} / plain PyTorch with nn.LocalResponseNorm", rates["ours"], rates["plain"], "images/s", 2.0)
    yield more(f"{what}, from the store / synthetic images", rates["store"], rates["ours"], "images/s", 0.95)
    yield more(f"{what}, trainer.compile=true / false", rates["compiled"], rates["ours"], "images/s", 1.0)
    yield more("data path alone / training", rates["data"], rates["ours"], "images/s", 1.0)
    yield more("response norm of torch / ours", seconds["torch norm"] * 1e3, seconds["norm"] * 1e3, "ms", 2.0)
    print(f"measured in {time.perf_counter() - started:.0f} s on {torch.cuda.get_device_name()}", flush=True)


if __name__ == "__main__":
    script_main(rows, {})
