"""Classifier and Lightning's own Trainer with any loader of images and labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from lightning import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

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


def trainer(folder: Path, *callbacks: Any, **fields: Any) -> Trainer:
    length = cast("Any", {"max_epochs": 1} | fields)
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=list(callbacks), **length,
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


class Broken(Callback):
    """Raises after the second training batch, or before the third batch of a validation."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            raise ValueError("by hand")

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx == 2:
            raise ValueError("by hand")


class Counted(Callback):
    """Keeps the number of images of each epoch."""

    def __init__(self) -> None:
        self.images: list[float] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.images.append(pl_module.train_counts.images.item())


def test_a_loop_that_ended_early_leaves_nothing_in_the_next_one(classifier, tmp_path):
    whole = trainer(tmp_path).validate(classifier, loader(), verbose=False)
    with pytest.raises(ValueError, match="by hand"):
        trainer(tmp_path, Broken()).validate(classifier, loader(), verbose=False)
    assert trainer(tmp_path).validate(classifier, loader(), verbose=False) == whole
    classifier.train()  # which a validation that ended early has not put back
    with pytest.raises(ValueError, match="by hand"):
        trainer(tmp_path, Broken()).fit(classifier, loader())
    counted = Counted()
    trainer(tmp_path, counted).fit(classifier, loader())
    assert counted.images == [22]


ONE_CYCLE = {"_target_": "alexnet_lab.training.schedules.one_cycle"}


@pytest.mark.parametrize(
    ("limits", "steps"), [({"max_epochs": -1, "max_steps": 6}, 6), ({"max_steps": 5}, 3), ({"max_epochs": 2}, 6)]
)
def test_a_schedule_lasts_as_long_as_the_trainer(limits, steps, tmp_path):
    module = Classifier(net=LeNet5(), num_classes=10, optimizer=SGD, schedule=ONE_CYCLE)
    fitted = trainer(tmp_path, **limits)
    fitted.fit(module, loader())
    assert fitted.global_step == steps
    last = fitted.optimizers[0].param_groups[0]["lr"]
    assert last == pytest.approx(0.1 / 25 / 1e4, rel=1e-3)


class Stream(IterableDataset):
    """Images without a length."""

    def __iter__(self) -> Any:
        return iter([(torch.zeros(1, 28, 28), 0)] * 8)


@pytest.mark.parametrize(
    ("limits", "images"),
    [({"max_epochs": -1}, loader()), ({"max_epochs": 1}, DataLoader(Stream(), batch_size=4))],
)
def test_a_schedule_in_a_run_of_unknown_length_is_refused_in_one_line(limits, images, tmp_path):
    module = Classifier(net=LeNet5(), num_classes=10, optimizer=SGD, schedule=ONE_CYCLE)
    with pytest.raises(ConfigError, match=r"^`schedule` needs the length of the run, which is unknown: set max_epochs"):
        trainer(tmp_path, **limits).fit(module, images)


def test_a_validation_after_training_belongs_to_the_last_epoch(classifier, tmp_path):
    fitted = trainer(tmp_path, max_epochs=2)
    fitted.fit(classifier, loader(), loader())
    assert float(fitted.callback_metrics["epoch"]) == 2
    for stage in (fitted.validate, fitted.test):
        assert stage(classifier, loader(), verbose=False)[0]["epoch"] == 2
    predicted = fitted.predict(classifier, [loader(), loader(8)])
    assert [len(torch.cat(part)) for part in predicted or []] == [22, 8]


def test_a_checkpoint_gets_the_compiled_network_that_it_is_given(classifier, tmp_path):
    net: Any = torch.compile(LeNet5(), backend="eager")
    fitted = trainer(tmp_path)
    fitted.fit(Classifier(net=net, num_classes=10, optimizer=SGD), loader())
    fitted.save_checkpoint(tmp_path / "one.ckpt")
    fresh: Any = torch.compile(LeNet5(), backend="eager")
    loaded = Classifier.load_from_checkpoint(tmp_path / "one.ckpt", net=fresh)
    assert loaded.net is fresh
    for name, value in net.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value)


