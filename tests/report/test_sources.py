"""What sweeps and runs on disk are taken for."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest
import yaml
from filelock import FileLock
from made import make_run, make_sweep

from alexnet_lab.base.errors import RunError
from alexnet_lab.report.comparison import columns
from alexnet_lab.report.figures import figures
from alexnet_lab.report.page import page
from alexnet_lab.report.sources import from_runs, from_sweep, level_name
from alexnet_lab.report.text_tables import level_table, origin, state_line, summary_of


def test_levels_seeds_and_failures(sweep):
    study = from_sweep(sweep)
    assert study.levels == ("relu", "tanh")
    assert [(run.level, run.seed, run.status) for run in study.runs] == [
        *(("relu", seed, "completed") for seed in range(3)),
        ("tanh", 0, "completed"), ("tanh", 1, "completed"), ("tanh", 2, "failed"),
    ]  # fmt: skip
    assert [run.error for run in study.failures] == ["RunError: the training loss is nan"]
    assert state_line(study) == "5 of 6 runs completed, 1 failed"
    assert (study.claim, study.paper) == ("ReLUs learn faster", "25 % after 5 epochs")


def test_table_of_levels(sweep):
    table = level_table(from_sweep(sweep), "test/top1_error")
    assert table.head[0] == "activation"
    relu, tanh = ([cell.split()[0] if cell else "" for cell in row] for row in table.rows)
    # tanh - relu of seeds 0 and 1: 0.10 and 0.09; mean 9.5, deviation 0.7071, t(1) = 12.706 -> half-width 6.353
    assert relu[:4] == ["relu", "3", "12.00", "2.00"]
    assert tanh[:5] == ["tanh", "2", "20.50", "0.71", "+9.50"]
    assert table.rows[1][5] == "+3.15 to +15.85"


def test_jobs_that_have_not_run_are_to_go(tmp_path):
    study = from_sweep(make_sweep(tmp_path / "sweep", {"relu": [0.1, None], "tanh": [None, None]}))
    assert state_line(study) == "1 of 4 runs completed, 3 to go"
    assert study.levels == ("relu", "tanh")


def test_an_interrupted_job_is_what_the_ledger_says(sweep):
    lines = [json.loads(line) for line in (sweep / "ledger.jsonl").read_text().splitlines()]
    last = lines[0] | {"status": "interrupted", "error": "Ctrl-C"}
    (sweep / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, last]) + '{"job": "mod')
    folder = sweep / lines[0]["job"]
    whole = (folder / "result.json").read_text()
    (folder / "result.json").write_text(json.dumps(json.loads(whole) | {"status": "interrupted", "error": "SIGTERM"}))
    run = from_sweep(sweep).runs[0]
    assert (run.status, run.error) == ("interrupted", "Ctrl-C")
    (folder / "result.json").write_text(whole)  # somebody has resumed the run itself since
    assert from_sweep(sweep).runs[0].status == "completed"
    (folder / "result.json").write_text(json.dumps(json.loads(whole) | {"status": "interrupted"}))
    with FileLock(folder / ".lock"):  # it is being resumed
        assert from_sweep(sweep).runs[0].status == "running"


def test_a_job_whose_folder_was_deleted_is_to_go(sweep):
    before = from_sweep(sweep)
    shutil.rmtree(before.completed[0].path)
    assert len(from_sweep(sweep).completed) == len(before.completed) - 1
    assert from_sweep(sweep).runs[0].status == "to_go"


def test_a_damaged_run_is_unreadable(sweep):
    (sweep / "model.activation-relu_seed-0" / "result.json").write_text("{")
    run = from_sweep(sweep).runs[0]
    assert run.status == "unreadable"
    assert run.error is not None
    assert "result.json cannot be read" in run.error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no sweep: it has no sweep.json; for single runs: runs="),
        ("{", "sweep.json cannot be read"),
        ("[]", "sweep.json cannot be read"),
        ('{"command": "", "overrides": [], "config": {}, "jobs": []}', "sweep.json lists no jobs"),
    ],
)
def test_what_is_no_sweep(content, message, tmp_path):
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(RunError, match=message):
        from_sweep(tmp_path)


def test_a_run_that_is_taken_for_a_sweep(tmp_path):
    run = make_run(tmp_path / "a run")
    with pytest.raises(RunError) as error:
        from_sweep(run)
    assert str(error.value).endswith(f"""for single runs: "runs='{run}'\"""")


