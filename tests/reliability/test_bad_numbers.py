"""A loss or a gradient that is no number ends the run at that step, and the message says where it began."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from alexnet_lab.base.errors import RunError
from alexnet_lab.run import train
from alexnet_lab.training import Classifier
from alexnet_lab.training.checkpoint_io import load_checkpoint
from alexnet_lab.training.finite_loss import first_not_finite

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


def spoil(monkeypatch: pytest.MonkeyPatch, spoiled: Any) -> None:
    """Changes the loss of the third step of the second epoch."""
    original = Classifier.training_step

    def step(self: Classifier, batch: Any, index: int) -> torch.Tensor:
        loss = original(self, batch, index)
        return spoiled(loss) if (self.current_epoch, index) == (1, 2) else loss

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


def bad_gradient(loss: torch.Tensor) -> torch.Tensor:
    return loss + torch.sqrt(loss * 0)


def test_gradient_is_seen_one_step_later(compose, tmp_path, monkeypatch):
    spoil(monkeypatch, bad_gradient)
    with pytest.raises(RunError, match=r"is nan in step 9 .* the weights `.*` are not finite"):
        train(compose(f"run_dir={tmp_path}", *SHORT))


@pytest.mark.filterwarnings("ignore:(Anomaly Detection|Error detected)")
def test_anomaly_detection_digs_deeper(compose, tmp_path, monkeypatch):
    spoil(monkeypatch, bad_gradient)
    with pytest.raises(RunError, match=r"a gradient is nan in step 8 \(epoch 2\).* Function 'MulBackward0' returned"):
        train(compose(f"run_dir={tmp_path}", *SHORT, "trainer.detect_anomaly=true"))
