"""Any callback, logger and Trainer argument of Lightning: checked like our own, and really used."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from commands import call, compose_raw

import alexnet_lab
from alexnet_lab.config import check_train
from alexnet_lab.config.schema import LAUNCHER_OWNS, OUR_TRAINER_KEYS
from alexnet_lab.config.schema import Trainer as Section
from alexnet_lab.config.signatures import read_signature
from alexnet_lab.run import train

if TYPE_CHECKING:
    from pathlib import Path

LIGHTNING = "lightning.pytorch"
SHORT = (
    "data.batch_size=16", "trainer.num_threads=1", "callbacks.augmentation_preview=false", "trainer.progress_bar=false",
    "trainer.max_epochs=2", "trainer.limit_train_batches=5", "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=1",
)  # fmt: skip

OWN = """
import torch
from lightning.pytorch.callbacks import Callback

class Steps(Callback):
    def __init__(self, *, factor=1):
        self.factor, self.steps = factor, torch.zeros(2)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps[batch_idx % 2] += self.factor

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state_dict):
        self.steps = state_dict["steps"]
"""


def run(folder: Path, *words: str, logger: str = "csv") -> Path:
    outcome = call(train, "train", f"run_dir={folder}", f"logger={logger}", *SHORT, *words)
    assert outcome.code == 0, outcome.err
    return folder


def refused(*words: str) -> str:
    outcome = call(check_train, "train", "logger=csv", *words)
    assert outcome.code == 2, outcome.out
    assert outcome.err.count("\n") == 1
    return outcome.err


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture
def digits(digits_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_LAB_DATA", str(digits_dir))


# Callbacks


@pytest.mark.usefixtures("digits")
def test_a_callback_of_ones_own_runs_and_resumes_with_its_state(tmp_path, monkeypatch):
    (tmp_path / "own_callbacks.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = run(tmp_path / "run", "+callbacks.steps._target_=own_callbacks.Steps", "+callbacks.steps.factor=3")
    assert last(folder)["callbacks"]["Steps"]["steps"].tolist() == [18.0, 12.0]  # 3 and 2 batches, 2 epochs
    assert yaml.safe_load((folder / "config.yaml").read_text())["trusted_packages"] == ["own_callbacks"]
    resumed = ("trainer.max_epochs=3", "trusted_packages=[own_callbacks]")
    assert call(train, "train", f"resume={folder}", *resumed).code == 0
    assert last(folder)["callbacks"]["Steps"]["steps"].tolist() == [27.0, 18.0]


@pytest.mark.usefixtures("digits")
def test_weights_are_averaged(tmp_path):
    """Two words on the command line; the checkpoint holds the mean of the weights after each step."""
    plain = last(run(tmp_path / "plain"))["state_dict"]
    words = (f"+callbacks.ema._target_={LIGHTNING}.callbacks.WeightAveraging",
             "+metrics.f1._target_=torchmetrics.classification.MulticlassF1Score")  # fmt: skip
    folder = run(tmp_path / "averaged", *words)
    averaged = last(folder)
    assert all(torch.equal(averaged["current_model_state"][name], value) for name, value in plain.items())
    assert not any(torch.equal(averaged["state_dict"][name], value) for name, value in plain.items())
    images = torch.rand(4, 1, 8, 8)
    probabilities = alexnet_lab.load(str(folder)).predict(images)
    assert torch.equal(
        alexnet_lab.load(str(folder / "checkpoints" / "best.safetensors")).predict(images), probabilities
    )


def test_several_files_of_callbacks_at_once(tmp_path):
    configs = tmp_path / "more" / "callbacks"
    configs.mkdir(parents=True)
    (configs / "timed.yaml").write_text(
        f"defaults: [default]\ntimer: {{_target_: {LIGHTNING}.callbacks.Timer, interval: step}}\n"
    )
    found: list[Any] = []
    several = "callbacks=[early_stopping, timed, to_error]"
    words = (
        "--config-dir",
        str(tmp_path / "more"),
        several,
        "callbacks.to_error.error=0.5",
        "callbacks.timer.interval=epoch",
    )
    outcome = call(lambda raw: found.append(check_train(raw).model_dump()), "train", *words)
    assert outcome.code == 0, outcome.err
    callbacks = found[0]["callbacks"]
    assert callbacks["early_stopping"]["patience_epochs"] == 10
    assert (callbacks["to_error"]["error"], callbacks["timer"]["interval"]) == (0.5, "epoch")
    assert (callbacks["to_loss"], callbacks["checkpoint"]["every_minutes"]) == (None, 30.0)
    assert "there is no `callbacks=nothing`; allowed: cuda_graphs, default, early_stopping" in refused(
        "callbacks=[to_error,nothing]"
    )
    assert "`optimizer=[sgd,adam]`: a group takes the name of one of its files" in refused(
        "callbacks=[to_error]", "optimizer=[sgd,adam]"
    )


@pytest.mark.usefixtures("digits")
def test_a_run_resumes_with_several_files_of_callbacks(tmp_path):
    folder = run(tmp_path / "run", "callbacks=[to_error,to_loss]", "trainer.max_epochs=1")
    assert json.loads((folder / "result.json").read_text())["to_loss"]["loss"] == 1.0
    assert call(train, "train", f"resume={folder}", "trainer.max_epochs=2", "callbacks=[to_error,to_loss]").code == 0


def test_a_file_adds_a_callback(tmp_path):
    configs = tmp_path / "more" / "callbacks"
    configs.mkdir(parents=True)
    (configs / "timed.yaml").write_text(
        "defaults: [default]\n"
        f"timer: {{_target_: {LIGHTNING}.callbacks.Timer, duration: '00:00:10:00', interval: step}}\n"
    )
    found: list[Any] = []
    words = ("--config-dir", str(tmp_path / "more"), "callbacks=timed", "callbacks.timer.interval=epoch")
    assert call(lambda raw: found.append(check_train(raw).model_dump()), "train", *words).code == 0
    assert found[0]["callbacks"]["timer"]["interval"] == "epoch"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("+callbacks.x={patience: 1}",), "unknown key `callbacks.x`; allowed: augmentation_preview, checkpoint"),
        (("+callbacks.erly_stopping={}",), "unknown key `callbacks.erly_stopping`; did you mean `early_stopping`?"),
        (("callbacks.x._target_=a.B",), "to add a part, type +callbacks.x._target_=..."),
        (
            (f"+callbacks.x._target_={LIGHTNING}.callbacks.Timer", "+callbacks.x.durations=1"),
            "unknown key `callbacks.x.durations`; did you mean `duration`?",
        ),
        (
            (f"+callbacks.x._target_={LIGHTNING}.callbacks.WeightAveraging", "+callbacks.x.use_bufers=true"),
            "unknown key `callbacks.x.use_bufers`; did you mean `use_buffers`?",  # though it takes any keyword
        ),
        (
            (f"+callbacks.x._target_={LIGHTNING}.callbacks.WeightAveraging", "+callbacks.x.use_buffers=3"),
            "`callbacks.x.use_buffers` is 3 (int); allowed: boolean",
        ),
        ((f"+callbacks.x._target_={LIGHTNING}.callbacks.Timr",), "has no `Timr`; did you mean `Timer`?"),
        (("+callbacks.x._target_=3",), "`callbacks.x._target_` is 3; allowed: a dotted name"),
    ],
)  # fmt: skip
def test_a_callback_that_does_not_fit_is_refused(words, message):
    assert message in refused(*words)


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("+callbacks.x._target_=torch.nn.ReLU",), "no class derived from lightning.pytorch.callbacks.Callback"),
        ((f"+callbacks.x._target_={LIGHTNING}.callbacks.Timer", "+callbacks.x.duration=8"), "does not take these"),
        (
            ("logger=csv", f"+callbacks.x._target_={LIGHTNING}.callbacks.LearningRateMonitor"),
            "`callbacks.x`: Cannot use `LearningRateMonitor` callback with `Trainer` that has no logger",
        ),
        (
            ("logger=csv", f"+callbacks.x._target_={LIGHTNING}.callbacks.DeviceStatsMonitor"),
            "`callbacks.x`: Cannot use `DeviceStatsMonitor` callback with `Trainer(logger=False)`",
        ),
        (
            (f"+callbacks.x._target_={LIGHTNING}.callbacks.BackboneFinetuning",),
            "`callbacks.x`: The LightningModule should have a nn.Module `backbone` attribute",
        ),
        (
            (f"+callbacks.x={{_target_: {LIGHTNING}.callbacks.StochasticWeightAveraging, swa_lrs: 0.1}}",),
            "`callbacks.x` is a StochasticWeightAveraging: its average exists only after the last checkpoint",
        ),
        (
            (f"+callbacks.x={{_target_: {LIGHTNING}.callbacks.GradientAccumulationScheduler, scheduling: {{1: 2}}}}",),
            "`callbacks.x` is a GradientAccumulationScheduler: schedules and resuming need steps of one size",
        ),
        (
            (f"+callbacks.x._target_={LIGHTNING}.callbacks.WeightAveraging",
             f"+callbacks.y._target_={LIGHTNING}.callbacks.WeightAveraging"),
            "`callbacks.x` and `callbacks.y` are both a WeightAveraging",
        ),
    ],
)  # fmt: skip
def test_a_callback_that_cannot_be_built_is_refused_before_the_run_directory_is_made(words, message, tmp_path):
    outcome = call(train, "train", f"run_dir={tmp_path / 'run'}", "logger=csv", *SHORT, *words)
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    assert not (tmp_path / "run").exists()


# The Trainer


def test_every_argument_of_lightning_is_listed_refused_with_a_reason_or_passed_on():
    signature = read_signature("lightning.Trainer")
    assert signature is not None
    listed = set(Section.model_fields) - set(OUR_TRAINER_KEYS)
    assert listed | LAUNCHER_OWNS.keys() | {"enable_autolog_hparams"} == signature.fields.keys()
    config = check_train(compose_raw("logger=csv", "+trainer.enable_autolog_hparams=false"))
    assert config.trainer.model_extra == {"enable_autolog_hparams": False}
    assert "`trainer.enable_autolog_hparams` is 3 (int); allowed: boolean" in refused(
        "+trainer.enable_autolog_hparams=3"
    )


@pytest.mark.usefixtures("digits")
def test_validation_within_an_epoch_and_its_loggers_see_each_one(tmp_path):
    logged = (f"+logger.each._target_={LIGHTNING}.loggers.CSVLogger", "+logger.each.name=each")
    folder = run(tmp_path / "run", "trainer.val_check_interval=2", *logged)
    plain = run(tmp_path / "plain")
    with (folder / "each" / "version_0" / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row["val/loss"]] == [
            "2", "4", "5", "7", "9", "10",  # an epoch has five batches
        ]  # fmt: skip
    weights = last(plain)["state_dict"]
    assert all(torch.equal(weights[name], value) for name, value in last(folder)["state_dict"].items())
    once, more = (json.loads((run_dir / "result.json").read_text())["metrics"] for run_dir in (plain, folder))
    assert {name: value for name, value in more.items() if name.startswith("val/")} == {
        name: value for name, value in once.items() if name.startswith("val/")
    }


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (("trainer.max_steps=4", "trainer.val_check_interval=3"), ["3", "4"]),
        (("trainer.max_steps=7", "trainer.max_epochs=3"), ["5", "7"]),
        (  # the third step is the last batch of the epoch alone
            (
                "trainer.max_steps=3",
                "trainer.accumulate_grad_batches=2",
                "trainer.check_val_every_n_epoch=null",
                "trainer.val_check_interval=7",
            ),
            ["3"],
        ),
        (("trainer.max_steps=7", "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2"), ["7"]),
        (
            ("trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=7", "trainer.max_epochs=3"),
            ["7", "10", "14", "15"],
        ),
        (("trainer.check_val_every_n_epoch=2", "trainer.val_check_interval=5"), ["10"]),
    ],
)
def test_the_last_weights_are_validated(words, steps, tmp_path):
    logged = (f"+logger.each._target_={LIGHTNING}.loggers.CSVLogger", "+logger.each.name=each")
    folder = run(tmp_path / "run", *logged, *words)
    with (folder / "each" / "version_0" / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row["val/loss"]] == steps


@pytest.mark.usefixtures("digits")
def test_profiler_strategy_clipping_and_time(tmp_path):
    words = (
        "trainer.profiler=simple", "trainer.strategy=ddp", "trainer.gradient_clip_val=1e-4",
        "trainer.gradient_clip_algorithm=value", "trainer.num_sanity_val_steps=1", "optimizer.weight_decay=0.0",
        "optimizer.learning_rate=1.0", "schedule=constant", "optimizer.momentum=0.0", "trainer.max_epochs=1",
    )  # fmt: skip
    folder = run(tmp_path / "run", *words)
    assert "run_training_epoch" in (folder / "fit-profile.txt").read_text()
    before = last(folder)["state_dict"]["net.features.c1.bias"]
    after = last(run(tmp_path / "two", *words, "trainer.max_epochs=2"))["state_dict"]["net.features.c1.bias"]
    assert 0 < (after - before).abs().max() <= 5.1e-4  # five steps of at most 1e-4 in each number
    timed = run(tmp_path / "timed", "trainer.max_time='00:00:00:01'", "trainer.max_epochs=1000")
    assert json.loads((timed / "result.json").read_text())["status"] == "completed"
    again = call(train, "train", f"resume={timed}", "trainer.max_epochs=2000")
    assert again.code == 1
    assert "trainer.max_time=null" in again.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trainer.max_step=3",), "unknown key `trainer.max_step`; did you mean `max_steps`?"),
        (("+trainer.max_step=3",), "unknown key `trainer.max_step`; did you mean `max_steps`?"),
        (("trainer.plugins=[a]",), "`plugins` cannot be set: the launcher sets the environment"),
        (("trainer.strategy=ddp_spawn",), "`trainer.strategy` is ddp_spawn, which starts its own processes"),
        (("trainer.check_val_every_n_epoch=null",), "set it to a number of batches"),
        (("trainer.benchmark=true",), "set trainer.deterministic=false"),
        (("trainer.val_check_interval=1.5",), "`trainer.val_check_interval` is 1.5 (float)"),
        (("trainer.max_time=8h",), "a duration as days:hours:minutes:seconds, such as '00:08:30:00'"),
        (("trainer.profiler={}",), "`trainer.profiler` has no `_target_`"),
        (("trainer.profiler=simpel",), "`trainer.profiler` is 'simpel' (str); allowed: 'simple', 'advanced'"),
        (("trainer.gradient_clip_algorithm=norms",), "allowed: 'norm' or 'value'"),
        *(((f"+trainer.{name}=1",), f"`trainer.{name}` cannot be set: {why}") for name, why in LAUNCHER_OWNS.items()),
    ],
)
def test_an_argument_that_does_not_fit_is_refused(words, message):
    assert message in refused(*words)


# Loggers


@pytest.mark.usefixtures("digits")
def test_several_loggers_at_once(tmp_path):
    pytest.importorskip("tensorboard")
    words = (f"+logger.more._target_={LIGHTNING}.loggers.CSVLogger", "+logger.more.name=more")
    folder = run(tmp_path / "run", *words, "logger.mode=offline", logger="[wandb,csv,tensorboard]")
    assert list(folder.glob("wandb/offline-run-*"))
    assert list(folder.glob("tensorboard/events*"))
    assert (folder / "more" / "version_0" / "metrics.csv").is_file()


@pytest.mark.usefixtures("digits")
@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_keeps_the_metrics_in_a_local_store(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    words = (f"+logger.mlflow._target_={LIGHTNING}.loggers.MLFlowLogger", "+logger.mlflow.experiment_name=lab")
    folder = run(tmp_path / "run", *words, f"+logger.mlflow.tracking_uri='sqlite:///{tmp_path}/mlflow.db'")
    found = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [item for item in found.search_experiments() if item.name == "lab"]
    (one,) = found.search_runs([experiment.experiment_id])
    result = json.loads((folder / "result.json").read_text())
    assert one.data.metrics["test/loss"] == pytest.approx(result["metrics"]["test/loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("+logger.mode=offline",), "unknown key `logger.mode`"),
        (
            (f"+logger.x._target_={LIGHTNING}.loggers.MLFlowLogger", "+logger.x.experiment=a"),
            "`logger.x.experiment_name`?",
        ),
        (("logger=[wandb,nothing]",), "there is no `logger=nothing`; allowed: csv, tensorboard, wandb"),
        (("logger.x._target_=a.B",), "to add a part, type +logger.x._target_=..."),
    ],
)
def test_a_logger_that_does_not_fit_is_refused(words, message):
    assert message in refused(*words)