def test_no_directory(tmp_path):
    with pytest.raises(RunError, match="there is no sweep directory"):
        from_sweep(tmp_path / "nothing")


def test_a_sweep_over_the_seed_alone_is_one_level(tmp_path):
    folder = make_sweep(tmp_path / "sweep", {"relu": [0.1, 0.3]}, factor=[], base=[])
    text = (folder / "sweep.json").read_text().replace('"model.activation=relu", ', "")
    (folder / "sweep.json").write_text(text)
    study = from_sweep(folder)
    assert study.levels == ("all",)
    assert level_table(study, "test/top1_error").rows[0][:3] == ["all", "2", "20.00"]


def test_points_of_the_paper_are_those_of_the_sweeps_metric(tmp_path):
    errors = {"relu": [0.1, 0.2], "tanh": [0.3, 0.2]}
    study = from_sweep(make_sweep(tmp_path / "sweep", errors, paper_points={"tanh": 3.0}))
    for metric in study.metric_names():
        table = level_table(study, metric)
        assert ("paper, points" in table.head) == ("the paper" in table.forest) == (metric == "test/top1_error")


def test_how_soon_an_error_is_reached_is_a_metric(sweep):
    path = sweep / "model.activation-relu_seed-0" / "result.json"
    reached = {"error": 0.25, "epochs": 5.5, "steps": 100, "seconds": None}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"to_error": reached}))
    study = from_sweep(sweep)
    assert study.target == 0.25
    assert study.runs[0].metrics["to_error/epochs"] == 5.5
    assert "to_error/seconds" not in study.runs[0].metrics
    assert study.metric_names()[-1] == "to_error/steps"


def test_epochs_to_an_error_are_no_share(sweep):
    path = sweep / "model.activation-relu_seed-0" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"to_error": {"error": 0.25, "epochs": 12.0}}))
    study = from_sweep(sweep).of_metric("to_error/epochs")
    assert [text for text in ("12", "1200.00 %") if f'<td class="number">{text}</td>' in page(study, sweep)] == ["12"]
    axis = figures(study)["levels"].axes[0].xaxis
    assert axis.get_major_formatter().format_ticks([12.0]) == ["12"]


def test_runs_that_differ_in_the_seed_alone_are_one_level(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"a{seed}", seed=seed, overrides=[f"seed={seed}", "data=mnist"])
        make_run(tmp_path / f"b{seed}", seed=seed, overrides=["data=mnist", "model.activation=tanh"], activation="tanh")
    study = from_runs([f"{tmp_path}/*"])
    assert study.levels == ("as configured", "model.activation=tanh")
    assert [run.seed for run in study.runs] == [0, 1, 0, 1]
    assert level_table(study, "test/top1_error").rows[1][1] == "2"


def test_levels_of_the_same_name_are_called_by_what_differs(tmp_path):
    make_run(tmp_path / "before", activation="relu")
    make_run(tmp_path / "after", activation="tanh")
    assert from_runs([f"{tmp_path}/*"]).levels == ("as configured", "model.activation=relu")


def test_a_level_is_named_by_the_words_that_count_in_all_its_runs(tmp_path):
    words = ["model.pool=average", "model.activation=tanh", "model.pool=max"]
    make_run(tmp_path / "a", activation="relu")
    make_run(tmp_path / "b", seed=0, overrides=["model.activation=tanh"], activation="tanh")
    make_run(tmp_path / "c", seed=1, overrides=words, activation="tanh")
    assert from_runs([f"{tmp_path}/*"]).levels == ("as configured", "model.activation=tanh")
    (tmp_path / "b").rename(tmp_path.parent / "elsewhere")
    assert from_runs([f"{tmp_path}/*"]).levels == ("as configured", "model.activation=tanh model.pool=max")


