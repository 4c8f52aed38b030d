"""Runs without a test set, with each epoch's checkpoint, and evaluated on their training images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from commands import QUICK, call, evaluated
from PIL import Image

from alexnet_lab.config import check_evaluate
from alexnet_lab.evaluation.evaluate import evaluate
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.evaluation.predict import predict
from alexnet_lab.run import tracking, train
from alexnet_lab.training.checkpoint_io import load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 images, without val/."""
    root = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        place = root / "train" / "abc"[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 80, (16, 16, 3)) + 80 * (np.arange(3) == number % 3)
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
    return root


def images_of(folder: Path, test_fraction: float = 0) -> tuple[str, ...]:
    return (
        "data=image_folder", f"data.root={folder}", f"data.dir={folder}", "data.stored_size=16", "data.image_size=16",
        f"data.test_fraction={test_fraction}", "data.val_fraction=0.1", "augment=none",
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(folder: Path, compose: Callable[..., dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs") / "untested"
    words = (
        "trainer.max_epochs=4", "callbacks.checkpoint.keep=2", "callbacks.checkpoint.monitor=null",
        "callbacks.train_set=true",
    )  # fmt: skip
    train(compose(f"run_dir={place}", *images_of(folder), *words))
    return place


def test_the_confusions_of_the_training_images_are_not_shown_as_the_tests(folder, compose, tmp_path, monkeypatch):
    shown: list[Any] = []
    monkeypatch.setattr(tracking, "show", lambda _, content: shown.append(content.args[2]))
    for fraction in (0, 0.1):
        words = (*images_of(folder, fraction), "callbacks.train_set=true", "trainer.max_epochs=1")
        train(compose(f"run_dir={tmp_path / str(fraction)}", *words))
    assert [counts and sum(map(sum, counts)) for counts in shown] == [None, 6]


def test_nothing_is_set_apart_and_nothing_is_tested(run):
    result = json.loads((run / "result.json").read_text())
    assert (result["num_train"], result["num_val"], result["num_test"]) == (54, 6, 0)
    assert result["status"] == "completed"
    assert not any(name.startswith("test/") for name in result["metrics"])
    assert "test/" not in (run / "metrics.csv").read_text()
    assert "there is no test set, and data.test_fraction=0 splits none off" in (run / "train.log").read_text()


def test_eval_names_the_splits_that_are_there(run):
    outcome = evaluated(f"run={run}")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "`split` is test, but run untested has no test images (data.test_fraction=0); " in outcome.err
    assert "set split=val or split=train" in outcome.err
    assert evaluated(f"run={run}", "split=val").code == 0


def test_the_latest_checkpoints_are_kept_by_epoch(run):
    kept = sorted(path.name for path in (run / "checkpoints").glob("epoch_*.ckpt"))
    assert kept == ["epoch_3.ckpt", "epoch_4.ckpt"]
    assert [load_checkpoint(run / "checkpoints" / name)["epoch"] for name in kept] == [2, 3]


def test_the_training_error_is_that_of_the_images_as_they_are(run):
    found = evaluate(check_evaluate({"run": str(run), "num_threads": 1, "split": "train"}))
    assert (found["images"], found["split"]) == (54, "train")
    assert set(found["metrics"]) == {"train/loss", "train/top1_error"}
    seen = predict(FinishedRun(str(run), num_threads=1), "train")
    wrong = (seen.logits.argmax(1) != seen.labels).float().mean()
    assert found["metrics"]["train/top1_error"] == pytest.approx(float(wrong))
    again = evaluate(check_evaluate({"run": str(run), "num_threads": 1, "split": "train"}))  # from kept predictions
    assert again["metrics"] == found["metrics"]
    assert (run / "eval" / "train_center.json").is_file()
    own = json.loads((run / "result.json").read_text())["metrics"]  # callbacks.train_set
    assert own["train_set/top1_error"] == pytest.approx(found["metrics"]["train/top1_error"])
    assert own["train_set/loss"] == pytest.approx(found["metrics"]["train/loss"], rel=1e-5)


def test_all_checkpoints_are_kept_and_a_resumed_run_keeps_on(digits_dir, compose, tmp_path):
    place = tmp_path / "run"
    words = ("trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1")
    train(compose(f"run_dir={place}", *words, "trainer.max_epochs=2", "callbacks.checkpoint.keep=all"))
    call(train, "train", f"resume={place}", "trainer.max_epochs=3")
    names = sorted(path.name for path in (place / "checkpoints").glob("epoch_*.ckpt"))
    assert names == ["epoch_1.ckpt", "epoch_2.ckpt", "epoch_3.ckpt"]


@pytest.mark.parametrize("value", ["0", "-1", "some", "1.5"])
def test_a_wrong_number_of_checkpoints_is_refused(value, tmp_path):
    words = (*QUICK, f"run_dir={tmp_path / 'run'}", f"callbacks.checkpoint.keep={value}")
    outcome = call(train, "train", *words)
    assert outcome.code == 2
    assert "`callbacks.checkpoint.keep` is " in outcome.err
    assert not (tmp_path / "run").exists()


def test_early_stopping_may_watch_the_training_loss_of_runs_without_validation(compose, tmp_path):
    """At a rate this small the loss only changes with the order of dropout-free batches: it stops after 2 epochs."""
    config = compose(
        f"run_dir={tmp_path / 'run'}", "data.val_fraction=0", "callbacks=early_stopping", "trainer.max_epochs=9",
        "callbacks.early_stopping.monitor=train/loss", "callbacks.early_stopping.patience_epochs=2",
        "callbacks.early_stopping.min_delta=1.0", "trainer.limit_train_batches=3", "trainer.limit_test_batches=1",
    )  # fmt: skip
    result = train(config)
    assert (result["status"], result["epochs"]) == ("completed", 3)  # the first is the best, two more are no better
    assert "early stopping after epoch 3: train/loss has not improved" in (tmp_path / "run" / "train.log").read_text()