@pytest.mark.parametrize(("limit", "algorithm"), [(0.01, "value"), (0.01, "norm"), (0.0, None), (None, None)])
def test_gradients_are_clipped_as_the_trainer_says(limit, algorithm, classifier, tmp_path):
    before = {name: weight.detach().clone() for name, weight in classifier.net.named_parameters()}
    images, labels = next(iter(loader()))
    functional.cross_entropy(classifier.net(images), labels).backward()
    gradients = {name: weight.grad.clone() for name, weight in classifier.net.named_parameters()}
    whole = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm()
    assert whole > 0.01
    classifier.optimizer_spec = SGD | {"learning_rate": 1.0}
    clipping = {"gradient_clip_val": limit, "gradient_clip_algorithm": algorithm}
    trainer(tmp_path, max_steps=1, **clipping).fit(classifier, loader())
    for name, weight in classifier.net.named_parameters():
        step = gradients[name]
        if limit:
            step = step.clamp(-limit, limit) if algorithm == "value" else step * limit / whole
        torch.testing.assert_close(weight.detach(), before[name] - step, rtol=1e-4, atol=1e-7)


def test_a_loss_is_reached_at_the_same_image_however_batches_make_a_step(classifier, tmp_path):
    spec = {"_target_": "alexnet_lab.training.optimizers.sgd", "learning_rate": 1e-9}
    for batches in (1, 3):
        module, goal = Classifier(net=LeNet5(), num_classes=10, optimizer=spec), TimeToLoss(loss=2.0)
        trainer(tmp_path, goal, accumulate_grad_batches=batches).fit(module, loader())
        assert float(module.trainer.callback_metrics["train/loss"]) > 2.2
        assert goal.reached is None


def test_steps_of_several_sizes_are_refused_where_a_schedule_counts_them(tmp_path):
    scheduling = GradientAccumulationScheduler({1: 4})
    module = Classifier(net=LeNet5(), num_classes=10, optimizer=SGD, schedule=ONE_CYCLE)
    with pytest.raises(ConfigError, match="`schedule` needs steps of one size: set accumulate_grad_batches"):
        trainer(tmp_path, scheduling).fit(module, loader())


def test_each_image_is_counted_once_if_a_step_computes_its_batch_several_times(tmp_path):
    spec = {"_target_": "torch.optim.LBFGS", "lr": 0.1, "max_iter": 3}
    module = Classifier(net=LeNet5(), num_classes=10, optimizer=spec, memory_format="contiguous")
    images: list[int] = []
    counted = SimpleCallback(lambda *_: images.append(int(module.train_counts.images)))
    trainer(tmp_path, counted, max_epochs=2).fit(module, loader())
    assert images == [8, 16, 22] * 2


class SimpleCallback(Callback):
    """Calls a function at the end of each batch."""

    def __init__(self, act: Any) -> None:
        self.on_train_batch_end = act


def test_a_net_with_too_few_outputs_and_one_without_weights_are_refused_in_one_line(tmp_path):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 5))
    module = Classifier(net=net, num_classes=10, optimizer=SGD)
    with pytest.raises(ConfigError, match=r"gives outputs of the shape \(8, 5\) for 8 images; .* the 10 classes"):
        trainer(tmp_path).fit(module, loader())
    with pytest.raises(ConfigError, match="`net` has lazy layers, whose sizes are unknown"):
        Classifier(net=torch.nn.LazyLinear(10), num_classes=10, optimizer=SGD)


def test_stored_images_are_not_taken_for_a_batch(classifier, digits_dir, tmp_path):
    data = DigitsDataModule(dir=str(digits_dir))
    data.prepare_data()
    data.setup()
    with pytest.raises(ConfigError, match=r"pass the module: trainer.fit\(module, data\)"):
        trainer(tmp_path).fit(classifier, data.train_dataloader())
