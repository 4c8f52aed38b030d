"""`wandb sweep` and `wandb agent`: the sweep of docs/wandb.md, with the command and variables that the agent makes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import wandb_file
import yaml
from commands import REPOSITORY, compose_raw, finished, forked
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
from wandb.sdk.lib.config_util import save_config_file_from_dict

from alexnet_lab.config import check_train
from alexnet_lab.run import wandb_media, wandb_names

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = (REPOSITORY / "docs" / "wandb.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def sweep() -> dict[str, Any]:
    """The documented sweep."""
    (block,) = re.findall(r"```yaml\n(program: train.py\n.*?)```", DOCUMENT, re.DOTALL)
    return yaml.safe_load(block)


def words_of(sweep: dict[str, Any], parameters: dict[str, Any]) -> list[str]:
    """What the agent passes to train.py for some parameters, expanded by W&B's own code."""
    made = create_sweep_command_args({"args": {name: {"value": value} for name, value in parameters.items()}})
    made |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
    words = [word for part in create_sweep_command(sweep["command"]) for word in made.get(part.strip("${}"), [part])]
    assert words[:3] == ["/usr/bin/env", "python", "train.py"]
    return words[3:]


@pytest.mark.parametrize("norm", ["lrn", "none"])
def test_the_documented_sweep_sets_what_it_says(sweep, norm):
    assert set(sweep["parameters"]) == {"optimizer.learning_rate", "model.norm"}
    words = words_of(sweep, {"optimizer.learning_rate": 0.02, "model.norm": norm})
    config = check_train(compose_raw(*words))
    assert (config.optimizer["learning_rate"], config.model["norm"]) == (0.02, norm)
    assert sweep["metric"]["name"] in ("val/top1_error", "val/loss")


def test_a_run_of_an_agent_keeps_its_id_and_name(tmp_path, digits_dir):
    """A process of its own, as the agent's: ids, names, config, and where the files lie; then resumed without it."""
    parameters = {"optimizer.learning_rate": {"value": 0.02}, "seed": {"value": 3}}
    save_config_file_from_dict(str(tmp_path / "wandb" / "sweep-s1" / "config-agent01.yaml"), parameters)
    agent = {
        "WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": "agent01", "WANDB_PROJECT": "mine", "WANDB_ENTITY": "team",
        "WANDB_SWEEP_PARAM_PATH": str(tmp_path / "wandb" / "sweep-s1" / "config-agent01.yaml"),
        "WANDB_DIR": str(tmp_path),
    }  # fmt: skip
    offline = {"HOME": str(tmp_path), "WANDB_MODE": "offline"}
    words = ["optimizer.learning_rate=0.02", "seed=3", f"data.dir={digits_dir}", "data=digits", "model=lenet5",
             "trainer.max_epochs=1", "trainer.limit_train_batches=2"]  # fmt: skip
    outcome = finished(forked("train.py", *words, cwd=tmp_path, **agent, **offline))  # pyright: ignore[reportArgumentType] - all of them are variables
    assert outcome.code == 0, outcome.err
    (run,) = (tmp_path / "logs" / "runs").iterdir()
    found = wandb_file.read(run)
    assert (found.id, found.name, found.project) == ("agent01", "learning_rate-0.02_seed-3", "mine")
    assert found.config["optimizer.learning_rate"] == 0.02
    assert (run / "wandb_id.txt").read_text() == "agent01\nlearning_rate-0.02_seed-3\n"
    outcome = finished(forked("train.py", f"resume={run}", "trainer.max_epochs=2", cwd=tmp_path, **offline))  # pyright: ignore[reportArgumentType] - the same
    assert outcome.code == 0, outcome.err
    parts = [wandb_file.read_file(path) for path in sorted(run.glob("wandb/offline-run-*/*.wandb"))]
    assert [(part.id, part.name) for part in parts] == [("agent01", "learning_rate-0.02_seed-3")] * 2
    assert json.loads((run / "result.json").read_text())["epochs"] == 2


@pytest.mark.parametrize("content", ["", "[1, 2]", "a: b", "wandb_version: 1", "{", "a: {value: 1"])
def test_a_file_that_is_none_of_an_agent_names_nothing(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    assert wandb_names.agent_name({"WANDB_SWEEP_PARAM_PATH": str(path)}) is None
    assert wandb_names.agent_name({"WANDB_SWEEP_PARAM_PATH": str(tmp_path)}) is None
    assert wandb_names.agent_name({}) is None


def test_names_are_short():
    names = {
        "2026-11-26_11-35-07_alexnet_cifar10": "alexnet_cifar10_1126-1135",
        "model.norm-lrn_seed-0": "norm-lrn_seed-0",
        "data.batch_size-64_optimizer.learning_rate-0.01_seed-1": "batch_size-64_learning_rate-0.01_seed-1",
        "no_lrn_seed-2": "no_lrn_seed-2",
        "my.model.name": "my.model.name",
        "run": "run",
    }
    assert {name: wandb_names.short_name(name) for name in names} == names


def test_the_code_of_a_run(tmp_path):
    logged: list[Path] = []

    class Run:
        def log_code(self, root: str, include_fn: Any) -> None:
            logged.extend(path for path in type(tmp_path)(root).rglob("*") if path.is_file() and include_fn(str(path)))

    wandb_media.log_code(Run(), tmp_path)
    names = {path.relative_to(tmp_path / "wandb" / "code").as_posix() for path in logged}
    assert {"train.py", "configs/train.yaml", "src/alexnet_lab/models/alexnet.py"} <= names
    assert not [name for name in names if name.startswith(("data/", "logs/", "tests/", ".venv/"))]
    assert sum(path.stat().st_size for path in logged) < 5e6


def test_code_that_cannot_be_saved_is_a_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(wandb_media.log, "propagate", True)
    (tmp_path / "wandb").write_text("")
    wandb_media.log_code(None, tmp_path)
    assert "W&B: the code is not saved (" in caplog.text
