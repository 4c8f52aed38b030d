"""Metrics of torchmetrics from the config: the same for any number of processes, after a resume, and as a monitor."""

from __future__ import annotations

import csv
import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from commands import refused
from torchmetrics.classification import MulticlassAUROC, MulticlassF1Score

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.run import train
from alexnet_lab.training.checkpoint_io import load_checkpoint
from alexnet_lab.training.classifier import EXTRA
from alexnet_lab.training.extra_metrics import ExtraMetrics
from alexnet_lab.training.metrics import ErrorCounts

if TYPE_CHECKING:
    from pathlib import Path

F1 = {"_target_": "torchmetrics.classification.MulticlassF1Score", "num_classes": 4}
AUROC = {"_target_": "torchmetrics.classification.MulticlassAUROC", "num_classes": 4}
ACCURACY = {"_target_": "torchmetrics.classification.MulticlassAccuracy", "num_classes": 4, "average": "micro"}

WORDS = (
    "+metrics.f1._target_=torchmetrics.classification.MulticlassF1Score",
    "+metrics.accuracy={_target_:torchmetrics.Accuracy,task:multiclass,average:micro}",
    "+metrics.auroc._target_=torchmetrics.classification.MulticlassAUROC",
    "trainer.accelerator=cpu", "data.batch_size=18",
)  # fmt: skip


