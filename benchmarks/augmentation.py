"""Crop, mirror, PCA colour and normalisation: whole batches from the store against torchvision image by image.

Ours starts with the order of the images and ends with the batch that the network sees; theirs starts with decoded
images and ends with the stacked batch. One process each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from compare import Row, contest, more, script_main
from PIL import Image
from torchvision import transforms

from alexnet_lab.base.memory import keep_freed_memory
from alexnet_lab.base.random import generator
from alexnet_lab.data.augment import Augment, apply
from alexnet_lab.data.channel_statistics import image_statistics
from alexnet_lab.data.loader import BatchLoader, Rows
from alexnet_lab.data.normalize import make_normalizer
from alexnet_lab.data.order import BatchOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Task(NamedTuple):
    """Images of one size."""

    images: int  # per call
    stored: int  # pixels
    side: int  # of the view, in pixels
    padding: int
    goal: float  # times torchvision's rate


TASKS = {"32": Task(4096, 32, 32, 4, 20.0), "224": Task(512, 256, 224, 0, 2.0)}

BATCH = 128


def random_images(task: Task) -> np.ndarray:
    """Makes images with uniformly distributed grey levels; the content does not affect the times."""
    return np.random.default_rng(0).integers(0, 256, (task.images, 3, task.stored, task.stored), dtype=np.uint8)


def our_pass(task: Task) -> Callable[[], object]:
    """Runs an epoch of batches."""
    keep_freed_memory()
    images = random_images(task)
    statistics = image_statistics(images, np.arange(256))
    augment = Augment(padding=task.padding, pca_colour="code2012")
    geometry = augment.geometry(task.stored, task.side)
    normalizer = make_normalizer("standardize", statistics, task.side)
    rows = Rows(images, np.zeros(task.images, np.int64), np.arange(task.images))

    def draw(epoch: int, batch: int, n: int) -> Any:
        return augment.draw(generator(0, "augment", epoch, batch), n, geometry, statistics)

    loader = BatchLoader(rows, BatchOrder(task.images, BATCH, 0), draw=draw)

    def work() -> None:
        for raw in loader:
            apply(raw.images, raw.draws, geometry, normalizer)

    return work


class Colour(torch.nn.Module):
    """The PCA noise of Krizhevsky 2012 as a transform, since torchvision lacks it."""

    def __init__(self) -> None:
        super().__init__()
        self.axes, self.stdevs = torch.linalg.qr(torch.randn(3, 3))[0], torch.tensor([0.1, 0.2, 0.5])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps (3, S, S) to (3, S, S)."""
        shift = self.axes @ (0.1 * torch.randn(3) * self.stdevs)
        return image + shift[:, None, None]


def their_pass(task: Task) -> Callable[[], object]:
    """Processes the same number of images, one after the other."""
    images = [Image.fromarray(image.transpose(1, 2, 0)) for image in random_images(task)]
    transform = transforms.Compose(
        [
            transforms.RandomCrop(task.side, padding=task.padding or None),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            Colour(),
            transforms.Normalize([0.49, 0.48, 0.45], [0.25, 0.24, 0.26]),
        ]
    )

    def work() -> None:
        for start in range(0, task.images, BATCH):
            torch.stack([cast("torch.Tensor", transform(image)) for image in images[start : start + BATCH]])

    return work


WORKS = {
    f"{name} {side}": lambda make=make, side=side: make(TASKS[side])
    for name, make in {"ours": our_pass, "theirs": their_pass}.items()
    for side in TASKS
}


def rows() -> Iterator[Row]:
    """Yields a row for each size."""
    for side, task in TASKS.items():
        seconds = contest(__file__, [f"ours {side}", f"theirs {side}"], rounds=7)
        ours, theirs = (task.images / seconds[f"{name} {side}"] for name in ("ours", "theirs"))
        what = f"crop, mirror, PCA colour, normalise: {task.side} px of {task.stored + 2 * task.padding}"
        yield more(what, ours, theirs, "images/s", task.goal)


if __name__ == "__main__":
    script_main(rows, WORKS)
