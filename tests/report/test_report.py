"""report.py from the command line to the files."""

from __future__ import annotations

import csv
import json
import time

import numpy as np
import pytest
import yaml
from made import make_run, make_sweep, report

from alexnet_lab.report.figures import figures, mean_course
from alexnet_lab.report.sources import from_runs, from_sweep
from alexnet_lab.sweeps.results import update_summary
from alexnet_lab.sweeps.sweep_directory import SweepDirectory


def test_of_a_sweep(sweep):
    outcome = report(f"sweep={sweep}")
    assert outcome.code == 0
    assert f"5 of 6 runs completed, 1 failed; report: {sweep}/report.html" in outcome.err
    names = {path.relative_to(sweep).as_posix() for path in sweep.rglob("*") if path.suffix in (".png", ".svg")}
    assert names == {
        f"figures/{name}.{kind}" for name in ("levels", "differences", "curves") for kind in ("png", "svg")
    }
    with (sweep / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["level"], row["n"], round(float(row["mean"]), 9)) for row in rows] == [
        ("relu", "3", 0.12),
        ("tanh", "2", 0.205),
    ]
    assert "| tanh | 2 | 20.50" in (sweep / "summary.md").read_text()


def test_of_any_runs_by_another_metric(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        make_run(tmp_path / "logs" / "runs" / f"a{seed}", seed=seed, overrides=["model=a"], activation="tanh")
        make_run(tmp_path / "logs" / "runs" / f"b{seed}", seed=seed, overrides=["model=b"])
    outcome = report("runs=logs/runs/*", "metric=test/loss")
    assert outcome.code == 0
    (page,) = tmp_path.glob("logs/reports/*/report.html")
    text = page.read_text()
    assert '<td class="words">model=a</td>' in text
    assert 'href="./../../runs/a0/"' in text
    assert (page.parent / "summary.md").read_text().splitlines()[0].endswith("4 runs: test/loss")


def test_page_and_summary_name_model_and_data(sweep):
    for path in sweep.glob("*/config.yaml"):
        config = yaml.safe_load(path.read_text()) | {"data": {"_target_": "alexnet_lab.data.CIFAR10DataModule"}}
        path.write_text(yaml.safe_dump(config))
    assert report(f"sweep={sweep}").code == 0
    assert "\n\nModel: LeNet5\n\nData: CIFAR10\n\n" in (sweep / "summary.md").read_text()
    assert "<b>Data:</b> CIFAR10" in (sweep / "report.html").read_text()


@pytest.mark.parametrize("early", [set(), {"model.activation-relu_seed-0"}], ids=["a sweep", "a search"])
def test_the_summary_is_the_one_that_the_sweep_wrote(early, sweep, monkeypatch):
    for place in ("report.sources", "sweeps.results"):
        monkeypatch.setattr(f"alexnet_lab.{place}.pruned_jobs", lambda folder: early)
    content = json.loads((sweep / "sweep.json").read_text())
    config = {"model._target_": "alexnet_lab.models.AlexNet", "data._target_": "alexnet_lab.data.CIFAR10DataModule"}
    content |= {"config": config, "overrides": ["model=alexnet"], "expects": "higher"}
    nested = {key.partition(".")[0]: {"_target_": value} for key, value in config.items()}
    for job in content["jobs"]:  # whose runs have the configs of the definition
        job["config"] = {"seed": int(job["job"][-1])}
        if (path := sweep / job["job"] / "config.yaml").exists():
            path.write_text(yaml.safe_dump(nested | job["config"]))
    (sweep / "sweep.json").write_text(json.dumps(content))
    directory = SweepDirectory(sweep)
    definition = directory.read()
    assert definition is not None
    update_summary(directory, definition)
    before = {name: (sweep / name).read_text() for name in ("summary.md", "summary.csv")}
    assert "Model: AlexNet (model=alexnet)" in before["summary.md"]
    assert ("1 ended early" in before["summary.md"]) == bool(early)
    assert report(f"sweep={sweep}").code == 0
    assert {name: (sweep / name).read_text() for name in before} == before


def test_curves_of_runs_that_did_not_reach_their_end_are_dotted(tmp_path):
    make_run(tmp_path / "a", error=0.2)
    make_run(tmp_path / "b", error=0.3, seed=1, status="interrupted", reason="Ctrl-C")
    (make_run(tmp_path / "c", error=0.4, seed=2) / "result.json").unlink()
    axes = figures(from_runs([f"{tmp_path}/*"]))["curves"].axes[0]
    assert [line.get_linestyle() for line in axes.lines] == ["-", ":", ":"]
    assert [float(np.asarray(line.get_ydata())[-1]) for line in axes.lines] == pytest.approx(
        [error / 2 + np.exp(-2) for error in (0.2, 0.3, 0.4)]
    )


def test_of_one_run(tmp_path):
    more = {"layers/c1/update_ratio": 0.001, "layers/act1/dead_share": 0.25}
    run = make_run(tmp_path / "run", more=more)
    outcome = report(f"runs={run}", f"out={tmp_path / 'out'}")
    assert outcome.code == 0
    assert {path.name for path in (tmp_path / "out" / "figures").glob("*.png")} == {
        "levels.png",
        "run.png",
        "layers.png",
    }


def test_summary_and_figures_of_a_sweep_stay_those_of_its_metric(sweep):
    report(f"sweep={sweep}")
    files = [sweep / "summary.csv", sweep / "figures" / "levels.svg"]
    before = [path.read_text() for path in files]
    assert report(f"sweep={sweep}", "metric=test/loss").code == 0
    assert [path.read_text() for path in files] == before
    assert "0.36" in (sweep / "summary_test_loss.csv").read_text()
    assert "test/loss" in (sweep / "figures_test_loss" / "levels.svg").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "report.py takes either sweep=SWEEP_DIR or runs='logs/runs/*'"),
        (("sweep=a", "runs=b"), "report.py takes either sweep=SWEEP_DIR or runs='logs/runs/*'"),
        (("sweep=a", "sweep.metric=x"), "unknown key `sweep.metric`; did you mean `metric`?"),
        (("sweeps=a",), "unknown key `sweeps`; did you mean `sweep`?"),
        (("sweep=a", "wandb=1"), "`wandb` is 1 (int); allowed: boolean"),
        (("runs=nothing/*",), "no runs found by runs=nothing/*; a run is a directory with a config.yaml"),
    ],
)
def test_what_is_refused(words, message):
    outcome = report(*words)
    assert outcome.code == (1 if "no runs" in message else 2)
    assert message in outcome.err


