"""Sweeps over named variants, each of which sets keys of its own: what is computed, what is compared, what is shown."""

from __future__ import annotations

import csv
import json
import runpy
from typing import Any

import pytest
import yaml
from commands import CONFIGS, REPOSITORY, call, compose_raw
from sweeping import planned, swept

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.config import check_report, check_train
from alexnet_lab.report import make_report
from alexnet_lab.run import train
from alexnet_lab.sweeps.results import with_gap
from alexnet_lab.sweeps.summary import Outcome, summarise
from alexnet_lab.sweeps.summary_tables import cells, csv_text, level_label, paper_point

VARIANTS = "sweep.variants={base: {}, tanh: {model.activation: tanh}, slow: {optimizer.learning_rate: 1e-3}}"


def test_a_variant_sets_its_keys_and_nothing_else(tmp_path):
    plan = planned(VARIANTS, "seed=0,1", f"hydra.sweep.dir={tmp_path}")
    assert [job.name for job in plan.jobs] == [
        "base_seed-0", "base_seed-1", "tanh_seed-0", "tanh_seed-1", "slow_seed-0", "slow_seed-1",
    ]  # fmt: skip
    assert plan.definition.about["factor"] == ["sweep.variant"]
    base, tanh, slow = (plan.configs[f"{name}_seed-0"] for name in ("base", "tanh", "slow"))
    assert (base.model["activation"], tanh.model["activation"]) == ("relu", "tanh")
    assert slow.optimizer["learning_rate"] == 1e-3
    assert base.model == slow.model
    assert base.optimizer == tanh.optimizer


def test_what_a_variant_sets_counts_more_than_what_all_jobs_set_and_less_than_the_grid(tmp_path):
    words = (VARIANTS, "model.activation=sigmoid", f"hydra.sweep.dir={tmp_path}")
    configs = planned(*words).configs
    assert [config.model["activation"] for config in configs.values()] == ["sigmoid", "tanh", "sigmoid"]
    groups = "sweep.variants={base: {}, plain: {augment: none}}"
    configs = planned(groups, "augment=crop", "data=mnist", f"hydra.sweep.dir={tmp_path / 'groups'}").configs
    assert [config.augment is None for config in configs.values()] == [False, True]
    swept = planned(VARIANTS, "model.pool=max,min", "sweep.variant=tanh", f"hydra.sweep.dir={tmp_path / 'swept'}")
    models = [config.model for config in swept.configs.values()]
    assert [(model["activation"], model["pool"]) for model in models] == [("tanh", "max"), ("tanh", "min")]


