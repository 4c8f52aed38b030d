"""The names of evaluations: none of them overwrites another one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from commands import evaluated
from evaluating import another_run
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


def evaluations(run: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in (run / "eval").glob("*.json")}


def test_a_name_of_another_evaluation_is_refused(run):
    assert evaluated(f"run={run}", "name=mine").code == 0
    before = evaluations(run)
    for words, message in {
        ("name=test_ten",): "`name` is test_ten, the name of the evaluation split=test views=ten; choose another name",
        ("name=Test_Center", "views=ten"): "the name of the evaluation split=test views=center",
        ("name=mine", "split=val"): "`name` is mine, but that file contains another evaluation (split: test, not val)",
        ("name=mine", "views=ten"): "another evaluation (views: center, not ten); choose another name",
    }.items():
        outcome = evaluated(f"run={run}", *words)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert message in outcome.err
    assert evaluations(run) == before
    for name in ("mine", "test_center"):  # the same evaluation again
        assert evaluated(f"run={run}", f"name={name}").code == 0


def test_default_names_stay_apart(run, tmp_path):
    for number, folder in enumerate(("a/pictures", "b/pictures")):
        (tmp_path / folder).mkdir(parents=True)
        for picture in range(number + 1):
            Image.new("L", (8, 8), 90 * picture).save(tmp_path / folder / f"{picture}.png")
        for _ in range(2):
            assert evaluated(f"run={run}", f"data.root={tmp_path / folder}").code == 0
    others = [another_run(run, tmp_path / name) for name in ("one", "two")]
    for other in others:
        assert evaluated(f"run=[{run},{other}]").code == 0
    found = evaluations(run)
    assert (found["own_pictures_center"]["images"], found["own_pictures_center_2"]["images"]) == (1, 2)
    names = [found[f"ensemble_of_2_test_center{suffix}"]["runs"] for suffix in ("", "_2")]
    assert names == [["run", "one"], ["run", "two"]]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"runs": ' * 100])
def test_a_damaged_file_is_rewritten(content, run):
    (run / "eval").mkdir(exist_ok=True)
    (run / "eval" / "test_center.json").write_text(content)
    assert evaluated(f"run={run}").code == 0
    assert list(evaluations(run)) == ["test_center"]


def test_a_run_that_was_renamed_keeps_its_names(run):
    assert evaluated(f"run={run}").code == 0
    other = run.rename(run.with_name("renamed"))
    assert evaluated(f"run={other}").code == 0
    assert {name: found["run"] for name, found in evaluations(other).items()} == {"test_center": "renamed"}


def test_a_place_that_cannot_be_written_is_one_line(run):
    (run / "eval" / "figures" / "mine").mkdir(parents=True)
    (run / "eval" / "figures" / "mine" / "activations.png").mkdir()
    outcome = evaluated(f"run={run}", "name=mine", "figures=activations")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "error: the evaluation cannot be written: " in outcome.err
