"""`logger.every_steps`: loss, learning rate and gradient norm by step, in steps.csv and at W&B."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
import wandb_file
from commands import move_home

from alexnet_lab.base.errors import ConfigError, Interrupted
from alexnet_lab.run import step_log, train
from alexnet_lab.training import Classifier

if TYPE_CHECKING:
    from pathlib import Path

SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=6", "trainer.limit_val_batches=1", "schedule=constant")
NAMES = ("step/loss", "step/learning_rate", "step/gradient_norm")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    move_home(monkeypatch, tmp_path / "home")


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "steps.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def history(run: Path) -> list[dict[str, Any]]:
    """The rows of steps of all parts, in order."""
    parts = [wandb_file.read_file(path) for path in sorted(run.glob("wandb/offline-run-*/*.wandb"))]
    return [row for part in parts for row in part.history if "step/loss" in row]


@pytest.fixture(scope="module")
def each_step(compose, tmp_path_factory):
    """A run that logs every step, and the losses and gradient norms that its Classifier has seen."""
    run, seen = tmp_path_factory.mktemp("steps") / "run", []
    original, stepped = Classifier.training_step, Classifier.on_before_optimizer_step

    def training_step(self: Classifier, batch: Any, index: int) -> Any:
        loss = original(self, batch, index)
        seen.append([loss.item()])
        return loss

    def before_step(self: Classifier, optimizer: Any) -> None:
        norms = [weight.grad.norm() for weight in self.parameters() if weight.grad is not None]
        seen[-1].append(torch.stack(norms).norm().item())
        stepped(self, optimizer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setattr(Classifier, "training_step", training_step)
        patch.setattr(Classifier, "on_before_optimizer_step", before_step)
        words = ("logger=wandb", "logger.every_steps=1", "trainer.gradient_clip_val=0.01")
        train(compose(f"run_dir={run}", *SHORT, *words))
    return run, seen


def test_each_step_has_its_loss_rate_and_gradient_norm(each_step):
    run, seen = each_step
    logged = rows(run)
    assert [row["step"] for row in logged] == list(range(1, 13))
    assert [row["epoch"] for row in logged] == pytest.approx([step / 6 for step in range(1, 13)], abs=1e-4)
    assert [[row["step/loss"], row["step/gradient_norm"]] for row in logged] == [
        pytest.approx(pair, rel=1e-5) for pair in seen
    ]
    assert {row["step/learning_rate"] for row in logged} == {logged[0]["step/learning_rate"]}
    assert logged[0]["step/learning_rate"] > 0


def test_wandb_has_the_same_rows_at_the_same_places(each_step):
    run, _ = each_step
    found = wandb_file.read(run)
    steps = [row for row in found.history if "step/loss" in row]
    assert [row["_step"] for row in steps] == [row["trainer/global_step"] for row in steps] == list(range(1, 13))
    assert [[row[name] for name in NAMES] for row in steps] == [
        pytest.approx([row[name] for name in NAMES], rel=1e-6) for row in rows(run)
    ]
    assert [row["_step"] for row in found.history if "val/loss" in row] == [6, 12]  # as without every_steps
    assert {name: found.metrics[name] for name in NAMES} == dict.fromkeys(NAMES, "trainer/global_step")


def test_accumulated_batches_are_one_step(compose, tmp_path):
    """Two batches of 8 take the steps of one batch of 16."""
    words = (*SHORT, "logger=csv", "logger.every_steps=2", "augment=none")
    train(compose(f"run_dir={tmp_path / 'one'}", *words, "data.batch_size=16"))
    more = ("data.batch_size=8", "trainer.accumulate_grad_batches=2", "trainer.limit_train_batches=12")
    train(compose(f"run_dir={tmp_path / 'two'}", *words, *more))
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [row["step"] for row in two] == [2, 4, 6, 8, 10, 12]
    assert [list(row.values()) for row in two] == [pytest.approx(list(row.values()), rel=1e-4) for row in one]


def test_processes_together_log_one_row(compose, tmp_path):
    words = (*SHORT, "logger=csv", "logger.every_steps=3", "trainer.accelerator=cpu")
    train(compose(f"run_dir={tmp_path / 'one'}", *words))
    train(compose(f"run_dir={tmp_path / 'two'}", *words, "trainer.devices=2"))
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [row["step"] for row in two] == [3, 6, 9, 12]
    assert [list(row.values()) for row in two] == [pytest.approx(list(row.values()), rel=1e-4) for row in one]


def test_a_resumed_run_has_each_step_once(compose, tmp_path, monkeypatch):
    words = (*SHORT, "logger.every_steps=2", "callbacks.checkpoint.every_steps=7")
    train(compose(f"run_dir={tmp_path / 'whole'}", *words, "logger=csv"))
    run, original = tmp_path / "run", Classifier.training_step

    def interrupted(self: Classifier, batch: Any, index: int) -> Any:
        if self.trainer.global_step == 9:
            raise KeyboardInterrupt
        return original(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", interrupted)
        with pytest.raises(Interrupted):
            train(
                compose(
                    f"run_dir={run}",
                    *words,
                    "logger=wandb",
                    "logger.every_steps=2",
                    "callbacks.checkpoint.every_steps=7",
                )
            )
    with (run / "steps.csv").open("a") as file:
        file.write("10,1.6667,2.3,0.01,1.5\n12,1.9")  # as a killed run may leave it
    train({"resume": str(run)})
    assert (run / "steps.csv").read_text() == (tmp_path / "whole" / "steps.csv").read_text()
    places = {row["_step"]: [row[name] for name in NAMES] for row in history(run)}
    assert sorted(places) == [2, 4, 6, 8, 10, 12]
    assert list(places.values()) == [pytest.approx([row[name] for name in NAMES]) for row in rows(run)]


def test_histograms_of_gradients(compose, tmp_path):
    run = tmp_path / "run"
    train(compose(f"run_dir={run}", *SHORT, "logger=wandb", "logger.watch=all", "logger.every_steps=4"))
    logged = history(run)
    assert [row["_step"] for row in logged] == [4, 8, 12]
    for row in logged:
        assert sum(row["gradients/features.c1.weight.values"]) == 6 * 25
        assert sum(row["parameters/classifier.output.bias.values"]) == 10
        edges = row["gradients/features.c1.weight.bins"]
        assert edges == sorted(edges)
        assert len(edges) == step_log.BINS + 1


def test_a_histogram_counts_finite_values():
    counts, edges = step_log.histogram(torch.tensor([1.0, 2.0, math.nan, math.inf]))
    assert (counts.sum().item(), edges[0].item(), edges[-1].item()) == (2.0, 1.0, 2.0)
    counts, edges = step_log.histogram(torch.zeros(5))
    assert (counts.sum().item(), edges[0].item(), edges[-1].item()) == (5.0, -0.5, 0.5)
    assert step_log.histogram(torch.tensor([math.nan]))[0].sum() == 0


def test_nothing_without_it(digits_run, typed):
    assert not (digits_run / "steps.csv").exists()
    for words in (("logger=csv",), ("logger=wandb",), ("logger=[wandb,tensorboard]",)):
        assert step_log.step_log(typed(*words), digits_run / "steps.csv") is None
    assert typed("logger=csv").logger is None


def test_several_loggers_share_the_smallest_interval(typed, tmp_path):
    config = typed("logger=[wandb,tensorboard]", "logger.every_steps=50", "logger.tensorboard.every_steps=20")
    callback = step_log.step_log(config, tmp_path)
    assert callback is not None
    assert (callback.every, callback.watched) == (20, None)
    watched = step_log.step_log(typed("logger=wandb", "logger.watch=gradients"), tmp_path)
    assert watched is not None
    assert (watched.every, watched.watched) == (100, "gradients")


WRONG = {"every_steps=0": "csv", "every_steps=1.5": "wandb", "every_step=5": "csv", "watch=everything": "wandb"}


@pytest.mark.parametrize(("key", "logger"), WRONG.items())
def test_wrong_values_are_refused(compose, key, logger):
    with pytest.raises(ConfigError, match=f"logger.{key.split('=')[0]}`"):
        compose(f"logger={logger}", f"+logger.{key}" if key == "every_step=5" else f"logger.{key}")
