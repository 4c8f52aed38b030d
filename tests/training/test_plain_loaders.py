"""Classifier and Lightning's own Trainer with any loader of images and labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning import LightningDataModule, Trainer
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.data import DigitsDataModule
from alexnet_lab.data.loader import Batch, as_batch
from alexnet_lab.models import LeNet5
from alexnet_lab.training import Classifier
from alexnet_lab.training.callbacks import Throughput
from alexnet_lab.training.metrics import Confusion
from alexnet_lab.training.step_seeds import StepSeeds
from alexnet_lab.training.time_to import TimeToLoss

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.filterwarnings(f"ignore:{text}") for text in (
    "The '.*_dataloader' does not have many workers", "You defined a `validation_step` but have no `val_dataloader`",
    "The number of training batches", "`isinstance.treespec, LeafSpec.` is deprecated",
)]  # fmt: skip


SGD = {"_target_": "alexnet_lab.training.optimizers.sgd", "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0}


def loader(count: int = 22, **extra: Any) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(count, 1, 28, 28, generator=generator), torch.arange(count) % 10
    return DataLoader(TensorDataset(images, labels), batch_size=8, num_workers=0, **extra)


def trainer(folder: Path, *callbacks: Any) -> Trainer:
    return Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=list(callbacks),
    )  # fmt: skip


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(net={"_target_": "alexnet_lab.models.LeNet5"}, num_classes=10, optimizer=SGD)


def test_a_plain_loader_trains_as_a_loop_by_hand_and_is_counted_by_every_callback(classifier, tmp_path):
    net = LeNet5()
    net.load_state_dict(classifier.net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for images, labels in loader():
        optimizer.zero_grad()
        functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    throughput, confusion, to_loss = Throughput(), Confusion(10), TimeToLoss(loss=99.0)
    fitted = trainer(tmp_path, throughput, confusion, to_loss, StepSeeds(0))
    fitted.fit(classifier, loader(), loader())
    for name, value in net.state_dict().items():
        torch.testing.assert_close(classifier.net.state_dict()[name], value)
    with torch.no_grad():
        wrong = torch.cat([net(images).argmax(1) != labels for images, labels in loader()])
    assert float(fitted.callback_metrics["val/top1_error"]) == pytest.approx(wrong.float().mean().item())
    assert fitted.validate(classifier, loader(), verbose=False)[0]["val/top1_error"] == pytest.approx(
        wrong.float().mean().item()
    )
    assert fitted.test(classifier, loader(), verbose=False)[0]["test/top1_error"] == pytest.approx(
        wrong.float().mean().item()
    )
    assert throughput.images == 22
    assert sum(map(sum, confusion.counts or [])) == 22
    assert to_loss.result is not None


def test_a_data_module_of_ones_own_trains_too(classifier, tmp_path):
    class Data(LightningDataModule):
        def train_dataloader(self) -> DataLoader:
            return loader()

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0] * 0.5, batch[1], "and more"

    fitted = trainer(tmp_path)
    fitted.fit(classifier, Data())
    assert fitted.global_step == 3


def test_a_batch_unpacks_as_images_and_labels():
    images, labels = torch.zeros(3, 1, 8, 8), torch.tensor([2, 0, 1], dtype=torch.int32)
    batch = as_batch([images, labels], SimpleNamespace(world_size=4))
    assert batch[0] is images
    assert batch[:2] == (batch.images, batch.labels)
    assert (batch.labels.dtype, batch.labels.tolist(), batch.total) == (torch.int64, [2, 0, 1], 12)
    again = Batch(images, labels, labels, 3)
    assert as_batch(again, None) is again


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": torch.zeros(2), "label": torch.zeros(2)}, "a batch is a dict; allowed: what unpacks as `images, la"),
        ([torch.zeros(2)], "a batch is a list; allowed"),
        ((torch.zeros(2, 1, 2, 2), ["cat", "dog"]), "a batch is a tuple; allowed"),
        ((torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(2)), r"the images of a batch are torch\.uint8; allo"),
        (
            (torch.zeros(2, 1, 2, 2), torch.rand(2)),
            r"the labels of a batch are torch\.float32 of the shape \(2,\); allowed",
        ),
        (
            (torch.zeros(2, 1, 2, 2), torch.eye(2).long()),
            r"are torch\.int64 of the shape \(2, 2\); allowed: integers of t",
        ),
    ],
)
def test_another_batch_is_refused_in_one_line(batch, message):
    with pytest.raises(ConfigError, match=message):
        as_batch(batch, None)


def predicted(folder: Path, classifier: Classifier, images: Any) -> torch.Tensor:
    found: Any = trainer(folder).predict(classifier, images)
    return torch.cat(found)


def test_predictions_are_the_logits_in_the_order_of_the_images(classifier, tmp_path):
    found, images = predicted(tmp_path, classifier, loader()), loader().dataset[:][0]
    assert torch.allclose(found, classifier.eval()(images), atol=1e-5)
    assert torch.equal(predicted(tmp_path, classifier, DataLoader(images, batch_size=8)), found)


def test_a_data_module_predicts_its_test_set(classifier, tmp_path, digits_dir):
    data = DigitsDataModule(dir=str(digits_dir), image_size=28)
    found = predicted(tmp_path, classifier, data)
    labels = torch.from_numpy(data.rows("test").labels[data.rows("test").indices])
    assert found.shape == (data.num_test, 10)
    (tested,) = trainer(tmp_path).test(classifier, datamodule=data, verbose=False)
    assert (found.argmax(1) != labels).float().mean().item() == pytest.approx(tested["test/top1_error"])
