"""The recorded losses of a few steps: a faster implementation must give the same ones.

Batches, crops, mirror images, colours, dropout and weights come from seed 0. The numbers were recorded with torch 2.14
on a CPU before response norm and augmentation were compiled. Other versions may draw other weights; the test says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from lightning import Callback

from alexnet_lab.data.store import Contents, Part
from alexnet_lab.data.store_writing import make_store
from alexnet_lab.run import engine
from alexnet_lab.run.run_directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The `srun` command"),
]

STEPS = 6

ALEXNET = (
    "model=alexnet", "model.width=0.25", "model.init=he", "data=cifar10", "data.batch_size=16", "augment=alexnet",
    "augment.padding=4", "optimizer.learning_rate=0.001",
)  # fmt: skip

GOLDEN = {
    "lenet5": (("data.batch_size=16",), (2.310616, 2.285489, 2.302363, 2.318535, 2.298429, 2.301582), 1e-5),
    "alexnet": (ALEXNET, (25.66979, 18.22345, 22.53127, 13.94466, 9.072985, 8.822691), 1e-3),
    "alexnet bf16": (
        (*ALEXNET, "trainer.precision=bf16-mixed"),
        (25.65370, 18.22996, 23.00801),  # from the fourth on, CPUs with and without bf16 arithmetic differ by 8 %
        2e-2,
    ),
}
"""For each network: the overrides, the losses of the first steps, and by how much of it another machine may differ."""


class Losses(Callback):
    """Writes down what training_step returns."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(float(outputs["loss"]))


@pytest.fixture(scope="module")
def colour_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of 96 smooth colour images in CIFAR-10's place."""
    folder = tmp_path_factory.mktemp("colour")
    coarse = np.random.default_rng(0).integers(0, 256, (96, 3, 4, 4), dtype=np.uint8)
    images = coarse.repeat(8, axis=2).repeat(8, axis=3)
    part = Part(np.arange(96) % 10, images.__getitem__)
    names = [str(label) for label in range(10)]
    make_store(
        folder / "store" / "cifar10-32", lambda: Contents("test", names, (3, 32, 32), {"train": part, "test": part})
    )
    return folder


@pytest.mark.parametrize("name", GOLDEN)
def test_the_losses_are_what_they_were(name, typed, colour_dir, tmp_path):
    overrides, expected, tolerance = GOLDEN[name]
    folder = [f"data.dir={colour_dir}"] if "data=cifar10" in overrides else []
    config = typed(
        *overrides, *folder, f"trainer.max_steps={STEPS}", "trainer.limit_val_batches=0", "schedule=constant"
    )
    engine.seed_everything(0)
    data, classifier, losses = engine.build_data(config), engine.build_classifier(config), Losses()
    data.prepare_data()
    engine.build_trainer(config, RunDirectory(tmp_path), [], [losses]).fit(classifier, data)
    if not torch.__version__.startswith("2.14."):
        pytest.skip("the numbers were taken with torch 2.14")
    assert len(losses.seen) == STEPS
    assert losses.seen[: len(expected)] == pytest.approx(expected, rel=tolerance)
