"""The Classifier's loss and step, and the rows that a run writes of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.data.loader import Batch
from alexnet_lab.models import AlexNet, LeNet5
from alexnet_lab.training import Classifier
from alexnet_lab.training.callbacks import MetricsCsv, Throughput, epoch_line, plain
from alexnet_lab.training.last_validation import LastValidation

LENET = {"_target_": "alexnet_lab.models.LeNet5"}
SGD = {"_target_": "alexnet_lab.training.optimizers.sgd", "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0}


def classifier(**fields: Any) -> Classifier:
    torch.manual_seed(0)
    return Classifier(net=LENET, num_classes=10, optimizer=SGD, **fields)


def batch(count: int, total: int | None = None) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 1, 28, 28, generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return Batch(images, labels, torch.arange(count), total or count)


def with_trainer(module: Classifier, world_size: int) -> Classifier:
    module._trainer = cast("Any", SimpleNamespace(world_size=world_size))
    module._jit_is_scripting = True  # gives the trainer out without asking it anything
    return module


def test_loss_is_the_mean_over_the_global_batch():
    module = with_trainer(classifier(), 1)
    some = batch(6)
    expected = functional.cross_entropy(module.net(some.images), some.labels)
    torch.testing.assert_close(module.training_step(some, 0), expected)


def test_loss_and_gradients_of_a_float64_net_are_float64():
    module = with_trainer(classifier().double(), 1)
    some = batch(6)._replace(images=batch(6).images.double())
    found = module.training_step(some, 0)
    expected = -module.net(some.images).log_softmax(1)[range(6), some.labels].mean()
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(expected.item(), rel=1e-14)
    weights = [*module.parameters()]
    pairs = zip(torch.autograd.grad(found, weights), torch.autograd.grad(expected, weights), strict=True)
    assert all(ours.allclose(formula, rtol=1e-12, atol=1e-15) for ours, formula in pairs)


@pytest.mark.parametrize("shares", [(4, 4), (5, 3), (8, 0), (3, 3, 2)])
def test_shares_of_processes_average_to_the_loss_of_the_whole(shares):
    module = with_trainer(classifier(), len(shares))
    whole = batch(sum(shares))
    parts, start = [], 0
    for share in shares:
        rows = slice(start, start + share)
        part = Batch(whole.images[rows], whole.labels[rows], whole.indices[rows], sum(shares))
        parts.append(module.training_step(part, 0))
        start += share
    expected = functional.cross_entropy(module.net(whole.images), whole.labels)
    torch.testing.assert_close(torch.stack(parts).mean(), expected)


def test_memory_layout_does_not_change_the_logits():
    some = batch(3)
    one, other = classifier(memory_format="contiguous"), classifier(memory_format="channels_last")
    torch.testing.assert_close(one(some.images), other(some.images))


def test_step_counts_loss_and_errors():
    module = with_trainer(classifier(), 1)
    some = batch(6)
    module.training_step(some, 0)
    module.training_step(some, 1)
    found = module.train_counts.compute()
    logits = module.net(some.images)
    assert found["loss"].item() == pytest.approx(functional.cross_entropy(logits, some.labels).item(), rel=1e-5)
    assert found["top1_error"].item() == pytest.approx((logits.argmax(1) != some.labels).float().mean().item())
    assert module.train_counts.images == 12


def trainer(epoch: int, **metrics: float) -> Any:
    values = {name.replace("_", "/", 1): torch.tensor(value) for name, value in metrics.items()}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.5)
    return SimpleNamespace(
        callback_metrics=values, current_epoch=epoch, global_step=(epoch + 1) * 10, max_epochs=3,
        is_global_zero=True, optimizers=[optimizer], callbacks=[LastValidation()],
    )  # fmt: skip


def test_metrics_csv_is_whole_after_each_epoch_and_continues_when_resumed(tmp_path):
    path = tmp_path / "metrics.csv"
    logged: list[dict[str, float]] = []
    module: Any = SimpleNamespace(log_dict=logged.append)
    first = MetricsCsv(path, Throughput())
    for epoch in range(3):
        first.on_train_epoch_end(trainer(epoch, train_loss=1.0 / (epoch + 1), train_top1_error=0.5), module)
    again = MetricsCsv(path, Throughput())
    again.load_state_dict({"rows": first.state_dict()["rows"][:2]})  # of the checkpoint of epoch 2
    path.write_text("damaged meanwhile")
    again.on_fit_start(trainer(2), module)
    validated = trainer(2, train_loss=9.0, train_top1_error=0.25)
    validated.callbacks[0].metrics = {"val/loss": 8.0, "val/top1_error": 0.1}
    again.on_train_epoch_end(validated, module)
    assert path.read_text().splitlines() == [
        "epoch,step,train/loss,train/top1_error,learning_rate,images_per_second,val/loss,val/top1_error",
        "1,10,1.0,0.5,0.5,nan,,",
        "2,20,0.5,0.5,0.5,nan,,",
        "3,30,9.0,0.25,0.5,nan,8.0,0.1",
    ]
    assert [values["learning_rate"] for values in logged] == [0.5] * 4  # for trackers


def test_epochs_of_an_older_checkpoint_are_counted_from_one(tmp_path):
    metrics = MetricsCsv(tmp_path / "metrics.csv", Throughput())
    metrics.load_state_dict({"rows": [{"epoch": 0, "step": 5}, {"epoch": 1, "step": 10}]})
    assert metrics.rows == [{"epoch": 1, "step": 5}, {"epoch": 2, "step": 10}]


def test_throughput_counts_global_batches_between_an_epochs_start_and_its_last_batch(monkeypatch):
    times = iter([10.0, 11.0, 12.0, 20.0, 21.0])
    monkeypatch.setattr("alexnet_lab.training.callbacks.time.perf_counter", lambda: next(times))
    throughput, nothing = Throughput(), cast("Any", None)
    for sizes in ((100, 60), (50,)):
        throughput.on_train_epoch_start(nothing, nothing)
        for size in sizes:
            throughput.on_train_batch_end(nothing, nothing, None, SimpleNamespace(total=size), 0)
        throughput.on_train_epoch_end(nothing, nothing)
    assert (throughput.images, throughput.seconds, throughput.images_per_second) == (210, 3.0, 50.0)


def test_throughput_leaves_out_a_validation_within_an_epoch_and_at_its_end(monkeypatch):
    times = iter([10.0, 11.0, 11.0, 19.0, 20.0, 20.0, 28.0])  # two batches of 1 s, each before a validation of 8 s
    monkeypatch.setattr("alexnet_lab.training.callbacks.time.perf_counter", lambda: next(times))
    throughput, nothing = Throughput(), cast("Any", None)
    throughput.on_train_epoch_start(nothing, nothing)
    for size in (100, 60):
        throughput.on_train_batch_end(nothing, nothing, None, SimpleNamespace(total=size), 0)
        throughput.on_validation_start(nothing, nothing)
        throughput.on_validation_end(nothing, nothing)
    throughput.on_train_epoch_end(nothing, nothing)
    assert (throughput.images, throughput.seconds, throughput.images_per_second) == (160, 2.0, 80.0)


def test_plain_numbers_are_the_shortest():
    assert plain(torch.tensor(8 / 9)) == 0.8888889
    assert str(plain(torch.tensor(0.1))) == "0.1"


def test_epoch_line():
    metrics = {"train/loss": 0.5, "train/top1_error": 0.125, "val/loss": 0.25, "val/top1_error": 0.0625}
    assert epoch_line(2, 10, metrics, 1234.5) == (
        "epoch 2/10 | train loss 0.5000, top-1 error 12.50% | val loss 0.2500, top-1 error 6.25% | 1,234 images/s"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"net": "lenet5"}, r"^`net` is 'lenet5' \(str\); allowed: a module, or a dictionary$"),
        ({"net": LeNet5}, r"^`net` is <class .*LeNet5'> \(type\); allowed: a module, or a dictionary$"),
        ({"net": {"activation": "tanh"}}, r"^`model\._target_` is missing; allowed: names of alexnet_lab\.models,"),
        ({"optimizer": torch.optim.SGD}, r"^`optimizer` is <class .*SGD'> \(type\); allowed: a plain dictionary of"),
        ({"optimizer": {"lr": 0.1}}, r"^`optimizer\._target_` is missing; allowed: names of alexnet_lab\.training, cl"),
        ({"optimizer": {"_target_": 3}}, r"^`optimizer\._target_` is 3; allowed: names of"),
        ({"optimizer": {"_target_": "torch.optim.Sgd"}}, r"^`_target_: torch\.optim\.Sgd` was not found"),
        (
            {"schedule": "cosine"},
            r"^`schedule` is 'cosine' \(str\); allowed: a plain dictionary of its fields and a `_t",
        ),
        ({"loss": nn.CrossEntropyLoss()}, r"^`loss` is CrossEntropyLoss\(\) \(CrossEntropyLoss\); allowed: a plain"),
        ({"metrics": ["f1"]}, r"^`metrics` is \['f1'\] \(list\)"),
        ({"metrics": {"f1": {"num_classes": 10}}}, r"^`metrics\.f1\._target_` is missing; allowed: .*torchmetrics"),
        (
            {"metrics": {"loss": {}}},
            r"^`metrics\.loss`: the name has to be a word of letters, digits and _, other than los",
        ),
        ({"metrics": {"a/b": {}}}, r"^`metrics\.a/b`: the name has to be a word"),
        ({"num_classes": 1}, r"^`num_classes` is 1 \(int\); allowed: greater than or equal to 2$"),
        ({"num_classes": 10.0}, r"^`num_classes` is 10\.0 \(float\); allowed: integer$"),
        ({"memory_format": "nhwc"}, r"^`memory_format` is 'nhwc' \(str\); allowed: 'contiguous' or 'channels_last'$"),
        ({"trusted_packages": "mine"}, r"^`trusted_packages` is 'mine' \(str\); allowed: list$"),
    ],
)
def test_a_wrong_argument_is_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        Classifier(**{"net": LENET, "num_classes": 10, "optimizer": SGD} | fields)


def test_a_loss_of_the_whole_batch_is_refused_at_the_first_step():
    module = with_trainer(classifier(loss={"_target_": "torch.nn.CrossEntropyLoss"}), 1)
    with pytest.raises(
        ConfigError, match=r"CrossEntropyLoss gives the shape \(\) for 6 images; .*\+loss.reduction=non"
    ):
        module.training_step(batch(6), 0)
    with pytest.raises(ConfigError, match=r"CrossEntropyLoss gives the shape \(\) for 6 images"):
        module.validation_step(batch(6), 0)


def test_a_number_of_numpy_is_kept_as_pythons():
    module = Classifier(LENET, num_classes=cast("int", np.int64(10)), optimizer=SGD)
    assert type(module.hparams["num_classes"]) is int
    assert AlexNet(num_classes=cast("int", np.int64(7)), image_size=32)(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
