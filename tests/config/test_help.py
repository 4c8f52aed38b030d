"""`--help`: each key with its value, its meaning and what is allowed."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
import yaml
from annotated_types import Ge, Gt, Le, Lt
from commands import CONFIGS, REPOSITORY, call

from alexnet_lab.base.ranges import ExtraMetric
from alexnet_lab.config import check_evaluate, check_export, check_report, check_train
from alexnet_lab.config.help import Help, describe

PRESETS = ("experiment", "sweep", "debug", "launcher")
"""Groups whose files set keys of other groups."""

GROUPS = sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name not in PRESETS)
REPORT = REPOSITORY / "src" / "alexnet_lab" / "report" / "config"


def helped(*words: str) -> str:
    outcome = call(check_train, "train", "--help", *words)
    assert (outcome.code, outcome.err) == (0, "")
    return " ".join(outcome.out.split())


def test_a_key_has_its_value_its_meaning_and_what_is_allowed():
    text = helped("model", "model=alexnet", "model.norm=none")
    assert "model=caffenet Caffe's bvlc_reference_caffenet" in text
    assert (
        "norm: none local response normalisation, sec. 3.3: 1.4 and 1.2 points of top-1 and top-5 [lrn, none, batch]"
        in text
    )
    assert "dropout: 0.5 share of the units of fc6 and fc7, sec. 4.2 [0 <= x < 1]" in text
    assert "learning_rate" not in text


@pytest.mark.parametrize("columns", ["60", "120"])
def test_lines_break_between_words(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    text = helped()
    assert "%H-%M-%S}} the run directory" in text
    assert "augmentation: +transforms.erase._target_=torchvision.transforms.v2.RandomErasing" in text


def test_help_without_a_group_shows_all_groups_and_keys():
    text = helped()
    assert "loss: cross_entropy, lenet5_1998" in text
    assert "max_steps: -1 optimiser steps; -1: no limit" in text
    assert "seed: 0 of the initial weights" in text
    assert "local: logger" not in text  # a group without a file, as on a fresh clone


def test_flags_with_a_value_are_no_groups(tmp_path):
    assert "max_steps: -1" in helped("--config-dir", str(tmp_path))
    assert "max_steps: -1" in helped("trainer", "--config-dir", str(tmp_path))


def test_own_files_are_explained_too(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(
        "# My network.\ndefaults: [lenet5, _self_]\nactivation: tanh  # mine\n"
    )
    assert ", mine, torchvision" in helped("--config-dir", str(tmp_path))
    text = helped("model", "model=mine", "--config-dir", str(tmp_path))
    assert "model=mine My network." in text
    assert "activation: tanh mine [" in text


def test_a_variant_inherits_the_meanings_of_its_base():
    assert "dropout: 0.5 share of the units of fc6 and fc7, sec. 4.2" in helped("model", "model=alexnet_caffe")


@pytest.mark.parametrize(
    "order", [("--help", "model=alexnet", "optimizer"), ("model=alexnet", "optimizer", "--help", "-m")]
)
def test_the_order_of_words_does_not_matter(order):
    outcome = call(check_train, "train", *order)
    assert outcome.code == 0
    assert "momentum: 0.9" in outcome.out
    assert "norm" not in outcome.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--help", "modle"), "error: --help takes the name of a group, got 'modle'; did you mean `model`?"),
        (("--help", "model=alxnet"), "error: there is no `model=alxnet`; did you mean `alexnet`?"),
    ],
)
def test_mistakes_are_reported_in_one_line(words, message):
    outcome = call(check_train, "train", *words)
    assert outcome.code == 2
    assert outcome.err.startswith(message)
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("check", "command", "configs", "line"),
    [
        (check_evaluate, "eval", CONFIGS, "split: test test; val: the validation part of the training set"),
        (check_export, "export", CONFIGS, "overwrite: false true: replace an existing file"),
        (check_report, "report", REPORT, "sweep: null the directory of a sweep; the report goes into it"),
    ],
)
def test_the_other_commands_have_it_too(check, command, configs, line):
    outcome = call(check, command, "--help", configs=configs)
    assert outcome.code == 0
    assert line in " ".join(outcome.out.split())


def _keys(node: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in node.items():
        found += _keys(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]
    return [key for key in found if not key.endswith("_target_")]


@pytest.mark.parametrize("group", GROUPS)
def test_each_key_of_a_group_has_a_meaning(group):
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if "@package _global_" in text:
            continue
        keys = _keys({key: value for key, value in yaml.safe_load(text).items() if key != "defaults"})
        comments = Help((CONFIGS,), "train", ())._comments({group: path.stem})
        unexplained = [key for key in keys if f"{group}.{key}" not in comments and ".layers." not in f".{key}"]
        assert unexplained == [], path.name  # optimizer.layers: rules for layers by name


def test_keys_of_a_file_for_all_groups_have_their_meaning():
    text = helped("launcher")
    assert "workers: auto worker processes in a sweep and for several devices; true: always; false: never" in text
    assert "jobs_per_gpu: 1 jobs that share a GPU, for small networks [>= 1]" in text
    found = helped("callbacks", "callbacks=early_stopping")  # a part within the group, without its `_target_`
    assert "monitor: val/loss the metric that must improve [val/loss, val/top1_error, val/top5_error, " in found
    assert "patience_epochs: 10 epochs in a row without improvement [>= 1]" in found
    several = helped("callbacks", "callbacks=[early_stopping,to_error]")
    assert "min_delta: 0.0 a smaller improvement does not count [>= 0]" in several
    assert "error: 0.25 " in several
    assert "error: 0.25 [0 < x < 1]" not in several  # but has its meaning


def test_a_choice_is_explained_by_the_first_sentence_of_its_header():
    text = helped("schedule")
    assert "schedule=constant A constant learning rate. " in text
    assert "Levenberg-Marquardt, LeCun et al. 1998, sec. " in helped("optimizer")
    two_lines = "AlexNet as it was trained in 2012: run 145 of the released code, whose errors the paper prints. "
    assert f"experiment=alexnet_2012 {two_lines}" in helped("experiment")


@pytest.mark.parametrize("command", ["train", "eval", "report", "export"])
def test_each_key_outside_the_groups_has_a_meaning(command):
    folder = REPORT if command == "report" else CONFIGS
    raw = yaml.safe_load((folder / f"{command}.yaml").read_text(encoding="utf-8"))
    keys = _keys({key: value for key, value in raw.items() if key not in ("defaults", "hydra")})
    comments = Help((folder,), command, ())._comments({})
    assert [key for key in keys if key not in comments] == []


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "true, false"),
        (str, ""),
        (Literal["relu", "tanh"], "relu, tanh"),
        (Literal["relu"] | None, "relu, null"),
        (str | None, ""),
        (Annotated[int, Ge(1), Lt(2**31)], ">= 1"),
        (Annotated[float, Gt(0), Lt(1)], "0 < x < 1"),
        (Annotated[int, Ge(0), Le(1024)] | None, "0 <= x <= 1024, null"),  # pyright: ignore[reportOperatorIssue] - at run time it is
        (Literal["auto"] | Annotated[int, Ge(1)], "auto, >= 1"),
        (bool | int | float | str | None, ""),
        (Literal["val/loss"] | ExtraMetric | None, "val/loss, val/NAME for a NAME of the group `metrics`, null"),
    ],
)
def test_what_is_allowed_in_words(annotation, words):
    assert describe(annotation) == words
