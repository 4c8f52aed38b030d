"""Random changes of valid configs: each is reported in one line that names the key, and starts nothing."""

from __future__ import annotations

import copy
import resource
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from commands import call, command, compose_raw, finished
from faults import faults
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.config import check_train
from alexnet_lab.config.schema import BUILT_IN, Train
from alexnet_lab.config.signatures import read_signature
from alexnet_lab.config.validate import TARGET_GROUPS

BASES = (
    ("model=lenet5", "data=digits"),
    ("model=alexnet", "data=cifar10", "schedule=plateau"),
    ("model=alexnet_bn", "data=mnist", "optimizer=adam", "augment=flip_crop"),
    ("model=cuda_convnet_18pct", "data=cifar10", "schedule=step", "callbacks=early_stopping"),
    ("model=lenet5_1998", "data=digits", "loss=lenet5_1998", "optimizer=diagonal_lm", "schedule=lenet5_1998"),
    ("model=torchvision", "data=imagenette", "logger=csv", "optimizer=krizhevsky_sgd", "schedule=dexp"),
)
"""Valid configs."""

REQUIRED = ("seed", "run_dir", "model", "data", "loss", "optimizer")

SECONDS = 2.0
"""Time limit for the report of each, of the processor: on a busy machine the clock runs on meanwhile."""


class Wrong(NamedTuple):
    """A wrong config."""

    config: dict[str, Any]
    key: str  # that the message has to name
    what: str  # was done to it


@cache
def right(base: tuple[str, ...]) -> dict[str, Any]:
    return compose_raw("run_dir=somewhere", *base)


