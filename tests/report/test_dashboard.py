"""The W&B workspace and report as code: what they say without a login, and that they are saved with one."""

from __future__ import annotations

import json

import pytest
import wandb_file
import yaml
from commands import move_home
from made import make_sweep, report

dashboard = pytest.importorskip("alexnet_lab.report.dashboard")


@pytest.fixture
def logged_out(monkeypatch):
    monkeypatch.setattr("alexnet_lab.run.tracking.has_login", lambda: False)


def grouped(sweep, group):
    """The sweep with its runs in one W&B group."""
    for path in sweep.glob("*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        config["logger"] |= {"group": group, "project": "nets"}
        path.write_text(yaml.safe_dump(config))
    return sweep


def written(sweep, name):
    return json.loads((sweep / f"wandb_{name}.json").read_text())


def panels(spec):
    return {panel["viewType"]: panel["config"] for panel in spec}


def test_without_a_login_it_is_written_as_json(sweep, logged_out):
    outcome = report(f"sweep={grouped(sweep, 'activation')}", "wandb=true")
    assert outcome.code == 0
    assert (
        f"W&B: no login, so the workspace and the report are written as JSON: {sweep}/wandb_workspace.json"
        in outcome.err
    )
    found = written(sweep, "report")
    assert found["project"] == {"name": "nets", "entityName": "ENTITY"}
    grid, forest = (block for block in found["spec"]["blocks"] if block["type"] == "panel-grid")
    assert "differences" in json.dumps(forest["metadata"])
    (runset,) = grid["metadata"]["runSets"]
    assert "activation" in json.dumps(runset["filters"])
    assert [key["name"] for key in runset["grouping"]] == ["model.activation.value"]


def test_another_metric_has_its_own_files(sweep, logged_out):
    report(f"sweep={sweep}", "wandb=true")
    before = {name: written(sweep, name) for name in ("report", "workspace")}
    assert report(f"sweep={sweep}", "wandb=true", "metric=test/loss").code == 0
    assert {name: written(sweep, name) for name in before} == before
    assert "test/loss" in json.dumps([written(sweep, f"{name}_test_loss") for name in before])


def test_curves_are_grouped_by_the_factor(sweep, logged_out):
    report(f"sweep={grouped(sweep, 'g')}", "wandb=true", "entity=me", "project=mine")
    found = written(sweep, "report")
    assert found["project"] == {"name": "mine", "entityName": "me"}
    grid = next(block for block in found["spec"]["blocks"] if block["type"] == "panel-grid")
    drawn = grid["metadata"]["panelBankSectionConfig"]["panels"]
    lines = [panel["config"] for panel in drawn if panel["viewType"] == "Run History Line Plot"]
    names = "val/top1_error train/top1_error val/loss train/loss learning_rate images_per_second"
    assert [line["metrics"] for line in lines] == [[name] for name in names.split()]
    assert {(line["groupBy"], line["groupAgg"], line["groupArea"]) for line in lines} == {
        ("model.activation.value", "mean", "stddev")
    }
    kinds = panels(drawn)
    assert [column["accessor"] for column in kinds["Parallel Coordinates Plot"]["columns"]] == [
        "config:model.activation.value", "config:seed.value", "summary:test/top1_error",
    ]  # fmt: skip
    assert kinds["Media Browser"]["mediaKeys"] == ["augmentation", "confusion_matrix", "kernels"]
    assert "Run Comparer" in kinds


def test_workspace_has_the_same_panels(sweep, logged_out):
    report(f"sweep={grouped(sweep, 'g')}", "wandb=true")
    (section,) = written(sweep, "workspace")["spec"]["section"]["panelBankConfig"]["sections"]
    assert len(section["panels"]) == 10


def test_a_factor_that_chooses_a_group_becomes_the_key_that_differs_most(tmp_path, logged_out):
    folder = make_sweep(tmp_path / "sweep", {"a": [0.1], "b": [0.2]}, factor=["model"], base=None)
    text = (folder / "sweep.json").read_text().replace('"model.activation=', '"model=')
    (folder / "sweep.json").write_text(text)
    report(f"sweep={folder}", "wandb=true")
    grid = next(block for block in written(folder, "report")["spec"]["blocks"] if block["type"] == "panel-grid")
    assert [key["name"] for key in grid["metadata"]["runSets"][0]["grouping"]] == ["model.activation.value"]


def test_with_a_login_both_are_saved(sweep, monkeypatch, caplog):
    saved, logged = [], []
    monkeypatch.setattr(dashboard, "log_forest", lambda _, study, place, **__: logged.append(place))

    def save(built):
        saved.append(built)

    monkeypatch.setattr("alexnet_lab.run.tracking.has_login", lambda: True)
    monkeypatch.setattr(dashboard.ws.Workspace, "save", save)
    monkeypatch.setattr(dashboard.wr.Report, "save", save)
    monkeypatch.setattr(dashboard.ws.Workspace, "url", "https://example.org/workspace")
    monkeypatch.setattr(dashboard.wr.Report, "url", "https://example.org/report")
    outcome = report(f"sweep={sweep}", "wandb=true", "entity=me")
    assert outcome.code == 0
    assert [type(built).__name__ for built in saved] == ["Workspace", "Report"]
    sets = dashboard.runsets(saved[1])
    assert [(runset.entity, runset.project) for runset in sets] == [("me", "alexnet-lab")] * 2
    assert [place.entity for place in logged] == ["me"]
    assert "W&B report: https://example.org/report" in outcome.err


def test_what_wandb_refuses_is_reported_in_one_line(sweep, monkeypatch):
    def refuse(built):
        raise ValueError("no\npermission")

    monkeypatch.setattr("alexnet_lab.run.tracking.has_login", lambda: True)
    monkeypatch.setattr(dashboard, "log_forest", lambda *_, **__: None)
    monkeypatch.setattr(dashboard.ws.Workspace, "save", refuse)
    outcome = report(f"sweep={sweep}", "wandb=true", "entity=me")
    assert outcome.code == 1
    assert f"error: W&B: ValueError: no permission; the specification is in {sweep}" in outcome.err


def test_the_forest_plot_is_a_picture_of_one_run(sweep, logged_out, monkeypatch, tmp_path):
    move_home(monkeypatch, tmp_path / "home")
    for _ in range(2):
        assert report(f"sweep={grouped(sweep, 'activation')}", "wandb=true").code == 0
    first, second = (wandb_file.read_file(path) for path in sorted(sweep.glob("wandb/offline-run-*/*.wandb")))
    assert first.id == second.id
    assert (first.name, first.job_type, first.project) == ("report of activation", "report", "nets")
    (picture,) = [name for name in first.files if "differences" in name]
    assert (first.folder / picture).read_bytes() == (sweep / "figures" / "differences.png").read_bytes()
    assert [row["_step"] for part in (first, second) for row in part.history] == [0, 1]
    assert report(f"sweep={sweep}", "wandb=true", "metric=test/loss").code == 0
    other = wandb_file.read_file(max(sweep.glob("wandb/offline-run-*/*.wandb")))
    assert any("differences_test_loss" in name for name in other.files)
    assert "differences_test_loss" in json.dumps(written(sweep, "report_test_loss"))
