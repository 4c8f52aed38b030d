"""The names of runs that nobody has chosen, and sweeps that were asked for as if they were one run."""

from __future__ import annotations

import json
import runpy
import shlex
from concurrent.futures import ThreadPoolExecutor

import pytest
from commands import REPOSITORY, call, train_config

from alexnet_lab.base.errors import RunError
from alexnet_lab.base.locks import free_folder
from alexnet_lab.config.default_paths import has_default_run_dir
from alexnet_lab.run import train


@pytest.mark.parametrize(
    "words",
    [
        ("hydra.sweep.dir=logs/sweeps/mine", "seed=1"),
        ("seed=1", "sweep.extend=true"),
        ("sweep.factor=model.norm", "+sweep.base=lrn"),
        ("hydra.sweeper.trials=3", "seed=1"),
    ],
)
def test_words_of_a_sweep_without_m_are_refused(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = call(runpy.run_path(str(REPOSITORY / "train.py"))["train"], "train", *words)
    assert outcome.code == 2
    word = next(word for word in words if "sweep" in word)
    expected = f"error: `{word}` compares several runs, and this command starts one; add -m: python train.py -m "
    assert outcome.err.startswith(expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("sweep=pooling", "model=alexnet", "data=cifar10"),
        ("model=alexnet", "data=cifar10", "seed=3", "sweep=pooling", "--dry-run"),
        ("sweep=pooling", "experiment=alexnet_cifar10", "run_dir=x y"),
    ],
)
def test_a_sweep_without_m_is_refused_with_the_command(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = runpy.run_path(str(REPOSITORY / "train.py"))["train"]
    outcome = call(task, "train", *words)
    assert outcome.code == 2
    assert outcome.err.startswith("error: `sweep=pooling` compares several runs, and this command starts one; add -m: ")
    asked = shlex.split(outcome.err.rpartition("python train.py -m ")[2])
    assert asked == [word.replace("--dry-run", "sweep.dry_run=true") for word in words]
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_nobody_chose_is_free_however_many_ask_at_once(tmp_path):
    path = tmp_path / "logs" / "runs" / "2026-01-01_00-00-00_lenet5_digits"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: free_folder(path), range(16)))
    assert sorted(folder.name for folder in found) == sorted(
        [path.name, *(f"{path.name}_{number}" for number in range(2, 17))]
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        free_folder(tmp_path / "file" / "runs" / "x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="cannot be written"):
        free_folder(tmp_path / "dangling" / "x")


@pytest.mark.parametrize(
    ("run_dir", "overrides", "free"),
    [
        ("logs/runs/2026-01-01_00-00-00_lenet5_digits", [], True),
        ("logs/runs/2026-01-01_00-00-00_lenet5_digits", ["run_dir=logs/runs/2026-01-01_00-00-00_lenet5_digits"], False),
        ("logs/runs/mine", [], False),
        ("/tmp/2026-01-01_00-00-00_lenet5_digits", [], False),
    ],
)
def test_whose_name_it_is(run_dir, overrides, free):
    assert has_default_run_dir(train_config(run_dir=run_dir, overrides=overrides)) is free


def test_two_runs_that_start_in_one_second_both_run(compose, tmp_path, monkeypatch):
    short = compose("trainer.max_epochs=1", "trainer.limit_train_batches=2", "run_dir=x")
    name = "logs/runs/2026-01-01_00-00-00_lenet5_digits"
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        train({**short, "run_dir": name, "overrides": []})
    for folder in (name, f"{name}_2"):
        assert json.loads((tmp_path / folder / "result.json").read_text())["status"] == "completed"
    with pytest.raises(RunError, match="contains a finished run"):
        train({**short, "run_dir": name, "overrides": [f"run_dir={name}"]})
