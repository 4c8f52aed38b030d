"""A loss or a gradient that is no number ends the run at that step, and the message says where it began."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from alexnet_lab.base.errors import RunError
from alexnet_lab.data.loader import Batch
from alexnet_lab.data.transform import Transform
from alexnet_lab.run import train
from alexnet_lab.run.last_step import EndAfterStep
from alexnet_lab.training import Classifier, finite_loss
from alexnet_lab.training.checkpoint_io import load_checkpoint
from alexnet_lab.training.finite_loss import first_not_finite
from alexnet_lab.training.krizhevsky import krizhevsky_sgd

SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=5", "trainer.limit_val_batches=1", "optimizer=sgd",
         "schedule=constant", "optimizer.learning_rate=0.01")  # fmt: skip


class Broken(nn.Module):
    """Gives what it gets, but no finite number any more."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images / 0


@pytest.mark.parametrize("compiled", [False, True])
def test_first_place(compiled):
    last = nn.Linear(3, 2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), Broken(), last)
    if compiled:
        net.compile(backend="eager")
    images = torch.ones(2, 1, 2, 2)
    assert first_not_finite(net, images) == "first seen in the output of the layer `2` (Broken)"
    assert first_not_finite(net, images * float("inf")) == "the images hold numbers that are not finite"
    last.weight.data[0, 0] = float("nan")
    expected = "the weights `3.weight` are not finite after the previous step"
    assert first_not_finite(net, images) == expected
    assert not any(layer._forward_hooks for layer in net.modules())
    assert "the loss function is the cause" in first_not_finite(nn.Flatten(), images)


def spoil(monkeypatch: pytest.MonkeyPatch, spoiled: Any, place: tuple[int, int] = (1, 2)) -> None:
    """Changes the loss of a step, given its epoch and batch: of the third step of the second epoch."""
    original = Classifier.training_step

    def step(self: Classifier, batch: Any, index: int) -> torch.Tensor:
        loss = original(self, batch, index)
        return spoiled(loss) if (self.current_epoch, index) == place else loss

    monkeypatch.setattr(Classifier, "training_step", step)


def test_loss_stops_the_run_at_that_step(compose, tmp_path, monkeypatch):
    spoil(monkeypatch, lambda loss: loss * float("inf"))
    message = (
        r"the training loss is inf in step 8 \(epoch 2\), at a learning rate of 0.01: "
        r"the network's outputs are finite, so the loss function is the cause; lower optimizer.learning_rate "
        r"or set trainer.gradient_clip_val; trainer.detect_anomaly=true finds"
    )
    with pytest.raises(RunError, match=message):
        train(compose(f"run_dir={tmp_path}", *SHORT, "callbacks.checkpoint.every_steps=1"))
    assert load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 7


@pytest.mark.parametrize(
    ("decay", "advice"),
    [
        (1000, "lower optimizer.weight_decay or optimizer.learning_rate: their product is 10, and above 3.8 "),
        (189, "lower optimizer.learning_rate or set trainer.gradient_clip_val"),
    ],
)
def test_weight_decay_is_named_where_it_alone_makes_weights_grow(decay, advice, compose, tmp_path, monkeypatch):
    spoil(monkeypatch, lambda loss: loss * float("inf"), (0, 0))
    with pytest.raises(RunError, match=advice):
        train(compose(f"run_dir={tmp_path}", *SHORT, f"optimizer.weight_decay={decay}"))


def test_no_learning_rate_is_advised_where_the_images_are_the_cause(compose, tmp_path, monkeypatch):
    apply = Transform.__call__

    def spoilt(*given: Any) -> Batch:
        batch = apply(*given)
        return batch._replace(images=batch.images / 0)

    monkeypatch.setattr(Transform, "__call__", spoilt)
    with pytest.raises(RunError, match=r"the images hold numbers that are not finite$"):
        train(compose(f"run_dir={tmp_path}", *SHORT))


def bad_gradient(loss: torch.Tensor) -> torch.Tensor:
    return loss + torch.sqrt(loss * 0)


def test_gradient_is_seen_one_step_later(compose, tmp_path, monkeypatch):
    spoil(monkeypatch, bad_gradient)
    with pytest.raises(RunError, match=r"is nan in step 9 .* the weights `.*` are not finite"):
        train(compose(f"run_dir={tmp_path}", *SHORT))