def test_unknown_metric(sweep):
    outcome = report(f"sweep={sweep}", "metric=test/top1_eror")
    assert outcome.code == 2
    assert "no run has the metric `test/top1_eror`; did you mean `test/top1_error`?" in outcome.err


def test_a_goal_that_no_run_has_reached_yet(tmp_path):
    sweep = make_sweep(tmp_path / "sweep", {"relu": [0.1, 0.2], "tanh": [0.3, 0.4]}, metric="to_loss/epochs")
    outcome = report(f"sweep={sweep}")
    assert outcome.code == 0, outcome.err
    assert "no run has a value of to_loss/epochs yet; metric=test/loss shows another metric" in outcome.err
    assert "2 without a value" in (sweep / "summary.md").read_text()
    assert report(f"sweep={sweep}", "metric=to_loss/epochs").code == 2


def test_levels_figure_draws_each_run_and_the_mean(sweep):
    axes = figures(from_sweep(sweep))["levels"].axes[0]
    dots, mean, bar = axes.lines[:3]
    assert np.asarray(dots.get_xdata()).tolist() == [0.1, 0.12, 0.14]
    assert np.asarray(mean.get_xdata()).tolist() == pytest.approx([0.12, 0.12])
    assert np.asarray(bar.get_xdata()).tolist() == pytest.approx([0.10, 0.14])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["relu", "tanh"]


def test_mean_course_over_runs_of_unequal_length(tmp_path):
    make_run(tmp_path / "one", error=0.1, epochs=2)
    make_run(tmp_path / "two", error=0.3, epochs=1, seed=1)
    course = mean_course(from_runs([f"{tmp_path}/*"]).runs, "val/loss")
    assert course.epochs == [1, 2]
    assert course.means == pytest.approx([1.4, 0.2 + 0.36787944])
    assert course.high[0] - course.means[0] == pytest.approx(0.2 * 2**0.5)
    assert course.high[1] == course.means[1]


def test_one_epoch_is_a_dot_at_a_whole_number(tmp_path):
    make_run(tmp_path / "run", epochs=1)
    figure = figures(from_runs([str(tmp_path / "run")]))["run"]
    for axes in figure.axes:
        assert all(line.get_marker() == "o" for line in axes.lines)
        assert all(tick == round(tick) for tick in axes.get_xticks())


def test_layers_figure_has_plain_numbers(tmp_path):
    make_run(tmp_path / "run", more={"layers/c1/update_ratio": 0.001, "layers/act1/dead_share": 0.1})
    figure = figures(from_runs([str(tmp_path / "run")]))["layers"]
    figure.canvas.draw()
    labels = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels(which="both")]
    assert any(labels)
    assert not any("$" in label for label in labels)


@pytest.mark.slow
def test_sixty_runs_in_fifteen_seconds(tmp_path):
    for number in range(60):
        make_run(tmp_path / "runs" / f"{number:02}", seed=number % 5, epochs=30, width=number // 5)
    start = time.process_time()
    outcome = report(f"runs={tmp_path}/runs/*", f"out={tmp_path / 'out'}")
    assert outcome.code == 0
    assert time.process_time() - start < 15
