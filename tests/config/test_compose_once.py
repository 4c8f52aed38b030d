"""Hydra composes a config once, and still finds a `hydra.mode` that a file or the command line sets."""

from __future__ import annotations

import shutil

import pytest
from commands import CONFIGS, call
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from alexnet_lab.config import check_train
from alexnet_lab.sweeps import runner

MULTIRUN = "# @package _global_\nhydra:\n  # a sweep without -m\n  mode: MULTIRUN\n  sweeper: {params: {seed: '0,1'}}\n"


@pytest.fixture
def composed(monkeypatch) -> list[str]:
    """The run modes of the compositions."""
    modes: list[str] = []
    original = ConfigLoaderImpl.load_configuration

    def counted(self, config_name, overrides, run_mode, *args, **more):
        modes.append(run_mode.name)
        return original(self, config_name, overrides, run_mode, *args, **more)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    return modes


@pytest.fixture
def sweeps(monkeypatch) -> list[int]:
    """The numbers of jobs of the sweeps that would have started."""
    numbers: list[int] = []
    monkeypatch.setattr(runner, "drive", lambda plan, launch: numbers.append(len(plan.jobs)))
    return numbers


def test_one_composition(composed, sweeps):
    assert call(check_train, "train", "model=alexnet", "data=cifar10").code == 0
    assert (composed, sweeps) == (["RUN"], [])


def test_a_file_may_set_the_mode(tmp_path, sweeps):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    (tmp_path / "configs" / "experiment" / "mine.yaml").write_text(MULTIRUN, encoding="utf-8")
    for words, found in (((), []), (("experiment=mine",), [2])):
        outcome = call(check_train, "train", f"hydra.sweep.dir={tmp_path}/sweep", *words, configs=tmp_path / "configs")
        assert outcome.code == 0, outcome.err
        assert sweeps == found


def test_a_folder_of_the_command_line_may_set_the_mode(tmp_path, sweeps):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(MULTIRUN, encoding="utf-8")
    words = ("--config-dir", str(tmp_path), "experiment=mine", f"hydra.sweep.dir={tmp_path}/sweep")
    assert call(check_train, "train", *words).code == 0
    assert sweeps == [2]


def test_the_command_line_may_set_the_mode(tmp_path, sweeps):
    words = ("hydra.mode=MULTIRUN", "seed=0,1,2", f"hydra.sweep.dir={tmp_path}/sweep")
    assert call(check_train, "train", *words).code == 0
    assert sweeps == [3]