def test_a_seed_counts_once_however_often_it_is_trained(tmp_path, caplog):
    make_run(tmp_path / "one", error=0.1)
    make_run(tmp_path / "other", error=0.2, seed=1)
    make_run(tmp_path / "two", error=0.3)
    assert level_table(from_runs([f"{tmp_path}/*"]), "test/top1_error").rows[0][:3] == ["all", "2", "15.00"]
    assert f"{tmp_path}/two has the config and the seed of {tmp_path}/one and is left out" in caplog.text


def test_numbers_of_a_result_that_are_no_metrics_of_their_own(sweep):
    for metric, value in (("epochs", 2.0), ("gap/top1_error", 0.02)):
        for path in sweep.glob("*/result.json"):
            result = json.loads(path.read_text())
            metrics = result["metrics"] | {"val/top1_error": 0.12, "train/top1_error": 0.1}
            path.write_text(json.dumps(result | {"metrics": metrics, "epochs": 2}))
        study = from_sweep(sweep).of_metric(metric)
        assert metric in study.metric_names()
        assert {round(run.metrics[metric], 6) for run in study.completed} == {value}


def test_tuned_keys_are_chosen_by_the_metric_of_the_sweep(sweep):
    """Whatever metric the report is about: of this one a higher value is better."""
    study = from_sweep(sweep)
    metrics = ({"val/top1_error": 0.1, "test/f1": 0.9}, {"val/top1_error": 0.5, "test/f1": 0.4})
    runs = [
        replace(run, settings={**run.settings, "lr": str(run.seed)}, status="completed", metrics=metrics[run.seed])
        for run in study.runs
        if run.seed in (0, 1)
    ]
    about = {**study.definition, "metric": "test/top1_error", "tuned": ["lr"]}
    rows = summary_of(replace(study, runs=tuple(runs), definition=about), "test/f1").rows
    assert [(row.tuned, row.sample.mean) for row in rows] == [((("lr", "0"),), 0.9)] * 2


def test_no_runs(tmp_path):
    with pytest.raises(RunError, match=r"no runs found by runs=.*; a run is a directory with a config.yaml"):
        from_runs([f"{tmp_path}/*"])


def test_level_names():
    two = {"model.norm": "none", "model.width": "2", "seed": "1"}
    assert level_name(two, ["model.norm"]) == "none width=2"
    assert level_name(two, ["model.norm", "model.width"]) == "norm=none width=2"
    assert level_name({"seed": "1"}, []) == "all"


def test_columns_without_numbers():
    rows = [{"epoch": "0", "val/loss": ""}, {"epoch": "1", "val/loss": "nan"}, {"epoch": "2", "val/loss": "0.5"}]
    assert columns(rows) == {"epoch": [0, 1, 2], "val/loss": [None, None, 0.5]}


def test_origin_lists_all_commits(sweep):
    other = sweep / "model.activation-tanh_seed-0" / "manifest.json"
    other.write_text(other.read_text().replace("0123abcd", "4567").replace("false", "true"))
    facts = dict(origin(from_sweep(sweep)))
    assert facts["commit"] == "0123abcd; or 4567 with changes that are in no commit"
    assert facts["hardware"] == "2 cores of a processor, 8.0 GiB, no GPU"
    assert facts["versions"] == "Python 3.11.7, torch 2.9.0"
    assert facts["time"] == "1 min 12 s for 6 runs"


def test_metric_that_is_nan_is_left_out(sweep):
    path = sweep / "model.activation-relu_seed-0" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": {"test/top1_error": None}}))
    study = from_sweep(sweep)
    assert "test/top1_error" not in study.runs[0].metrics
    assert not math.isnan(sum(value for run in study.runs for value in run.metrics.values()))


