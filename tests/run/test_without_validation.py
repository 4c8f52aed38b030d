"""Runs that train on all training images: nothing is validated, and the last epoch is the result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from commands import QUICK, call, evaluated

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.run import train
from alexnet_lab.training.checkpoint_io import load_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

ALL = ("data.val_fraction=0", "trainer.max_epochs=2", "trainer.limit_train_batches=6")


@pytest.fixture(scope="module")
def run(compose, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "all"
    train(compose(f"run_dir={path}", *ALL, "optimizer.learning_rate=0.05"))
    return path


def test_all_training_images_are_trained_on_and_the_last_epoch_is_tested(run):
    result = json.loads((run / "result.json").read_text())
    assert (result["best_epoch"], result["epochs"]) == (2, 2)
    assert not any(name.startswith("val/") for name in result["metrics"])
    assert "val/" not in (run / "metrics.csv").read_text()
    last = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert last["epoch"] == load_checkpoint(run / "checkpoints" / "best.ckpt")["epoch"] == 1
    assert last["DigitsDataModule"]["num_train"] == 1797 - 359


def test_eval_refuses_the_validation_images_that_are_not_there(run, digits_dir):
    outcome = evaluated(f"run={run}", "split=val", f"data.dir={digits_dir}")
    assert outcome.code == 2
    assert (
        "`split` is val, but run all has no validation images (data.val_fraction=0); set split=test or split=train"
        in outcome.err
    )
    assert evaluated(f"run={run}", f"data.dir={digits_dir}").code == 0


@pytest.mark.parametrize("cause", ["data.val_fraction=0", "data.val_fraction=0.0", "trainer.limit_val_batches=0"])
@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("optimizer=krizhevsky_sgd", "schedule=plateau"), "`schedule` drops the rate by validation"),
        (("callbacks=early_stopping",), "`callbacks.early_stopping` stops by validation"),
        (("callbacks=pruning",), "`callbacks.pruning` compares trials by validation"),
        (("sweep.metric=val/loss",), "`sweep.metric` is val/loss"),
        (("sweep.tuned=seed",), "`sweep.tuned` is chosen by validation"),
    ],
)
def test_what_waits_for_validation_is_refused_before_anything_is_written(cause, words, key, tmp_path):
    outcome = call(train, "train", *QUICK, f"run_dir={tmp_path / 'run'}", cause, *words)
    assert outcome.code == 2
    wanted = cause.replace("0.0", "0")
    assert f"{key}, but `{wanted}` leaves nothing to validate; set {wanted.split('=')[0]} above 0" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [("trainer.limit_val_batches=0",), ("data.val_fraction=0",)])
def test_what_does_not_wait_for_validation_is_allowed(words, compose):
    assert compose(*words, "sweep.metric=train/loss", "sweep.tuned=seed", "callbacks.early_stopping=null")


@pytest.mark.parametrize("words", [("debug=fast",), ("debug=overfit", "trainer.max_epochs=1")])
def test_debug_runs_do_without_validation_too(words, compose, tmp_path):
    done = train(compose(f"run_dir={tmp_path / 'run'}", *words, "data.val_fraction=0"))
    assert done["status"] == "completed"
    assert not any(name.startswith("val/") for name in done["metrics"])


def test_without_a_monitor_the_last_epoch_is_the_best_though_it_is_validated(compose, tmp_path):
    words = ("trainer.max_epochs=3", "trainer.limit_train_batches=4", "optimizer.learning_rate=0.05", "schedule=step",
             "schedule.drop_epochs=[1]", "schedule.factor=1e-9")  # fmt: skip
    done: dict[str, Any] = train(compose(f"run_dir={tmp_path / 'run'}", *words, "callbacks.checkpoint.monitor=null"))
    assert done["best_epoch"] == 3
    assert "val/top1_error" in done["metrics"]


def test_a_validation_folder_steers_though_no_share_is_set_apart(compose):
    words = ("data=image_folder", "data.root=X", "data.num_classes=2", "model=alexnet", "data.val_fraction=0")
    steered = (*words, "data.val_folder=val", "data.test_folder=test", "optimizer=krizhevsky_sgd", "schedule=plateau")
    assert compose(*steered)["data"]["val_folder"] == "val"
    with pytest.raises(ConfigError, match=r"are both val, but nothing may be chosen on the test set"):
        compose(*words, "data.val_folder=val")


def test_pruning_without_a_monitor_is_refused(tmp_path):
    words = ("callbacks=pruning", "callbacks.checkpoint.monitor=null")
    outcome = call(train, "train", *QUICK, f"run_dir={tmp_path / 'run'}", *words)
    assert outcome.code == 2
    assert "`callbacks.pruning` compares trials by `callbacks.checkpoint.monitor`, which is null" in outcome.err
