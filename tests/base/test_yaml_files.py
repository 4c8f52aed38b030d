"""YAML from elsewhere: plain values within limits, or one line, within a second."""

from __future__ import annotations

import itertools
import time

import pytest
from commands import call

from alexnet_lab.base.checked_files import MOST_CHARACTERS, read_yaml
from alexnet_lab.base.errors import RunError
from alexnet_lab.config import check_evaluate, check_train
from alexnet_lab.evaluation.loaded_run import finished_run


def doubled(levels: int, item: str) -> str:
    """Each line names the one before twice: 2 ** levels values in a few hundred bytes."""
    names = [f"n{number}" for number in range(levels)]
    pairs = itertools.pairwise(names)
    return "n0: &n0 {x: 1}\n" + "".join(f"{new}: &{new} {item.format(old)}\n" for old, new in pairs)


BOMBS = {
    "lists": (doubled(25, "[*{0}, *{0}]"), "its aliases stand for more than 20,000 values"),
    "maps": (doubled(25, "{{a: *{0}, b: *{0}}}"), "its aliases stand for more than 20,000 values"),
    "merges": (doubled(18, "{{<<: [*{0}, *{0}]}}"), "its aliases stand for more than 20,000 values"),
    "chain": (doubled(60, "[*{0}]"), "it is nested too deeply"),
    "circle": ("a: &a [*a]", "it is nested too deeply"),
    "circle of keys": ("? &a {*a : 1}\n: 1", "it is nested too deeply"),
    "brackets": ("[" * 100_000, "it is nested too deeply"),
    "braces": ("{a: " * 10_000, "it is nested too deeply"),
    "dashes": ("- " * 10_000 + "x", "it is nested too deeply"),
    "items": ("- 1\n" * 30_000, "it contains more than 20,000 values"),
    "text": (f"a: {'x' * MOST_CHARACTERS}", "it is longer than 262,144 characters"),
    "digits": (f"a: {'9' * 5000}", "digits"),
    "object": ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    "date": ("a: 2020-99-99", "month must be in 1..12"),
    "two": ("a: 1\n---\nb: 2", "expected a single document"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_yaml_beyond_measure_is_refused_at_once(name, tmp_path):
    text, message = BOMBS[name]
    (tmp_path / "a.yaml").write_text(text)
    start = time.process_time()
    with pytest.raises(RunError, match=r"a\.yaml cannot be read: ") as caught:
        read_yaml(tmp_path / "a.yaml")
    assert time.process_time() - start < 5
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: {b: [1, 2.5, true, null, x]}", {"a": {"b": [1, 2.5, True, None, "x"]}}),
        ("a: &one [1]\nb: *one", {"a": [1], "b": [1]}),
        ("a: &one {x: 1}\nb: {<<: *one, y: 2}", {"a": {"x": 1}, "b": {"x": 1, "y": 2}}),
    ],
)
def test_plain_yaml(text, value, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    assert read_yaml(tmp_path / "a.yaml") == value


def test_config_of_a_run_that_was_sent(tmp_path):
    (tmp_path / "config.yaml").write_text(BOMBS["lists"][0])
    outcome = call(lambda config: finished_run(str(check_evaluate(config).run)), "eval", f"run={tmp_path}")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "config.yaml cannot be read: its aliases stand for more than" in outcome.err


def test_config_of_a_run_that_is_repeated(tmp_path):
    (tmp_path / "config.yaml").write_text(BOMBS["maps"][0])
    outcome = call(check_train, "train", f"--config-path={tmp_path}", "--config-name=config")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "config.yaml cannot be read: its aliases stand for more than" in outcome.err
