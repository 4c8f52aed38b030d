"""Training of LeNet-5 on MNIST through train.py, metrics and progress bar on, against bare PyTorch loops.

Theirs are the loop of the third notebook (a DataLoader over torchvision's transforms) and a loop over tensors that
lie ready in memory. All take the same network, optimiser and batches of 64.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from compare import Contestant, Row, more, script_main
from PIL import Image
from runs import MNIST, data_folder, train
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from alexnet_lab.models import LeNet5

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BATCH = 64
TENSORS, IMAGES = 54_000, 12_800
"""Images per pass of the two bare loops: an epoch, and a part of one."""

ROUNDS = 3


def bare_pass(batches: Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]) -> Callable[[], object]:
    """Trains for one pass over the batches."""
    torch.manual_seed(0)
    net = LeNet5()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def work() -> None:
        for images, labels in batches():
            loss = F.cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return work


def random_digits(n: int) -> np.ndarray:
    """Makes images, (n, 28, 28)."""
    return np.random.default_rng(0).integers(0, 256, (n, 28, 28), dtype=np.uint8)


def loop_over_tensors() -> Callable[[], object]:
    """Iterates over normalised images by indexing."""
    images = (torch.from_numpy(random_digits(TENSORS)).float()[:, None] / 255 - 0.13) / 0.31
    labels = torch.arange(TENSORS) % 10

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for some in torch.randperm(TENSORS).split(BATCH):
            yield images[some], labels[some]

    return bare_pass(batches)


class Digits(Dataset):
    """Like torchvision's MNIST: converts an array to a Pillow image and transforms it."""

    def __init__(self) -> None:
        self.images = random_digits(IMAGES)
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return cast("torch.Tensor", self.transform(Image.fromarray(self.images[index]))), index % 10


def loop_over_loader() -> Callable[[], object]:
    """Builds the notebook's network."""
    loader = DataLoader(Digits(), BATCH, shuffle=True)
    return bare_pass(lambda: loader)


WORKS = {"tensors": loop_over_tensors, "loader": loop_over_loader}


def rows() -> Iterator[Row]:
    """Yields both rows from the same runs of train.py."""
    ours: list[float] = []
    theirs: dict[str, list[float]] = {"tensors": [], "loader": []}
    contestants = {name: Contestant(__file__, name) for name in WORKS}
    with data_folder(MNIST) as folder:
        for _ in range(ROUNDS):
            run = train("model=lenet5", "data=mnist", "augment=none", f"data.dir={folder}", "trainer.max_epochs=3")
            ours.append(run.rate)
            for name, images in {"tensors": TENSORS, "loader": IMAGES}.items():
                theirs[name].append(max(images / contestants[name]() for _ in range(2)))
    for contestant in contestants.values():
        contestant.close()
    rate = statistics.median(ours)
    yield more(
        "LeNet-5 epoch, MNIST, train.py / DataLoader loop", rate, statistics.median(theirs["loader"]), "images/s", 2.0
    )
    yield more(
        "LeNet-5 epoch, MNIST, train.py / loop over tensors",
        rate,
        statistics.median(theirs["tensors"]),
        "images/s",
        0.93,
    )


if __name__ == "__main__":
    script_main(rows, WORKS)