@pytest.mark.filterwarnings("ignore:(Anomaly Detection|Error detected)")
def test_anomaly_detection_digs_deeper(compose, tmp_path, monkeypatch):
    spoil(monkeypatch, bad_gradient)
    restored: list[bool] = []
    restore = EndAfterStep.on_exception
    monkeypatch.setattr(EndAfterStep, "on_exception", lambda *given: (restored.append(True), restore(*given)))
    with pytest.raises(RunError, match=r"a gradient is nan in step 8 \(epoch 2\).* Function 'MulBackward0' returned"):
        train(compose(f"run_dir={tmp_path}", *SHORT, "trainer.detect_anomaly=true"))
    assert restored == [True]  # later callbacks too


@pytest.fixture
def read_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are read as on a GPU: one step later, while the optimiser skips the step."""
    monkeypatch.setattr(finite_loss, "is_read_late", lambda trainer, loss: True)


@pytest.mark.usefixtures("read_late")
@pytest.mark.parametrize("words", [("optimizer=sgd",), ("optimizer=krizhevsky_sgd",), ("optimizer=adam",)])
def test_loss_that_is_read_late_leaves_the_weights_of_the_step_before(words, compose, tmp_path, monkeypatch):
    spoil(monkeypatch, lambda loss: loss * float("nan"))
    seen: list[tuple[int, torch.Tensor]] = []

    def keep(self: Classifier, trainer: Any, *_: Any) -> None:
        seen.append((trainer.global_step, weights_of(self)))

    monkeypatch.setattr(Classifier, "on_before_zero_grad", lambda self, _: keep(self, self.trainer))
    with pytest.raises(RunError, match=r"the training loss is nan in step 8 \(epoch 2\), at a learning rate of 0.01"):
        train(compose(f"run_dir={tmp_path}", *SHORT, *words, "optimizer.learning_rate=0.01"))
    last = {step: weights for step, weights in seen if step >= 7}
    assert list(last) == [7, 8]  # before step 8, which is bad, and before step 9, in which that is found
    assert torch.equal(last[7], last[8])


def weights_of(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).clone()


@pytest.mark.usefixtures("read_late")
def test_loss_that_is_read_late_is_in_no_checkpoint(compose, tmp_path, monkeypatch):
    spoil(monkeypatch, lambda loss: loss * float("inf"))
    with pytest.raises(RunError, match="the training loss is inf in step 8"):
        train(compose(f"run_dir={tmp_path}", *SHORT, "callbacks.checkpoint.every_steps=1"))
    assert load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 7


@pytest.mark.usefixtures("read_late")
@pytest.mark.parametrize("step", [(0, 4), (1, 4)])
def test_last_loss_of_an_epoch_is_read_before_validation(step, compose, tmp_path, monkeypatch):
    spoil(monkeypatch, lambda loss: loss * float("nan"), step)
    number = 5 * step[0] + 5
    with pytest.raises(RunError, match=rf"the training loss is nan in step {number} \(epoch {step[0] + 1}\)"):
        train(compose(f"run_dir={tmp_path}", *SHORT))


@pytest.mark.usefixtures("read_late")
def test_losses_that_are_read_late_change_no_bit(compose, tmp_path, monkeypatch):
    train(compose(f"run_dir={tmp_path / 'late'}", *SHORT))
    monkeypatch.undo()
    train(compose(f"run_dir={tmp_path / 'now'}", *SHORT))
    late, now = (load_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("late", "now"))
    assert all(torch.equal(late["state_dict"][name], value) for name, value in now["state_dict"].items())


@pytest.mark.parametrize(
    ("build", "skips"),
    [(lambda net: torch.optim.SGD(net.parameters(), fused=True), True),
     (lambda net: torch.optim.AdamW(net.parameters(), fused=True), True),
     (lambda net: torch.optim.SGD(net.parameters()), False),
     (lambda net: torch.optim.RMSprop(net.parameters()), False),
     (krizhevsky_sgd, True)],
)  # fmt: skip
def test_which_optimisers_skip_a_step_on_the_device(build, skips):
    net = nn.Linear(3, 2)
    optimizer = build(net)
    assert finite_loss.skips_on_device(optimizer) is skips
    if skips:
        before = weights_of(net)
        net(torch.ones(1, 3)).sum().backward()
        optimizer.found_inf = torch.ones(())
        optimizer.step()
        assert torch.equal(weights_of(net), before)
        optimizer.found_inf = torch.zeros(())
        optimizer.step()
        assert not torch.equal(weights_of(net), before)
