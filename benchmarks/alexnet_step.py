"""Training steps of AlexNet at 224 px, batch 64: against a plain PyTorch AlexNet, and with against without norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from compare import Row, contest, more, script_main, slower
from torch import nn

from alexnet_lab.base.memory import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH = 64


def train_step(net: nn.Module, optimizer: torch.optim.Optimizer, precision: torch.dtype) -> Callable[[], object]:
    """Runs forward, backward and update on random images."""
    images, labels = torch.randn(BATCH, 3, 224, 224), torch.randint(0, 1000, (BATCH,))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
            logits = net(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def ours(precision: torch.dtype = torch.float32, norm: str = "lrn") -> Callable[[], object]:
    """Builds a step like `trainer`: channels-last, fused optimiser, freed memory kept."""
    keep_freed_memory()
    from alexnet_lab.training import Classifier  # noqa: PLC0415 - after memory is set

    classifier = Classifier(
        net={"_target_": "alexnet_lab.models.AlexNet", "norm": norm},
        num_classes=1000,
        optimizer={"_target_": "alexnet_lab.training.optimizers.sgd"},
    )
    from alexnet_lab.training.optimizers import sgd  # noqa: PLC0415

    return train_step(classifier, sgd(classifier.net), precision)


def plain_net() -> nn.Module:
    """A plain PyTorch AlexNet, with two towers."""
    return nn.Sequential(
        nn.ZeroPad2d((0, 3, 0, 3)), nn.Conv2d(3, 96, 11, 4), nn.ReLU(inplace=True),
        nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(inplace=True),
        nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Flatten(), nn.Linear(9216, 4096), nn.ReLU(inplace=True), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, 1000),
    )  # fmt: skip


def plain() -> Callable[[], object]:
    """Builds its step."""
    net = plain_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    return train_step(net, optimizer, torch.float32)


WORKS = {
    "float32": ours,
    "float32 without norm": lambda: ours(norm="none"),
    "bf16": lambda: ours(torch.bfloat16),
    "plain": plain,
}


def rows() -> Iterator[Row]:
    """Yields three rows from one comparison."""
    seconds = contest(__file__, WORKS, rounds=5)
    rates = {name: BATCH / taken for name, taken in seconds.items()}
    yield slower(
        "alexnet step, 224 px, batch 64: with LRN / without", seconds["float32"], seconds["float32 without norm"], 1.12
    )
    yield more("alexnet training, 224 px, float32 / plain PyTorch", rates["float32"], rates["plain"], "images/s", 2.0)
    yield more("alexnet training, 224 px, bf16-mixed / plain float32", rates["bf16"], rates["plain"], "images/s", 3.2)


if __name__ == "__main__":
    script_main(rows, WORKS)
