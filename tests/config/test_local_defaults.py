"""`configs/local/default.yaml`, which git ignores: a machine's own defaults."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from commands import CONFIGS, REPOSITORY, call

from alexnet_lab.config import check_train

if TYPE_CHECKING:
    from pathlib import Path

LOCAL = """# @package _global_
defaults:
  - override /logger: csv
  - override /callbacks: early_stopping
data:
  dir: /mnt/images
trainer:
  num_threads: 3
launcher:
  retries: 0
"""


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """A copy of the repository's configs, to which a test adds its machine's defaults."""
    folder = tmp_path / "configs"
    shutil.copytree(CONFIGS, folder, ignore=shutil.ignore_patterns("local"))
    return folder


def composed(configs: Path, *words: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    outcome = call(lambda raw: found.append(check_train(raw).model_dump()), "train", *words, configs=configs)
    assert outcome.code == 0, outcome.err
    return found[0]


def write(configs: Path, text: str) -> None:
    (configs / "local").mkdir()
    (configs / "local" / "default.yaml").write_text(text)


def test_they_replace_the_defaults_and_the_command_line_replaces_them(configs):
    assert composed(configs, "logger=csv")["launcher"]["retries"] == 2
    write(configs, LOCAL)
    config = composed(configs)
    assert (config["logger"], config["data"]["dir"], config["trainer"]["num_threads"]) == (None, "/mnt/images", 3)
    assert config["launcher"]["retries"] == 0
    assert config["callbacks"]["early_stopping"]["patience_epochs"] == 10
    changed = composed(configs, "data=cifar10", "trainer.num_threads=1", "launcher.retries=5", "logger=tensorboard")
    assert changed["data"]["dir"] == "/mnt/images"
    assert (changed["trainer"]["num_threads"], changed["launcher"]["retries"]) == (1, 5)
    assert changed["logger"]["_target_"] == "alexnet_lab.run.tracking.tensorboard_logger"


def test_a_recipe_comes_before_them(configs):
    """They describe a machine: what a recipe chooses for its result is chosen by experiment=."""
    write(configs, "# @package _global_\ntrainer:\n  num_threads: 3\n")
    config = composed(configs, "experiment=lenet5_mnist", "logger=csv")
    assert (config["trainer"]["num_threads"], config["experiment"]) == (3, "lenet5_mnist")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# @package _global_\ntrainer:\n  num_thread: 3\n", "unknown key `trainer.num_thread`; did you mean"),
        ("# @package _global_\ntrainer:\n  num_threads: many\n", "`trainer.num_threads` is 'many' (str)"),
        ("trainer:\n  num_threads: 3\n", "a file of configs/local begins with `# @package _global_`: add that line"),
        ("", "unknown key `local`; a file of configs/local begins with `# @package _global_`: add that line"),
        ("3\n", "a config file cannot be read: Invalid loaded object type: int"),
        ("# @package _global_\nlauncher: 3\n", "`launcher` is 3 (int); allowed: a group of keys"),
        ("# @package _global_\nsweep: null\n", "`sweep`"),
        ("# @package _global_\ndefaults: [override /loggr: csv]\n", "In 'local/default': Could not override 'loggr'."),
        ("# @package _global_\ntrainer: null\n", "`trainer` is None (NoneType); allowed: a group of keys"),
        ("# @package _global_\ndefaults:\n  - override /logger: csvv\n", "there is no `logger=csvv`"),
    ],
)  # fmt: skip
def test_they_are_checked_like_every_config(text, message, configs):
    write(configs, text)
    for words in (("seed=0",), ("-m", "seed=0,1")):
        outcome = call(check_train, "train", *words, configs=configs)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
        assert message in outcome.err


def test_git_ignores_them():
    assert "/configs/local/" in (REPOSITORY / ".gitignore").read_text().splitlines()
