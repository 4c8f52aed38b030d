"""What a finished run leaves, and that it can be had again."""

from __future__ import annotations

import csv
import json
import shutil
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from commands import call

from alexnet_lab.base.errors import ConfigError, DataError, RunError
from alexnet_lab.config import check_train
from alexnet_lab.run import train
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.training.checkpoint_io import load_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=12")
"""As the shared run `digits_run`."""

TIMES = ("images_per_second", "wall_seconds")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in (*TIMES, "overrides")}


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoints" / f"{name}.ckpt")["state_dict"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_files(digits_run):
    assert {path.name for path in digits_run.iterdir()} == {
        "config.yaml", "result.json", "metrics.csv", "checkpoints", "manifest.json", "train.log",
    }  # fmt: skip
    kept = {path.name for path in (digits_run / "checkpoints").iterdir()}
    assert kept == {"best.ckpt", "best.safetensors", "last.ckpt"}


def test_result(digits_run):
    found = result(digits_run)
    assert found["status"] == "completed"
    assert found["error"] is None
    assert (found["epochs"], found["steps"], found["num_parameters"], found["num_macs"]) == (2, 24, 61_706, 416_520)
    assert found["version"] == 1
    assert found["images_per_second"] > 0
    assert found["wall_seconds"] > 0
    assert found["best_checkpoint"] == "checkpoints/best.ckpt"
    assert "trainer.max_epochs=2" in found["overrides"]
    names = {f"{stage}/{name}" for stage in ("train", "val", "test") for name in ("loss", "top1_error", "top5_error")}
    assert set(found["metrics"]) == names
    assert all(isinstance(value, float) for value in found["metrics"].values())
    assert all(0 <= value <= 1 for name, value in found["metrics"].items() if "error" in name)


def test_result_holds_the_metrics_of_the_best_epoch(digits_run):
    found, best = (
        result(digits_run),
        min(rows(digits_run), key=lambda row: (float(row["val/top1_error"]), -int(row["epoch"]))),
    )
    assert found["best_epoch"] == int(best["epoch"])
    assert found["metrics"]["val/loss"] == float(best["val/loss"])
    assert found["metrics"]["train/loss"] == float(best["train/loss"])


def test_metrics_csv(digits_run):
    found = rows(digits_run)
    assert [(row["epoch"], row["step"]) for row in found] == [("1", "12"), ("2", "24")]
    assert set(found[0]) == {
        "epoch", "step", "train/loss", "train/top1_error", "train/top5_error", "val/loss", "val/top1_error",
        "val/top5_error", "learning_rate", "images_per_second",
    }  # fmt: skip


def test_manifest_records_versions_and_no_environment(digits_run):
    manifest = json.loads((digits_run / "manifest.json").read_text())
    assert set(manifest) == {"git", "command", "python", "packages", "hardware", "system", "precision", "init_from"}
    assert manifest["precision"] == {"precision": "32-true", "float32": "highest"}
    assert manifest["packages"]["torch"] == version("torch")
    assert manifest["hardware"]["cores"] >= 1
    assert set(manifest["git"] or {"commit": "", "dirty": False}) == {"commit", "dirty"}


def test_log_reports_each_epoch(digits_run):
    text = (digits_run / "train.log").read_text()
    assert "rank 0 INFO alexnet_lab.training.callbacks: epoch 2/2 | train loss" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("name", ["best", "last"])
def test_checkpoints_hold_plain_values_and_plain_names(digits_run, name):
    checkpoint = torch.load(digits_run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    assert sum(value.numel() for value in checkpoint["state_dict"].values()) == 61_706
    assert all(key.startswith("net.") and "_orig_mod" not in key for key in checkpoint["state_dict"])
    assert "=" not in name


def test_config_is_complete_and_enough_to_run_again(digits_run, tmp_path, monkeypatch):
    saved = yaml.safe_load((digits_run / "config.yaml").read_text())
    assert check_train(saved).model_dump() == saved
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits_run, tmp_path / "before")
    words = ("--config-path=before", "--config-name=config", f"run_dir={tmp_path / 'again'}")
    outcome = call(train, "train", *words)
    assert outcome.code == 0, outcome.err
    assert [timeless(row) for row in rows(tmp_path / "again")] == [timeless(row) for row in rows(digits_run)]
    assert result(tmp_path / "again")["metrics"] == result(digits_run)["metrics"]
    assert same(weights(tmp_path / "again"), weights(digits_run))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "before"]  # no outputs/ of Hydra's


def test_another_seed_is_another_run(digits_run, compose, tmp_path):
    train(compose(f"run_dir={tmp_path / 'one'}", "seed=1", *SHORT))
    assert not same(weights(tmp_path / "one"), weights(digits_run))
    assert rows(tmp_path / "one")[0]["train/loss"] != rows(digits_run)[0]["train/loss"]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_finished_run_is_not_overwritten(digits_run, compose):
    before = content(digits_run)
    with pytest.raises(RunError, match="contains a finished run; choose another run_dir"):
        train(compose(f"run_dir={digits_run}", *SHORT))
    with pytest.raises(RunError, match="is a finished run; there is nothing to resume"):
        train({"resume": str(digits_run)})
    assert content(digits_run) == before