def leaves(node: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all values that are no groups."""
    if not isinstance(node, dict):
        return [path]
    return [leaf for key, value in node.items() for leaf in leaves(value, (*path, key))]


def group_of(config: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path[:-1]:
        config = config[key]
    return config


@st.composite
def wrong_configs(draw: st.DrawFn) -> Wrong:
    base = draw(st.sampled_from(BASES))
    config = copy.deepcopy(right(base))
    kind = draw(st.sampled_from([misspelt, misspelt, other_type, other_type, out_of_range, empty, missing, misfit]))
    return kind(draw, config)


def misspelt(draw: st.DrawFn, config: dict[str, Any]) -> Wrong:
    """One letter of a key is left out, doubled, changed, or swapped with the next."""
    path = draw(st.sampled_from([leaf for leaf in leaves(config) if leaf[-1] != "_target_"]))
    depth = draw(st.integers(0, len(path) - 1))
    path = path[: depth + 1]
    group, key = group_of(config, path), path[-1]
    place, letter = draw(st.integers(0, len(key) - 1)), draw(st.sampled_from("abcxyz_9"))
    new = draw(
        st.sampled_from([
            key[:place] + key[place + 1 :],
            key[: place + 1] + key[place:],
            key[:place] + letter + key[place + 1 :],
            key[:place] + key[place : place + 2][::-1] + key[place + 2 :],
            key.upper(),
        ]).filter(lambda word: word and word not in group)
    )  # fmt: skip
    group[new] = group.pop(key)
    return Wrong(config, ".".join((*path[:-1], new)), f"{key} misspelt")


OTHERS: dict[type, list[Any]] = {
    bool: ["perhaps", 3, 0.5, [True], {"a": 1}],
    int: ["three", 1.5, [1], {"a": 1}, True, 1e300],
    float: ["three", [0.5], {"a": 1}, True],
    str: [3, 0.5, True, ["a"], {"a": 1}, "\x00", "a" * 100_000],
    list: ["words", 3, {"a": 1}, [{"a": 1}], [[1]]],
    type(None): [{"a": {"b": 1}}, [[1]]],
}
"""By the type of the right value: values of other types, and texts that are no name of anything."""

FREE_TEXT = (
    "run_dir",
    "dir",
    "root",
    "project",
    "entity",
    "name",
    "group",
    "job_type",
    "notes",
    "experiment",
    "resume",
)
"""Keys whose text may be any."""


def other_type(draw: st.DrawFn, config: dict[str, Any]) -> Wrong:
    path = draw(st.sampled_from([leaf for leaf in leaves(config) if not group_is_empty(config, leaf)]))
    group, key = group_of(config, path), path[-1]
    others = [value for value in OTHERS[type(group[key])] if not (key in FREE_TEXT and isinstance(value, str))]
    if key == "variants":  # whose keys are checked when a job of a variant is composed
        others = [value for value in others if not isinstance(value, dict)]
    if key == "workers":  # auto, true or false
        others = [value for value in others if not isinstance(value, bool)]
    group[key] = draw(st.sampled_from(others))
    return Wrong(config, named(path), f"{'.'.join(path)}={str(group[key])[:50]}")


def group_is_empty(config: dict[str, Any], path: tuple[str, ...]) -> bool:
    return group_of(config, path)[path[-1]] == {}


def named(path: tuple[str, ...]) -> str:
    """What the message has to name: of a `_target_` its group is enough."""
    return path[0] if path[-1] == "_target_" else ".".join(path)


MAY_BE_MINUS_ONE = ("trainer.max_steps", "trainer.num_sanity_val_steps")


def out_of_range(draw: st.DrawFn, config: dict[str, Any]) -> Wrong:
    numbers = [
        path for path in leaves(config)
        if type(group_of(config, path)[path[-1]]) in (int, float) and ".".join(path) not in MAY_BE_MINUS_ONE
    ]  # fmt: skip
    path = draw(st.sampled_from(numbers))
    group, key = group_of(config, path), path[-1]
    group[key] = draw(st.sampled_from([-1, -(10**30), float("inf"), -float("inf"), float("nan"), -1e-3]))
    return Wrong(config, ".".join(path), f"{'.'.join(path)}={group[key]}")


def empty(draw: st.DrawFn, config: dict[str, Any]) -> Wrong:
    path = draw(st.sampled_from([leaf for leaf in leaves(config) if not may_be_none(config, leaf)]))
    group, key = group_of(config, path), path[-1]
    values = ["", None, {}] if isinstance(group[key], list) else ["", None, {}, []]
    group[key] = draw(st.sampled_from(values))
    return Wrong(config, named(path), f"{'.'.join(path)}={group[key]!r}")


def may_be_none(config: dict[str, Any], path: tuple[str, ...]) -> bool:
    """By what the signatures and sections say."""
    *groups, name = path
    target = group_of(config, path).get("_target_", BUILT_IN.get(groups[-1])) if groups else None
    if target is None and (path[0] not in TARGET_GROUPS or path[0] == "callbacks"):
        section: Any = Train
        for key in groups:
            annotation = section.model_fields[key].annotation
            section = next(item for item in (annotation, *get_args(annotation)) if hasattr(item, "model_fields"))
        return type(None) in get_args(section.model_fields[name].annotation)
    if name == "_target_" or target is None:
        return name != "_target_"
    signature = read_signature(target)
    return signature is None or type(None) in get_args(signature.fields[name].annotation)


def missing(draw: st.DrawFn, config: dict[str, Any]) -> Wrong:
    key = draw(st.sampled_from(REQUIRED))
    del config[key]
    return Wrong(config, key, f"{key} missing")


def misfit(draw: st.DrawFn, config: dict[str, Any]) -> Wrong:
    """Parts that are right, each for itself, and do not fit."""
    field = draw(st.sampled_from(["num_classes", "in_channels", "image_size", "devices", "loss", "schedule"]))
    if field == "devices":
        config["data"]["batch_size"], config["trainer"]["devices"] = 7, draw(st.integers(2, 6))
        return Wrong(config, "data.batch_size", "devices do not divide the batch")
    if field == "loss" and "LeNet51998" not in config["model"]["_target_"]:
        config["loss"] = {"_target_": "alexnet_lab.training.losses.LeNet5Criterion"}
        return Wrong(config, "loss", "a loss for another network")
    if field == "schedule" and "krizhevsky" not in config["optimizer"]["_target_"]:
        config["schedule"] = {"_target_": "alexnet_lab.training.published.recorded"}
        return Wrong(config, "schedule", "a schedule for another optimiser")
    field = field if field in ("num_classes", "in_channels", "image_size") else "num_classes"
    config["model"][field] += draw(st.integers(1, 1000))
    return Wrong(config, f"model.{field}", f"{field} of other data")


CHECKS = [
    HealthCheck.too_slow,
    HealthCheck.filter_too_much,
    HealthCheck.data_too_large,
    HealthCheck.function_scoped_fixture,
]
"""Of hypothesis, which would rather have small and quick cases."""


@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=CHECKS, database=None)
@given(wrong=wrong_configs())
def test_wrong_config_is_reported_by_its_key(wrong):
    before = set(Path.cwd().iterdir())
    start = time.process_time()
    with pytest.raises(ConfigError) as raised:
        check_train(wrong.config)
    seconds = time.process_time() - start
    message = str(raised.value)
    assert f"`{wrong.key}" in message, f"{wrong.what}: {message}"
    assert "\n" not in message
    assert len(message) < 1000, wrong.what
    assert seconds < SECONDS
    assert set(Path.cwd().iterdir()) == before


SPELLABLE = (int, float, str, bool, type(None))


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=CHECKS, database=None)
@given(data=st.data())
def test_wrong_command_line_is_reported_by_its_key(data, tmp_path_factory, monkeypatch):
    """The same by way of Hydra: exit code 2, one line, no file, no process."""
    base = data.draw(st.sampled_from(BASES))
    kind = data.draw(st.sampled_from([misspelt, other_type, out_of_range]))
    config = copy.deepcopy(right(base))
    wrong = kind(data.draw, config)
    word = as_word(wrong, right(base))
    if word is None:
        return
    folder = tmp_path_factory.mktemp("cwd")
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(subprocess, "Popen", refuse)
        start = time.process_time()
        outcome = call(check_train, "train", *base, word)
    assert outcome.code == 2, word
    assert outcome.err.startswith("error: "), word
    assert outcome.err.count("\n") == 1, outcome.err
    assert wrong.key.rpartition(".")[2] in outcome.err, outcome.err
    assert time.process_time() - start < SECONDS
    assert list(folder.iterdir()) == []


def refuse(*_args: object, **_kwargs: object) -> None:
    raise AssertionError("a process was started")


def as_word(wrong: Wrong, config: dict[str, Any]) -> str | None:
    """The override that makes the wrong config, where Hydra's grammar can say it."""
    value: Any = wrong.config
    for key in wrong.key.split("."):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    if not isinstance(value, SPELLABLE) or len(str(value)) > 50 or "\x00" in str(value):
        return None
    return f"{wrong.key}={'null' if value is None else str(value) or repr('')}"


@pytest.mark.parametrize("kind", ["cut", "flipped"])
def test_damaged_yaml_file_is_reported_or_is_another_right_config(kind, tmp_path):
    """Nobody can know that 0.01 was 0.03; but no fault leads to a traceback, and config.yaml says what ran."""
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    content = b"# @package _global_\noptimizer:\n  learning_rate: 0.01\ntrainer: {max_epochs: 3}\n"
    for name, bad in faults(content, b"{}", flips=25):
        if kind not in name:
            continue
        file.write_bytes(bad)
        outcome = call(check_train, "train", f"--config-dir={tmp_path}", "experiment=mine")
        if outcome.code:
            assert outcome.code == 2, name
            assert outcome.err.startswith("error: "), name
            assert outcome.err.count("\n") == 1, outcome.err


PROCESSES = {
    "model.nrom=none": "model.nrom",
    "data.batch_size=inf": "data.batch_size",
    "optimizer.learning_rate=": "optimizer.learning_rate",
    "~model": "model",
    "model.image_size=9": "model.image_size",
    "trainer.devices=3": "data.batch_size",
}


def children_seconds() -> float:
    """What the processes that have ended took of the processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(("word", "key"), PROCESSES.items())
def test_wrong_config_of_a_real_process(word, key, tmp_path):
    start = children_seconds()
    outcome = finished(command("train.py", word, cwd=tmp_path))
    assert outcome.code == 2
    assert f"`{key}`" in outcome.err
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert children_seconds() - start < 2 * SECONDS  # with the start of the interpreter
