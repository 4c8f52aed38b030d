"""Gradient clipping with each optimiser and number format, through whole runs of three steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from commands import QUICK, call
from lightning import Trainer
from lightning.pytorch.plugins import MixedPrecision

from alexnet_lab.run import engine, launcher, train

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

LIMIT = 0.001

MIXED = ("bf16-mixed", "16-mixed")

SGD = {"_target_": "torch.optim.SGD", "lr": 1.0}
ADAMW = {"_target_": "torch.optim.AdamW", "lr": 0.01, "eps": 0.001}  # eps lets the size of a gradient matter


@pytest.fixture(autouse=True)
def _half_precision_on_a_processor(monkeypatch):
    """Lightning would take bfloat16 there, which needs no scaler: the plugin that it builds for GPUs works too."""

    def trainer(**settings: Any) -> Trainer:
        if settings["precision"] == "16-mixed":
            settings |= {"precision": None, "plugins": [*settings["plugins"], MixedPrecision("16-mixed", "cpu")]}
        return Trainer(**settings)

    monkeypatch.setattr(engine, "Trainer", trainer)
    monkeypatch.setattr(launcher, "check_precision", lambda *_: None)  # it refuses half precision without a GPU


def trained(
    compose: Any, run_dir: Path, precision: str, *overrides: str, optimizer: dict[str, Any] | None = None
) -> dict[str, Tensor]:
    """The weights after three clipped steps on the digits."""
    config = compose(
        f"run_dir={run_dir}", f"trainer.precision={precision}", f"trainer.gradient_clip_val={LIMIT}",
        "trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.limit_val_batches=1",
        "trainer.limit_test_batches=1", "trainer.accelerator=cpu", "schedule=constant", *overrides,
    )  # fmt: skip
    train(config if optimizer is None else config | {"optimizer": optimizer})
    return torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def distance(weights: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """The norm of all differences."""
    return sum(float((weights[name] - others[name]).double().square().sum()) for name in weights) ** 0.5


@pytest.mark.parametrize("precision", MIXED)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "krizhevsky_sgd", "diagonal_lm"])
def test_every_optimizer_clips_under_mixed_precision(compose, tmp_path, optimizer, precision):
    weights = trained(compose, tmp_path / "run", precision, f"optimizer={optimizer}")
    assert all(values.isfinite().all() for values in weights.values())


@pytest.mark.parametrize(("optimizer", "precision"), [(SGD, "bf16-mixed"), (SGD, "16-mixed"), (ADAMW, "16-mixed")])
def test_fused_and_plain_optimizers_clip_alike(compose, tmp_path, optimizer, precision):
    fused, plain = (
        trained(compose, tmp_path / str(fused), precision, optimizer=optimizer | {"fused": fused})
        for fused in (True, False)
    )
    for name, weights in fused.items():
        torch.testing.assert_close(weights, plain[name], rtol=1e-5, atol=1e-7)


def test_clipped_steps_are_as_long_as_the_limit(compose, tmp_path):
    fused = SGD | {"fused": True}
    standing = trained(compose, tmp_path / "standing", "32-true", optimizer=fused | {"lr": 0.0})
    for precision in ("32-true", *MIXED):
        weights = trained(compose, tmp_path / precision, precision, "trainer.limit_train_batches=1", optimizer=fused)
        assert distance(weights, standing) == pytest.approx(LIMIT, rel=1e-3)


def test_the_command_of_the_message_about_nan_works(digits_dir, tmp_path):
    outcome = call(
        train, "train", *QUICK, f"data.dir={digits_dir}", f"run_dir={tmp_path / 'run'}", "trainer.max_epochs=1",
        "trainer.limit_train_batches=2", "trainer.gradient_clip_val=0.5", "trainer.precision=bf16-mixed",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