def test_some_of_the_variants_may_be_asked_for(tmp_path):
    plan = planned(VARIANTS, "sweep.variant=slow,base", f"hydra.sweep.dir={tmp_path}")
    assert [job.name for job in plan.jobs] == ["slow", "base"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((VARIANTS, "sweep.variant=base,tahn"), "`sweep.variant` is tahn; did you mean `tanh`?"),
        (("sweep.variants={base: {}, odd: {model.nrom: none}}",), "unknown key `model.nrom`"),
        (("sweep.variants={base: {}, odd: {model.activation: tahn}}",), "`model.activation` is 'tahn' (str)"),
        ((VARIANTS, "sweep.variant=x"), "`sweep.variant` is x; allowed: base, slow, tanh"),
        (("sweep.variants={base: {}, b: tanh}",), "`sweep.variants.b` is 'tanh' (str); allowed: a group of keys"),
        (("sweep.variants={base: null}",), "`sweep.variants.base` is None (NoneType); allowed: a group of keys"),
        (
            ("sweep.variants={base: [model.activation, tanh]}",),
            "`sweep.variants.base` is ['model.activation', 'tanh'] (l",
        ),
        (("sweep.variants=[a,b]",), "`sweep.variants` is ['a', 'b'] (list); allowed"),
        (("sweep.variants=5", "seed=0,1"), "`sweep.variants` is 5 (int); allowed"),
        (
            ("sweep.variants={base: {}, 0.5: {model.dropout: 0.5}}",),
            "`0.5` (float) cannot be a key of `sweep.variants`; allo",
        ),
        (("sweep.variants={base: {}, a: {model.activation: 'tanh '}}",), "`model.activation` is 'tanh ' (str)"),
        (("sweep.variants={base: {}, a: {run_dir: logs/q}}",), "`run_dir` is the directory of one run"),
        (
            (VARIANTS, "sweep.paper_points={tahn: 1}"),
            "`sweep.paper_points` names tahn, which is no variant; did you mea",
        ),
    ],
)
def test_wrong_variants_are_refused_in_one_line(words, message, tmp_path):
    outcome = call(train, "train", "-m", *words, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


def test_values_of_a_variant_are_those_of_its_yaml(tmp_path):
    weights = tmp_path / "w (1).ckpt"
    weights.touch()
    values = {"tags": ["0.1", "a b", "null"], "init_from": str(weights), "freeze": ["c1,c3"],
              "transforms": {"erase": {"_target_": "torchvision.transforms.v2.RandomErasing", "p": 0.5}},
              "model": {"activation": "tanh", "pool": "max"}}  # fmt: skip
    file = tmp_path / "sweep" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(
        "# @package _global_\n" + yaml.safe_dump({"sweep": {"variants": {"base": {}, "a": values}}}, sort_keys=False)
    )
    base, found = planned(
        "sweep=mine", "--config-dir", str(tmp_path), f"hydra.sweep.dir={tmp_path / 's'}"
    ).configs.values()
    assert [getattr(found, key) for key in ("tags", "init_from", "freeze")] == [values[key] for key in list(values)[:3]]
    assert found.transforms["erase"]["p"] == 0.5
    assert found.model == base.model | values["model"]


def test_a_swept_key_that_a_variant_sets_too_is_reported(tmp_path):
    words = (VARIANTS, "optimizer.learning_rate=0.1,0.2", "--dry-run", f"hydra.sweep.dir={tmp_path}")
    outcome = call(train, "train", "-m", *words)
    assert outcome.code == 0
    assert outcome.err.count("`optimizer.learning_rate` is swept, so its value in slow is not used") == 1


@pytest.mark.parametrize("place", ["", "' '"])
def test_an_empty_folder_is_refused(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = call(train, "train", "-m", "seed=0,1", f"hydra.sweep.dir={place}")
    assert outcome.code == 2
    assert "`hydra.sweep.dir` is empty; allowed: the folder of the sweep" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_variant_is_a_label_and_its_jobs_are_known_by_what_they_compute(tmp_path):
    one = planned(VARIANTS, f"hydra.sweep.dir={tmp_path}")
    other = planned(VARIANTS.replace("tanh:", "no_relu:"), f"hydra.sweep.dir={tmp_path}")
    grid = planned("model.activation=relu,tanh", f"hydra.sweep.dir={tmp_path}")
    contents = [job.content for job in one.jobs]
    assert contents == [job.content for job in other.jobs]
    assert [job.content for job in grid.jobs] == contents[:2]


def test_a_variant_that_changes_nothing_is_reported_and_counts_once(tmp_path):
    variants = "sweep.variants={base: {}, same: {model.activation: relu}, tanh: {model.activation: tanh}}"
    outcome = call(train, "train", "-m", variants, "--dry-run", f"hydra.sweep.dir={tmp_path}")
    assert outcome.code == 0
    assert "sweep.variant=same computes the same as sweep.variant=base and counts once" in outcome.err
    assert "2 jobs: 0 done" in outcome.out


def test_a_variant_without_a_sweep_is_refused(tmp_path):
    task = runpy.run_path(str(REPOSITORY / "train.py"))["train"]
    outcome = call(task, "train", VARIANTS, "sweep.variant=tanh", f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 2
    assert "compares several runs, and this command starts one; add -m: python train.py -m" in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["a b", "../x", ".x", "", "a=b", "a,b"])
def test_a_variants_name_is_a_word(name):
    config = compose_raw()
    config["sweep"]["variants"] = {name: {}}
    with pytest.raises(ConfigError, match=r"a name of letters, digits and _ \. \+ -"):
        check_train(config)


ABOUT: dict[str, Any] = {
    "name": "ideas", "factor": ["sweep.variant"], "metric": "test/top1_error", "expects": "higher",
    "paper_points": {"no_lrn": 1.4}, "also": ["train/top1_error", "gap/top1_error"],
}  # fmt: skip


def outcomes() -> list[Outcome]:
    values = {"base": (0.20, 0.22), "no_lrn": (0.25, 0.272), "no_pool": (0.21, 0.209), "broken": (None, None)}
    return [
        Outcome({"sweep.variant": name, "seed": str(seed)}, "to_go" if value is None else "completed", value, value,
                () if value is None else (value - 0.1, 0.1))
        for name, pair in values.items()
        for seed, value in enumerate(pair)
    ]  # fmt: skip


def test_the_table_has_the_papers_number_a_verdict_and_the_further_metrics():
    summary = summarise(ABOUT, outcomes())
    head, rows = cells(summary)
    assert head[-4:] == ["paper, points", "verdict", "train/top1_error, %", "gap, %"]
    by_name = {row[0]: row[-4:] for row in rows}
    assert by_name == {
        "base": ["", "", "11.00", "10.00"],
        "no_lrn": ["+1.4", "supported", "16.10", "10.00"],
        "no_pool": ["", "undecided", "10.95", "10.00"],
        "broken": ["", "", "", ""],
    }
    records = {row["level"]: row for row in csv.DictReader(csv_text(summary).splitlines())}
    assert (records["no_lrn"]["paper_points"], records["no_pool"]["paper_points"]) == ("1.4", "")
    assert float(records["no_lrn"]["train/top1_error"]) == pytest.approx(0.161)


def test_the_papers_number_stands_where_one_factor_differs_from_the_base():
    found = [
        Outcome({"sweep.variant": name, "model.width": width, "seed": "0"}, "completed", value, value)
        for width in ("0.25", "0.5") for name, value in (("base", 0.2), ("no_lrn", 0.3))
    ]  # fmt: skip
    summary = summarise(ABOUT | {"factor": ["sweep.variant", "model.width"], "also": None}, found)
    assert {level_label(row): paper_point(summary, row) for row in summary.rows} == {
        "variant=base width=0.25": None, "variant=no_lrn width=0.25": 1.4, "variant=base width=0.5": None,
        "variant=no_lrn width=0.5": None,
    }  # fmt: skip


def test_the_gap_is_that_to_the_training_images_as_they_are_where_these_were_tested():
    metrics = {"val/top1_error": 0.3, "train/top1_error": 0.4, "val/loss": 1.0}
    assert with_gap(metrics) == metrics | {"gap/top1_error": pytest.approx(-0.1)}
    tested = metrics | {"train_set/top1_error": 0.25, "train_set/loss": 0.75}
    assert with_gap(tested) == tested | {"gap/top1_error": pytest.approx(0.05), "gap/loss": pytest.approx(0.25)}
    assert with_gap({"train/loss": 1.0}) == {"train/loss": 1.0}


def test_ten_lines_of_yaml_make_a_sweep_that_is_trained_and_reported(digits_dir, tmp_path):
    file = CONFIGS / "sweep" / "ideas.yaml"
    assert len(yaml.safe_load(file.read_text())["sweep"]["variants"]) == 17
    place = tmp_path / "sweep"
    words = (VARIANTS, "seed=0,1", "sweep.also=[gap/top1_error]")
    code, err = swept(words, place, digits_dir)
    assert code == 0, err
    rows = list(csv.DictReader((place / "summary.csv").read_text().splitlines()))
    assert [(row["level"], row["n"]) for row in rows] == [("base", "2"), ("tanh", "2"), ("slow", "2")]
    results = [json.loads((place / f"base_seed-{seed}" / "result.json").read_text())["metrics"] for seed in (0, 1)]
    gaps = [result["val/top1_error"] - result["train/top1_error"] for result in results]
    assert float(rows[0]["gap/top1_error"]) == pytest.approx(sum(gaps) / 2)
    before = (place / "summary.csv").read_text()
    make_report(check_report({"sweep": str(place)}))
    assert (place / "summary.csv").read_text() == before
    code, err = swept((VARIANTS, "seed=0,1,2", *words[2:], "sweep.extend=true"), place, digits_dir)
    assert code == 0, err
    assert len((place / "ledger.jsonl").read_text().splitlines()) == 9  # three more
