"""A run directory of 0.2.0's code, before `module` and most arguments of the Trainer were keys, can be resumed."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from commands import call

from alexnet_lab import load
from alexnet_lab.config import check_evaluate
from alexnet_lab.evaluation.evaluate import evaluate
from alexnet_lab.run import train

if TYPE_CHECKING:
    from typing import Any

FORMER = Path(__file__).parent / "former_run.tgz"
"""`train.py model=alexnet model.width=0.02 model.towers=1 model.norm=none data=digits data.batch_size=64
schedule=constant trainer.max_epochs=1 trainer.limit_train_batches=4`, written by that code."""

SECOND_EPOCH = {
    "train/loss": 2.3032074,
    "train/top1_error": 0.89453125,
    "val/loss": 2.305039,
    "test/loss": 2.3051534,
    "test/top1_error": 0.89972144,
}
"""What that code measured when it went on to a second epoch."""


@pytest.fixture
def former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(FORMER) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((tmp_path / "former" / "config.yaml").read_text())
    assert "module" not in config
    assert not {"max_time", "benchmark", "val_check_interval"} & config["trainer"].keys()
    return tmp_path / "former"


def test_it_resumes_to_the_same_end(former):
    outcome = call(train, "train", "resume=former", "trainer.max_epochs=2")
    assert outcome.code == 0, outcome.err
    metrics = json.loads((former / "result.json").read_text())["metrics"]
    assert {name: metrics[name] for name in SECOND_EPOCH} == pytest.approx(SECOND_EPOCH, rel=1e-5)
    with (former / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    config = yaml.safe_load((former / "config.yaml").read_text())
    assert config["module"] == {"_target_": "alexnet_lab.training.Classifier"}


def test_it_is_evaluated(former):
    recorded: dict[str, Any] = json.loads((former / "result.json").read_text())["metrics"]
    outcome = call(lambda raw: evaluate(check_evaluate(raw)), "eval", "run=former")
    assert outcome.code == 0, outcome.err
    found = json.loads((former / "eval" / "test_center.json").read_text())["metrics"]
    assert found == pytest.approx(
        {name: value for name, value in recorded.items() if name.startswith("test/")}, rel=1e-5
    )
    assert load(former).config["module"]["_target_"] == "alexnet_lab.training.Classifier"
