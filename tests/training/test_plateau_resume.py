"""A run that is stopped after any epoch and resumed has the rates and weights of one that was not."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.data import DigitsDataModule
from alexnet_lab.data.order import epoch_order
from alexnet_lab.training import Classifier
from alexnet_lab.training.checkpoint_io import SafeCheckpointIO
from alexnet_lab.training.checkpoints import Checkpoints
from alexnet_lab.training.diagonal_lm import DiagonalLM

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated")  # between Lightning 2.6 and torch 2.14

EPOCHS = 5
TRAINING = "alexnet_lab.training"


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all runs."""
    return tmp_path_factory.mktemp("digits")


class Record(Checkpoint):
    """Keeps the rates of each epoch, and a copy of each epoch's last.ckpt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rates: dict[int, list[float]] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.rates[trainer.current_epoch] = [group["lr"] for group in trainer.optimizers[0].param_groups]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        shutil.copy(self.folder / "last.ckpt", self.folder / f"{trainer.current_epoch}.ckpt")


def fit(
    data_folder: Path,
    folder: Path,
    *,
    optimizer: dict[str, Any],
    schedule: dict[str, Any] | None,
    batches: int = 2,
    **settings: Any,
) -> tuple[Classifier, Record]:
    """Trains a LeNet-5 on a few batches of digits an epoch; `ckpt_path` among `settings` resumes."""
    torch.manual_seed(0)
    data = DigitsDataModule(dir=str(data_folder), batch_size=32, seed=0)
    classifier = Classifier(
        net={"_target_": "alexnet_lab.models.LeNet5", "image_size": data.image_size, "activation": "tanh"},
        num_classes=10,
        optimizer=optimizer,
        schedule=schedule,
    )
    folder.mkdir(exist_ok=True)
    record = Record(folder)
    ckpt_path = settings.pop("ckpt_path", None)
    trainer = Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Checkpoints(folder, "val/loss"), record], plugins=[SafeCheckpointIO()],
        num_sanity_val_steps=0, log_every_n_steps=1, use_distributed_sampler=False, default_root_dir=folder,
        limit_train_batches=batches, **settings,
    )  # fmt: skip
    trainer.fit(classifier, data, ckpt_path=ckpt_path, weights_only=True)
    return classifier, record


KRIZHEVSKY = {"_target_": f"{TRAINING}.krizhevsky.krizhevsky_sgd", "learning_rate": 0.02}
PLATEAU = {
    "_target_": f"{TRAINING}.schedules.plateau",
    "patience_epochs": 1,
    "factor": 0.5,
    "monitor": "val/top1_error",
}


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        pytest.param(KRIZHEVSKY | {"learning_rate": 1e-5}, PLATEAU | {"lower_biases": False}, id="plateau"),
        pytest.param(KRIZHEVSKY, {"_target_": f"{TRAINING}.published.recorded"}, id="recorded"),
        pytest.param({"_target_": f"{TRAINING}.diagonal_lm.diagonal_lm", "samples": 64},
                     {"_target_": f"{TRAINING}.published.by_pass", "passes": [1, 1, 1, 1]}, id="diagonal_lm"),
    ],
)  # fmt: skip
def test_resuming_after_each_epoch_changes_nothing(
    digits_folder: Path, tmp_path: Path, optimizer: dict[str, Any], schedule: dict[str, Any]
):
    whole, record = fit(digits_folder, tmp_path / "whole", optimizer=optimizer, schedule=schedule)
    assert len({tuple(rates) for rates in record.rates.values()}) > 1  # some drop was there to be missed
    for epoch in range(EPOCHS - 1):
        resumed, again = fit(
            digits_folder,
            tmp_path / f"from_{epoch}",
            optimizer=optimizer,
            schedule=schedule,
            ckpt_path=tmp_path / "whole" / f"{epoch}.ckpt",
        )
        assert again.rates == {number: rates for number, rates in record.rates.items() if number > epoch}
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), (epoch, name)


def test_the_plateau_waits_for_the_epochs_it_says(digits_folder: Path, tmp_path: Path):
    """At a rate this small the error stays as it is: epoch 0 is the best, and with patience 1 each later one drops."""
    slow = KRIZHEVSKY | {"learning_rate": 1e-9, "bias_factor": 1.0}
    _, record = fit(digits_folder, tmp_path, optimizer=slow, schedule=PLATEAU)
    assert [rates[0] for rates in record.rates.values()] == pytest.approx([1e-9] * 5)  # torch ignores steps below 1e-8
    slow = KRIZHEVSKY | {"learning_rate": 1e-6, "bias_factor": 1.0}
    _, record = fit(digits_folder, tmp_path, optimizer=slow, schedule=PLATEAU)
    assert [rates[0] for rates in record.rates.values()] == pytest.approx([1e-6, 1e-6, 5e-7, 2.5e-7, 1.25e-7])


def test_an_epoch_without_validation_counts_and_the_next_validation_decides(digits_folder: Path, tmp_path: Path):
    """Epochs 1 and 3 are validated: no better than the first, 3 is the second epoch without improvement."""
    schedule = PLATEAU | {"patience_epochs": 2, "monitor": "val/top1_error"}
    slow = KRIZHEVSKY | {"learning_rate": 1e-6, "bias_factor": 1.0}
    _, record = fit(digits_folder, tmp_path, optimizer=slow, schedule=schedule, check_val_every_n_epoch=2)
    assert [rates[0] for rates in record.rates.values()] == pytest.approx([1e-6] * 4 + [5e-7])


def test_a_plateau_without_validation_is_refused(digits_folder: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"waits for validation, and `trainer.limit_val_batches` or `data.val_frac"):
        fit(digits_folder, tmp_path, optimizer=KRIZHEVSKY, schedule=PLATEAU, limit_val_batches=0)


def test_curvature_needs_a_loader_that_can_be_read_ahead(digits_folder: Path, tmp_path: Path):
    from torch.utils.data import DataLoader, TensorDataset

    classifier = Classifier(
        net={"_target_": "alexnet_lab.models.LeNet5"},
        num_classes=10,
        optimizer={"_target_": f"{TRAINING}.diagonal_lm.diagonal_lm"},
    )
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, num_sanity_val_steps=0, log_every_n_steps=1,
    )  # fmt: skip
    images = TensorDataset(torch.zeros(4, 1, 28, 28), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ConfigError, match="reads ahead in the training data, which only a BatchLoader allows"):
        trainer.fit(classifier, DataLoader(images, batch_size=2), DataLoader(images, batch_size=2))


class Watched:
    """Notes what each estimate of the curvature was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[list[int]] = []
        monkeypatch.setattr(DiagonalLM, "estimate_curvature", self._keep)
        monkeypatch.setattr(DiagonalLM, "_curvature", lambda self, parameter: torch.full_like(parameter, torch.inf))

    def _keep(self, net: Any, loss: Any, batches: Any) -> None:
        self.seen.append([index for batch in batches for index in batch.indices.tolist()])


@pytest.mark.parametrize(("every", "estimates"), [(None, 1), (64, 2), (32, 3)])
def test_curvature_is_measured_on_the_images_that_come_next(
    digits_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int | None, estimates: int
):
    watched = Watched(monkeypatch)
    optimizer = {"_target_": f"{TRAINING}.diagonal_lm.diagonal_lm", "samples": 40, "every_images": every}
    fit(digits_folder, tmp_path, optimizer=optimizer, schedule=None, batches=3)
    assert len(watched.seen) == EPOCHS * estimates
    assert all(len(indices) == 64 for indices in watched.seen)  # two batches of 32 hold 40 images
    data = DigitsDataModule(dir=str(digits_folder), batch_size=32, seed=0)
    data.prepare_data()
    data.setup()
    order = epoch_order(0, 1, data.num_train)  # of epoch 1
    first = (0 if every is None else every) * (estimates - 1)
    assert watched.seen[2 * estimates - 1] == data.split.train[order[first : first + 64]].tolist()
