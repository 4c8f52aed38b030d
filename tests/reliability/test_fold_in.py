"""`resume=RUN data.val_fraction=0`: a finished run trains on its validation images too."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import call
from endings import assert_same_ending

from alexnet_lab.base.errors import Interrupted, RunError
from alexnet_lab.run import train
from alexnet_lab.run.request import requested
from alexnet_lab.training import Classifier
from alexnet_lab.training.checkpoint_io import load_checkpoint

BEFORE, AFTER = 11, 15  # steps of an epoch: 1,007 and 1,438 images in batches of 100
FOLD: dict[str, Any] = {"data.val_fraction": 0, "trainer.max_epochs": 4}
FIELDS = ("data.val_fraction=0.3", "data.batch_size=100", "schedule=step", "schedule.drop_epochs=[3]",
          "callbacks.checkpoint.every_steps=4", "trainer.max_epochs=2")  # fmt: skip


@pytest.fixture(scope="module")
def run_of_two_epochs(compose, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "finished"
    train(compose(*FIELDS, f"run_dir={path}"))
    return path


@pytest.fixture
def done(run_of_two_epochs: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of two epochs."""
    return Path(shutil.copytree(run_of_two_epochs, tmp_path / "run"))


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def interrupt(monkeypatch: pytest.MonkeyPatch, epoch: int, batch: int) -> None:
    """Ctrl-C in an epoch, counted from 0."""
    original = Classifier.training_step

    def step(self: Classifier, images: Any, index: int) -> Any:
        if (self.current_epoch, index) == (epoch, batch):
            raise KeyboardInterrupt
        return original(self, images, index)

    monkeypatch.setattr(Classifier, "training_step", step)


def test_validation_images_are_trained_on_and_the_schedule_counts_epochs(done, capsys, monkeypatch):
    seen: list[int] = []
    original = Classifier.training_step

    def step(self: Classifier, batch: Any, index: int) -> Any:
        seen.extend(batch.indices.tolist())
        return original(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", step)
    before = [row["val/top1_error"] for row in rows(done)]
    train({"resume": str(done), "changes": FOLD})
    assert sorted(seen[:1438]) == sorted(seen[1438:]) == sorted(set(seen))
    assert len(set(seen)) == 1438
    result = json.loads((done / "result.json").read_text())
    assert (result["num_train"], result["num_val"], result["num_test"]) == (1438, 0, 359)
    assert (result["epochs"], result["steps"], result["best_epoch"]) == (4, 2 * BEFORE + 2 * AFTER, 4)
    assert [row["val/top1_error"] for row in rows(done)] == [*before, "", ""]
    rates = [float(row["learning_rate"]) for row in rows(done)]  # of the step after the epoch
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001])
    best, last = (load_checkpoint(done / "checkpoints" / f"{name}.ckpt")["global_step"] for name in ("best", "last"))
    assert best == last == result["steps"]
    printed = capsys.readouterr().err
    assert "data.val_fraction: 0.3 -> 0" in printed
    assert "the validation images are trained on too, the last epoch is the result" in printed


def test_killed_after_the_fold_it_ends_as_if_it_had_not_been(done, tmp_path, monkeypatch):
    whole = Path(shutil.copytree(done, tmp_path / "whole"))
    train({"resume": str(whole), "changes": FOLD})
    for epoch, batch in ((2, 0), (2, 13), (3, 2)):  # before the first new checkpoint, and after others
        interrupt(monkeypatch, epoch, batch)
        with pytest.raises(Interrupted):
            train({"resume": str(done), "changes": FOLD if batch == 0 else {}})
        monkeypatch.undo()
    train({"resume": str(done)})
    for run in (done, whole):  # the same but for times
        record = json.loads((run / "result.json").read_text())
        record["history"][0].pop("wall_seconds")
        (run / "result.json").write_text(json.dumps(record))
    assert_same_ending(done, whole)


def test_not_within_an_epoch(compose, tmp_path, monkeypatch):
    run = tmp_path / "run"
    interrupt(monkeypatch, 1, 6)
    with pytest.raises(Interrupted):
        train(compose(*FIELDS, f"run_dir={run}"))
    monkeypatch.undo()
    words = r"`data.val_fraction` can only become 0 between epochs, .* within one \(epoch 2, step 16\); finish the run"
    with pytest.raises(RunError, match=words):
        train({"resume": str(run), "changes": FOLD})
    assert train({"resume": str(run)})["epochs"] == 2


def test_run_that_ended_within_an_epoch_is_trained_to_the_end_of_one_first(compose, tmp_path):
    run = tmp_path / "run"
    train(compose(*FIELDS, f"run_dir={run}", "trainer.max_steps=16"))
    words = r"within one \(epoch 2, step 16\); to train it further: .* trainer.max_epochs=4 trainer.max_steps=-1$"
    with pytest.raises(RunError, match=words):
        train({"resume": str(run), "changes": FOLD | {"trainer.max_steps": -1}})
    train({"resume": str(run), "changes": {"trainer.max_epochs": 4, "trainer.max_steps": -1}})
    assert train({"resume": str(run), "changes": {"data.val_fraction": 0, "trainer.max_epochs": 5}})["epochs"] == 5


def test_more_epochs_have_to_be_asked_for(done):
    with pytest.raises(RunError, match=r"`trainer.max_epochs` is 2, which the run has done; set it to more than 2"):
        train({"resume": str(done), "changes": {"data.val_fraction": 0}})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("data.val_fraction=0.1",),
            "`data.val_fraction` is 0.3 in the run and cannot become 0.1: it can only become 0",
        ),
        (("data.val_seed=1",), "`data.val_seed` is 123 in the run and cannot become 1: that would be another experim"),
        (
            ("data.val_fraction=0", "callbacks=early_stopping"),
            "`callbacks.early_stopping` stops by validation, but `data.val_fraction=0` leaves nothing to validate",
        ),
    ],
)
def test_other_changes_of_the_split_are_refused(run_of_two_epochs, words, message):
    outcome = call(requested, "train", f"resume={run_of_two_epochs}", *words)
    assert outcome.code == 2
    assert message in outcome.err
