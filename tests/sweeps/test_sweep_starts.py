"""A sweep over the weights that its jobs start from."""

from __future__ import annotations

import shutil

from commands import QUICK, call
from sweeping import planned

from alexnet_lab.base.files import sha256
from alexnet_lab.config import check_train
from alexnet_lab.config.weights_source import BEST


def test_jobs_start_from_scratch_and_from_a_run(digits_run, digits_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = planned(f"init_from=null,{digits_run}", *QUICK, f"data.dir={digits_dir}")
    starts = [(config.init_from, config.init_hash) for config in plan.configs.values()]
    assert starts == [(None, None), (str(digits_run), sha256(digits_run / BEST[0]))]


def test_other_weights_under_the_same_path_are_another_job(digits_run, digits_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "source.safetensors"
    words = (f"init_from={source},null", *QUICK, f"data.dir={digits_dir}", "hydra.sweep.dir=sweep")
    shutil.copyfile(digits_run / BEST[0], source)
    plan = planned(*words)
    plan.sweep.begin(plan.definition)
    source.write_bytes(source.read_bytes() + b"x")
    outcome = call(check_train, "train", "-m", *words)
    assert outcome.code == 2
    assert "sweep contains another sweep: init_hash was " in outcome.err
