"""Networks of other packages: any name of torchvision, and whatever a `_target_` names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from commands import QUICK, call

from alexnet_lab.run import train

if TYPE_CHECKING:
    from pathlib import Path

SHORT = (*QUICK, "launcher=in_process", "trainer.fast_dev_run=true", "model=torchvision")
TIMM = ("~model.name", "~model.in_channels", "~model.image_size", "model._target_=timm.create_model",
        "+model.model_name=resnet10t", "+model.in_chans=1")  # fmt: skip


def result(run: Path, *words: str) -> dict:
    outcome = call(train, "train", *SHORT, *words, f"run_dir={run}")
    assert outcome.code == 0, outcome.err
    return json.loads((run / "result.json").read_text())


def test_a_network_of_torchvision_trains(digits_dir, tmp_path):
    words = ("model.name=mobilenet_v3_small", "data.image_size=32", f"data.dir={digits_dir}")
    assert result(tmp_path / "run", *words)["num_parameters"] == 1_528_106


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.name=resnet19", "unknown name=resnet19 of torchvision.models; did you mean `resnet18`?"),
        ("model.nme=resnet18", "unknown key `model.nme`; did you mean `name`?"),
    ],
)
def test_a_misspelt_network_is_refused_before_anything_is_written(word, message, tmp_path):
    outcome = call(train, "train", *SHORT, word, f"run_dir={tmp_path / 'run'}")
    assert (outcome.code, message in outcome.err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_a_network_of_timm_trains(digits_dir, tmp_path):
    pytest.importorskip("timm")
    assert result(tmp_path / "run", *TIMM, f"data.dir={digits_dir}")["num_parameters"] == 4_927_186
    outcome = call(train, "train", *SHORT, *TIMM, "+model.in_chanz=1", f"run_dir={tmp_path / 'other'}")
    assert (outcome.code, "in_chanz" in outcome.err) == (2, True)
    assert not (tmp_path / "other").exists()
