"""Parts of one's own package, and of others, by `_target_`: trusted by the command, everywhere that a run goes."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest
import yaml
from commands import QUICK, finished, forked

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.run import train, worker

if TYPE_CHECKING:
    from pathlib import Path

PARTS = """
import torch
from lightning import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from alexnet_lab.data.augment import Augment
from alexnet_lab.models import LeNet5
from alexnet_lab.training.schedules import step

class Net(LeNet5):
    pass

class Shifts(Augment):
    pass

class Loss(nn.CrossEntropyLoss):
    def __init__(self, label_smoothing=0.0):
        super().__init__(reduction="none", label_smoothing=label_smoothing)

class Data(LightningDataModule):
    def __init__(self, num_classes, channels, image_size, batch_size, seed, augment):
        super().__init__()
        size = (2 * batch_size, channels, image_size, image_size)
        labels = torch.arange(2 * batch_size) % num_classes
        self.loader = DataLoader(TensorDataset(torch.rand(size), labels), batch_size)

    def train_dataloader(self):
        return self.loader

    val_dataloader = test_dataloader = train_dataloader

def schedule(optimizer, duration, *, drop_epochs, factor=0.5):
    return step(optimizer, duration, drop_epochs=drop_epochs, factor=factor)


def halved(optimizer, duration):
    import torch
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)


def no_schedule(optimizer, duration):
    return {}

def optimizer_of(net, *, lr):
    import torch
    return torch.optim.SGD(net.parameters(), lr=lr)

def wrong(net):
    return [net]
"""

OWN = ("model._target_=own_parts.Net", "augment._target_=own_parts.Shifts", "loss._target_=own_parts.Loss")
SHORT = (*QUICK, "trainer.max_epochs=1", "trainer.limit_train_batches=2", "callbacks.checkpoint.every_minutes=null")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path with the modules `own_parts` and `broken_parts`."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "own_parts.py").write_text(PARTS)
    (folder / "broken_parts.py").write_text("class Net:\n    pass\n\n1 / 0\n")
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.mark.timeout(900)  # four commands
def test_sweep_in_worker_processes_resumes_and_so_does_one_of_its_runs(packages, digits_dir, tmp_path):
    """The trust of the command reaches the jobs, their workers and resumed runs; a later command decides again."""
    words = (*SHORT, *OWN, f"data.dir={digits_dir}", "launcher.workers=true", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    start = {"cwd": tmp_path, "PYTHONPATH": str(packages)}
    outcome = finished(forked("train.py", "-m", "seed=0,1", *words, **start))
    assert outcome.code == 0, outcome.err
    (tmp_path / "sweep" / "seed-1" / "result.json").unlink()
    ledger = tmp_path / "sweep" / "ledger.jsonl"
    ledger.write_text(ledger.read_text().splitlines()[0] + "\n")
    outcome = finished(forked("train.py", "-m", "seed=0,1", *words, **start))
    assert outcome.code == 0, outcome.err
    assert [json.loads(line)["job"] for line in ledger.read_text().splitlines()] == ["seed-0", "seed-1"]

    run = tmp_path / "sweep" / "seed-1"
    assert yaml.safe_load((run / "config.yaml").read_text())["trusted_packages"] == ["own_parts"]
    outcome = finished(forked("eval.py", f"run={run}", **start))
    assert outcome.code == 2
    assert "`_target_: own_parts.Net` is outside the trusted packages" in outcome.err
    assert "add 'trusted_packages=[own_parts]' to the command" in outcome.err
    outcome = finished(forked("eval.py", f"run={run}", "trusted_packages=[own_parts]", **start))
    assert outcome.code == 0, outcome.err


@pytest.mark.usefixtures("packages")
def test_classes_of_torch_and_lightning_and_functions_of_ones_own(compose, tmp_path):
    config = compose(*SHORT, f"run_dir={tmp_path / 'run'}", "seed=1", "trainer.max_epochs=3")
    config["optimizer"] = {"_target_": "torch.optim.SGD", "lr": 0.125}
    config["schedule"] = {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 1, "gamma": 0.5}
    config["logger"] = {"_target_": "lightning.pytorch.loggers.CSVLogger", "name": "csv"}
    train(config)
    with (tmp_path / "run" / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert len(rows) == 3
    config["optimizer"] = {"_target_": "own_parts.optimizer_of", "lr": 0.1}
    config["schedule"] = {"_target_": "own_parts.schedule", "drop_epochs": [1]}
    assert train(config | {"run_dir": str(tmp_path / "two"), "logger": None})["epochs"] == 3
    config["schedule"] = {"_target_": "own_parts.halved"}
    train(config | {"run_dir": str(tmp_path / "three"), "logger": None})
    with (tmp_path / "three" / "metrics.csv").open() as file:
        assert [float(row["learning_rate"]) for row in csv.DictReader(file)] == pytest.approx([0.05, 0.025, 0.0125])


@pytest.mark.usefixtures("packages")
def test_data_module_without_class_names_trains_and_is_tested(compose, tmp_path):
    config = compose(*SHORT, f"run_dir={tmp_path / 'run'}", "callbacks.augmentation_preview=true")
    config["data"] = {"_target_": "own_parts.Data", "num_classes": 10, "channels": 1, "image_size": 28, "batch_size": 8}
    assert train(config)["metrics"]["test/top1_error"] <= 1
    assert worker.class_names(object(), 3) == ["0", "1", "2"]


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    ("group", "spec", "message"),
    [
        ("optimizer", {"_target_": "torch.optim.SGD", "lr": -1.0}, "does not take these fields: Invalid learning rate"),
        ("optimizer", {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}, "no class derived from"),
        ("schedule", {"_target_": "torch.optim.lr_scheduler.StepLR", "gamma": 0.5}, "missing 1 required positional"),
        ("schedule", {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}, "set schedule=plateau"),
        ("schedule", {"_target_": "own_parts.no_schedule"}, "whose dictionary has no `scheduler`; allowed: "),
        (
            "loss",
            {"_target_": "own_parts.Loss", "label_smoothing": 2.0},
            "fails on logits .* RuntimeError: label_",
        ),
        ("loss", {"_target_": "torch.nn.NLLLoss"}, r"gives the shape \(\) for 2 images; .*\+loss\.reduction=none"),
        ("loss", {"_target_": "own_parts.Net"}, "forward.. takes 2 positional arguments but 3 were given"),
        ("logger", {"_target_": "own_parts.Net"}, "no class derived from lightning.pytorch.loggers.Logger"),
        ("augment", {"_target_": "own_parts.Net"}, "gives a Net, not an alexnet_lab.data.augment.Augment"),
        ("model", {"_target_": "own_parts.wrong", "net": 1}, "gives a list, not a torch.nn.Module"),
        ("model", {"_target_": "own_parts.missing"}, "`_target_: own_parts.missing` does not exist"),
        (
            "model",
            {"_target_": "broken_parts.Net"},
            "importing broken_parts raises ZeroDivisionError",
        ),
    ],
)
def test_part_that_does_not_fit_is_refused_before_the_run_directory_is_made(group, spec, message, compose, tmp_path):
    config = compose(*SHORT, f"run_dir={tmp_path / 'run'}") | {group: spec}
    with pytest.raises(ConfigError, match=message):
        train(config)
    assert not (tmp_path / "run").exists()