def some(images: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(images)
    return torch.randn(images, 4, generator=generator), torch.randint(0, 4, (images,), generator=generator)


def metrics() -> ExtraMetrics:
    return ExtraMetrics({"f1": F1, "auroc": AUROC, "accuracy": ACCURACY}, 4)


def test_values_are_those_of_torchmetrics():
    logits, labels = some(50)
    found, counts = metrics(), ErrorCounts(4)
    for part in (slice(0, 20), slice(20, 20), slice(20, 50)):
        found.update(logits[part], labels[part])
        counts.update(logits[part], labels[part], labels[part].float())
    values = found.compute()
    assert values == found.compute()  # reading changes nothing
    assert float(values["f1"]) == pytest.approx(float(MulticlassF1Score(4)(logits, labels)))
    assert float(values["auroc"]) == pytest.approx(float(MulticlassAUROC(4)(logits.softmax(1), labels)))
    assert float(values["accuracy"]) == pytest.approx(1 - float(counts.compute()["top1_error"]))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_states_of_several_processes_are_one(processes):
    """A checkpoint of some processes is continued by one, with parts of unequal size, also without an image."""
    logits, labels = some(40)
    parts = [slice(0, 0), slice(0, 25), slice(25, 40)][3 - processes :] if processes > 1 else [slice(0, 40)]
    parts = [slice(0, 25), slice(25, 40)] if processes == 2 else parts
    each = [metrics() for _ in parts]
    for one, part in zip(each, parts, strict=True):
        one.update(logits[part], labels[part])
    whole, together = metrics(), metrics()
    whole.update(logits, labels)
    together.restore([one.state() for one in each])
    assert together.compute() == whole.compute()
    together.update(logits, labels)
    whole.update(logits, labels)
    assert together.compute() == whole.compute()


def test_new_metric_begins_at_the_end_of_an_epoch():
    before, after = ExtraMetrics({"f1": F1}, 4), metrics()
    after.restore([before.state()])
    assert all(torch.isnan(value) for value in after.compute().values())
    before.update(*some(8))
    with pytest.raises(ConfigError, match=r"`metrics.auroc` is not in this checkpoint, .* at the end of an epoch"):
        after.restore([before.state(), before.state()])


def test_without_an_image_there_is_no_value():
    found = metrics()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(torch.isnan(value) for value in found.compute().values())
    assert ExtraMetrics({}, 4).compute() == {}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def one_run(compose: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("metrics") / "one"
    words = ("trainer.max_epochs=2", "trainer.limit_train_batches=6", "callbacks.checkpoint.every_steps=4")
    train(compose(*WORDS, *words, f"run_dir={folder}", "callbacks.checkpoint.monitor=val/f1"))
    return folder


def test_they_are_in_the_tables_and_choose_the_best_epoch(one_run):
    result = json.loads((one_run / "result.json").read_text())
    for stage in ("train", "val", "test"):
        assert {f"{stage}/f1", f"{stage}/accuracy", f"{stage}/auroc"} <= result["metrics"].keys()
        error = result["metrics"][f"{stage}/top1_error"]
        assert result["metrics"][f"{stage}/accuracy"] == pytest.approx(1 - error, abs=1e-6)
    epochs = rows(one_run)
    best = max(epochs, key=lambda row: (float(row["val/f1"]), int(row["epoch"])))
    assert int(best["epoch"]) == result["best_epoch"]
    assert result["metrics"]["val/f1"] == float(best["val/f1"])
    state = load_checkpoint(one_run / "checkpoints" / "last.ckpt")["callbacks"]["Checkpoints"]
    assert state["best_score"] == pytest.approx(-float(best["val/f1"]))


def test_two_processes_measure_the_same(one_run, compose, tmp_path):
    words = ("trainer.max_epochs=2", "trainer.limit_train_batches=6", "trainer.devices=2")
    train(compose(*WORDS, *words, f"run_dir={tmp_path / 'two'}"))
    for alone, shared in zip(rows(one_run), rows(tmp_path / "two"), strict=True):
        for name in alone:
            if name.endswith(("/f1", "/accuracy", "/auroc")):
                assert float(shared[name]) == pytest.approx(float(alone[name]), abs=1e-6)


def test_a_resume_within_an_epoch_measures_the_whole_epoch(one_run, compose, tmp_path):
    class Stop(Exception):  # noqa: N818 - no error
        pass

    def stop(*_: Any) -> None:
        raise Stop

    from alexnet_lab.training.checkpoints import Checkpoints

    folder = tmp_path / "again"
    words = ("trainer.max_epochs=2", "trainer.limit_train_batches=6", "callbacks.checkpoint.every_steps=4")
    with pytest.MonkeyPatch.context() as patch:
        written = Checkpoints._write_last
        patch.setattr(Checkpoints, "_write_last", lambda *given: (written(*given), stop()))
        with pytest.raises(Exception, match="Stop"):
            train(compose(*WORDS, *words, f"run_dir={folder}", "callbacks.checkpoint.monitor=val/f1"))
    assert load_checkpoint(folder / "checkpoints" / "last.ckpt")[EXTRA][0]["images"] == 4 * 18
    train({"resume": str(folder)})
    volatile = {"images_per_second"}
    for before, after in zip(rows(one_run), rows(folder), strict=True):
        assert {key: before[key] for key in before.keys() - volatile} == {
            key: after[key] for key in after.keys() - volatile
        }


REFUSED = {
    "+metrics.f1._target_=torchmetrics.classification.MulticlassF1Scor": "has no `MulticlassF1Scor`; did you mean",
    "+metrics.f1._target_=torchmetrics.classification.MulticlassF1Score +metrics.f1.averag=micro":
        "unknown key `metrics.f1.averag`; did you mean `average`?",
    "+metrics.f1._target_=torchmetrics.classification.MulticlassF1Score +metrics.f1.average=none": "gives (10,), but",
    "+metrics.f1._target_=torchmetrics.classification.MulticlassF1Score +metrics.f1.average=x": "`metrics.f1",
    "+metrics.f1._target_=torchmetrics.classification.MulticlassF1Score +metrics.f1.num_classes=3": "`metrics.f1`: ",
    "+metrics.c._target_=torchmetrics.classification.MulticlassConfusionMatrix": "gives (10, 10), but a metric is one",
    "+metrics.b._target_=torchmetrics.classification.BinaryF1Score": "`metrics.b`: torchmetrics.classification.Binary",
    "+metrics.loss._target_=torchmetrics.classification.MulticlassF1Score": "`metrics.loss`: the name has to be a word",
    "+metrics.x._target_=torch.nn.Linear": "which is no class derived from torchmetrics.Metric",
    "+metrics.x=3": "unknown key `metrics.x`; ",
    "callbacks.checkpoint.monitor=val/f1": "`callbacks.checkpoint.monitor` is val/f1, which nothing measures; ",
    "callbacks.checkpoint.monitor=test/f1": "allowed: 'val/loss', 'val/top1_error' or 'val/top5_error' or val/NAME",
    "callbacks=early_stopping callbacks.early_stopping.monitor=val/f1": "`callbacks.early_stopping.monitor` is val/f1",
    "+metrics.f1._target_=torchmetrics.Metric": "`metrics.f1`",
    "+metrics.e._target_=torchmetrics.classification.MulticlassStatScores callbacks.checkpoint.monitor=val/e": "`",
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_no_metric_is_refused_before_anything_is_written(words, digits_dir, tmp_path):
    error = refused(*words.split(), f"data.dir={digits_dir}", run_dir=tmp_path / "run")
    assert REFUSED[words] in error
    assert len(error.strip().splitlines()) == 1


def test_early_stopping_and_plateau_follow_a_rising_metric(compose, tmp_path):
    """Steps too small to change anything: no epoch is better than the first."""
    words = ("callbacks=early_stopping", "callbacks.early_stopping.monitor=val/f1", "schedule=plateau",
             "callbacks.early_stopping.patience_epochs=2", "schedule.monitor=val/f1", "schedule.patience_epochs=1",
             "schedule.lower_biases=false", "optimizer=krizhevsky_sgd", "optimizer.learning_rate=1e-6",
             "trainer.max_epochs=8", "trainer.limit_train_batches=2")  # fmt: skip
    train(compose(*WORDS, *words, f"run_dir={tmp_path / 'run'}"))
    found = rows(tmp_path / "run")
    assert [float(row["learning_rate"]) for row in found] == pytest.approx([1e-6, 1e-7, 1e-8])