def test_folder_of_other_things_is_left_alone(compose, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"is not empty \(it contains notes.txt\)"):
        train(compose(f"run_dir={tmp_path}", *SHORT))
    assert content(tmp_path) == {"notes.txt": b"mine"}


def test_unfinished_run_is_to_be_resumed(digits_run, compose, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    (run / "result.json").unlink()
    before = content(run)
    with pytest.raises(RunError, match=r"contains an unfinished run; resume it: python train\.py resume="):
        train(compose(f"run_dir={run}", *SHORT))
    assert content(run) == before


def test_run_that_failed_before_its_first_checkpoint_may_be_started_again(compose, tmp_path, monkeypatch):
    run = tmp_path / "run"
    config = compose(f"run_dir={run}", "debug=fast")
    with monkeypatch.context() as patch:
        patch.setattr("alexnet_lab.run.engine.build_classifier", _broken)
        with pytest.raises(RunError, match="the run failed: ZeroDivisionError: on purpose"):
            train(config)
    assert result(run)["status"] == "failed"
    assert train(config)["status"] == "completed"


def _broken(config: dict[str, Any]) -> Any:
    raise ZeroDivisionError("on purpose")


def test_place_below_a_file(compose, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"the run cannot go to \S+/file/run: \S+/file is no folder;"):
        train(compose(f"run_dir={tmp_path / 'file' / 'run'}"))


def test_place_in_use(compose, tmp_path):
    from alexnet_lab.run.run_directory import RunDirectory

    run = tmp_path / "run"
    with RunDirectory(run).claimed():
        with pytest.raises(RunError, match="is in use by another process"):
            train(compose(f"run_dir={run}"))
        assert run.is_dir()
    assert not run.exists()


def test_nothing_is_left_where_the_data_is_missing(compose, tmp_path):
    config = compose(f"run_dir={tmp_path / 'run'}", "model=alexnet", "data=mini_imagenet", "model.width=0.1")
    with pytest.raises(DataError):
        train(config)
    assert not (tmp_path / "run").exists()


def test_batch_larger_than_the_data_is_reported_before_the_run(compose, tmp_path):
    with pytest.raises(ConfigError, match=r"`data.batch_size` is 2000, but there are only 1294 training images"):
        train(compose(f"run_dir={tmp_path / 'run'}", "data.batch_size=2000"))
    assert not (tmp_path / "run").exists()


def test_network_that_cannot_be_built_is_reported_before_the_run(compose, tmp_path):
    config = compose(f"run_dir={tmp_path / 'run'}", "model=torchvision", "model.name=resnet18", "data=digits")
    config["model"]["name"] = "resnet19"
    with pytest.raises(ConfigError, match="resnet19"):
        train(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", ["directory", "file", "empty", "damaged", "list"])
def test_resume_of_what_is_no_run(what, tmp_path):
    run = tmp_path / "run"
    messages = {
        "directory": "there is no run directory", "file": "is a file; allowed: a run directory",
        "empty": "is no run directory: it has no config.yaml", "damaged": "config.yaml cannot be read",
        "list": "config.yaml contains no config",
    }  # fmt: skip
    if what == "file":
        run.write_text("")
    elif what != "directory":
        run.mkdir()
    if what in ("damaged", "list"):
        (run / "config.yaml").write_text({"damaged": "a: [", "list": "- 1"}[what])
    with pytest.raises(RunError, match=messages[what]):
        train({"resume": str(run)})


def test_resume_without_a_checkpoint(digits_run, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(digits_run / "config.yaml", run)
    with pytest.raises(RunError, match=r"has no checkpoint to resume from; start it again with its config.yaml"):
        train({"resume": str(run)})


def test_resume_takes_no_other_seed(digits_run):
    with pytest.raises(ConfigError, match="`seed` is 0 in the run and cannot become 1: that would be another experim"):
        train({"resume": str(digits_run), "changes": {"seed": 1}})


def test_result_of_a_run_whose_path_is_no_text_can_be_read(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.write_result({"status": "completed", "metrics": {}, "overrides": ["run_dir=caf\udce9"]})
    assert directory.readable_result()["overrides"] == [r"run_dir=caf\udce9"]


def test_damaged_result(digits_run, compose, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "result.json").write_text("{")
    with pytest.raises(RunError, match=r"result.json cannot be read"):
        train(compose(f"run_dir={run}"))
    (run / "result.json").write_text("[]")
    with pytest.raises(RunError, match=r"result.json contains no result"):
        train(compose(f"run_dir={run}"))