def with_data(run, data, images=None, **result):
    """A run that recorded on which images it was."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"data": data}))
    if images is not None:
        found = json.loads((run / "result.json").read_text()) | {"store_hash": images, "split_hash": "s"}
        (run / "result.json").write_text(json.dumps(found | result))


MNIST, CIFAR10 = ({"_target_": f"alexnet_lab.data.{name}DataModule"} for name in ("MNIST", "CIFAR10"))


def test_runs_on_different_images_are_grouped_and_not_compared(tmp_path):
    for seed in range(2):
        for activation, error in (("relu", 0.1), ("tanh", 0.2)):
            run = make_run(tmp_path / f"m{activation}{seed}", seed=seed, error=error + seed / 50, activation=activation)
            with_data(run, MNIST | {"dir": f"data{seed}"}, "a")
        with_data(make_run(tmp_path / f"c{seed}", seed=seed, error=0.4 + seed / 100), CIFAR10, "b")
    with_data(make_run(tmp_path / "z", seed=9, status="interrupted", reason="Ctrl-C"), CIFAR10)
    study = from_runs([f"{tmp_path}/*"])
    table = level_table(study, "test/top1_error")
    assert table.head[:3] == ["data", "model", "level"]
    assert [row[:6] for row in table.rows if row[0] == "CIFAR10"] == [
        ["CIFAR10", "LeNet5", "LeNet5", "2", "40.50", "0.71"]
    ]
    relu, tanh = sorted(row for row in table.rows if row[0] == "MNIST")
    assert (relu[4], tanh[4]) == ("11.00", "21.00")
    assert {relu[6], tanh[6]} in ({"base", "+10.00"}, {"base", "-10.00"})
    assert "Runs on different images are not compared." in table.note
    assert study.subject == {"model": "LeNet5", "data": "CIFAR10, MNIST"}
    (interrupted,) = (run for run in study.runs if run.status == "interrupted")
    assert interrupted.level == "CIFAR10: LeNet5"


def test_the_same_images_by_another_config_are_one_group(tmp_path):
    with_data(make_run(tmp_path / "a"), CIFAR10 | {"val_seed": 1}, "a")
    with_data(make_run(tmp_path / "b", seed=1), CIFAR10 | {"val_seed": 2}, "a")
    with_data(make_run(tmp_path / "c", seed=2), CIFAR10 | {"val_seed": 3}, "a", split_hash="other")
    study = from_runs([f"{tmp_path}/*"])
    assert [len(runs) for runs in study.groups.values()] == [2, 1]
    assert list(study.groups) == ["CIFAR10 val_seed=1", "CIFAR10 val_seed=3"]


def test_a_trial_that_a_search_ended_early_counts_as_such(sweep, monkeypatch):
    monkeypatch.setattr("alexnet_lab.report.sources.pruned_jobs", lambda folder: {"model.activation-relu_seed-2"})
    study = from_sweep(sweep)
    assert state_line(study) == "4 of 6 runs completed, 1 failed, 1 ended early"
    table = level_table(study, "test/top1_error")
    assert table.rows[0][1:3] == ["2", "11.00"]
    assert table.rows[0][-1] == "1 ended early"


def test_a_trial_that_a_search_ended_early_is_no_result_of_runs_either(tmp_path, monkeypatch):
    for seed in range(3):
        make_run(tmp_path / "search" / f"r{seed}", seed=seed)
    monkeypatch.setattr("alexnet_lab.report.sources.pruned_jobs", lambda folder: {"r1"})
    assert state_line(from_runs([f"{tmp_path}/search/*"])) == "2 of 3 runs completed, 1 ended early"


def test_what_the_intervals_say(tmp_path):
    levels = {
        "base": [0.20, 0.22, 0.24], "worse": [0.30, 0.33, 0.34], "same": [0.20, 0.23, 0.23],
        "better": [0.1, 0.13, 0.14], "equal": [0.21, 0.23, 0.25], "one": [0.5],
    }  # fmt: skip
    folder = make_sweep(tmp_path / "sweep", levels, base=["base"], expects="higher")
    lines = level_table(from_sweep(folder), "test/top1_error").lines
    assert lines == [
        "worse: supported by these seeds: the interval lies above 0",
        "same: undecided by these seeds: the interval contains 0",
        "better: contradicted by these seeds: the interval lies below 0",
        "equal: undecided: all differences are +1.00, so no interval can be given",
        "one: undecided: too few seeds for an interval",
    ]
    other = level_table(from_sweep(folder), "test/loss").lines  # which the claim does not speak of
    assert other[0] == "worse: higher by these seeds: the interval lies above 0"
    (folder / "sweep.json").write_text((folder / "sweep.json").read_text().replace('"higher"', "null"))
    lines = level_table(from_sweep(folder), "test/top1_error").lines
    assert lines[0] == "worse: higher by these seeds: the interval lies above 0"
    assert lines[2] == "better: lower by these seeds: the interval lies below 0"
