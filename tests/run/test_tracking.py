"""What the trackers are told, read back from their own files."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest
import wandb_file
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from alexnet_lab.base.errors import RunError
from alexnet_lab.run import tracking, train
from alexnet_lab.training import Classifier

SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=3", "trainer.limit_val_batches=2")


@pytest.fixture
def no_login(monkeypatch, tmp_path):
    """No account: nothing in the environment and nothing at home."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))


def test_offline_run_holds_config_history_and_summary(compose, tmp_path, no_login, capsys):
    run = tmp_path / "run"
    config = compose(
        f"run_dir={run}", *SHORT, "logger=wandb", "logger.group=widths", "tags=[a,b]", "logger.notes=few words"
    )
    result = train(config)
    found = wandb_file.read(run)
    assert (found.name, found.group, found.job_type, found.project) == ("run", "widths", "train", "alexnet-lab")
    assert found.tags == ["a", "b"]
    expected = tracking.flat(config)
    assert {key: found.config[key] for key in expected} == expected
    assert found.config["model.activation"] == "relu"
    assert found.exit_code == 0
    assert [row["epoch"] for row in found.history if "val/loss" in row] == [0, 1]
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    seen = [row["val/loss"] for row in found.history if "val/loss" in row]
    assert seen == pytest.approx([float(row["val/loss"]) for row in rows], rel=1e-6)
    assert found.summary["test/top1_error"] == result["metrics"]["test/top1_error"]
    assert "W&B: no login, so offline; after `wandb login`, `wandb sync` uploads the run" in capsys.readouterr().err


@pytest.fixture(scope="module")
def logged(compose, tmp_path_factory):
    """A run with pictures and all numbers, its directory, result and what W&B has of it."""
    path = tmp_path_factory.mktemp("logged") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        words = ("logger=wandb", "callbacks.augmentation_preview=true", "callbacks.layer_statistics=true")
        result = train(compose(f"run_dir={path}", *SHORT, *words))
    return path, result, wandb_file.read(path)


def test_history_has_the_columns_of_metrics_csv(logged):
    path, _, found = logged
    with (path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("learning_rate", "images_per_second", "train/top1_error", "layers/c1/update_ratio"):
        seen = [row[name] for row in found.history if name in row]
        assert seen == pytest.approx([float(row[name]) for row in rows], rel=1e-3), name


def test_pictures_are_logged_once(logged):
    path, _, found = logged
    (row,) = [row for row in found.history if any(name.startswith("augmentation") for name in row)]
    (picture,) = [name for name in found.files if "augmentation" in name]
    assert (found.folder / picture).read_bytes() == (path / "augmentation.png").read_bytes()
    assert row is found.history[-1]


def test_tables_hold_epochs_and_confusions(logged):
    path, result, found = logged
    tables = {name.rpartition("/")[2].split("_")[0]: json.loads((found.folder / name).read_text())
              for name in found.files if name.endswith(".table.json")}  # fmt: skip
    with (path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tables["epochs"]["columns"] == list(rows[0])
    assert tables["epochs"]["data"] == [[float(value) for value in row.values()] for row in rows]
    (matrix,) = [table for table in tables.values() if table["columns"] == ["Actual", "Predicted", "nPredictions"]]
    images = sum(row[2] for row in matrix["data"])
    wrong = sum(count for true, called, count in matrix["data"] if true != called)
    assert len(matrix["data"]) == 100
    assert wrong / images == pytest.approx(result["metrics"]["test/top1_error"])
    mistakes = [row[2] for row in tables["confusions"]["data"]]
    assert sum(mistakes) == wrong
    assert mistakes == sorted(mistakes, reverse=True)


def test_many_classes_get_no_chart_but_the_mistakes():
    import wandb

    counts = [[2 if true == called else int(true == 0) for called in range(101)] for true in range(101)]
    logged = tracking._confusion(counts, [f"c{number}" for number in range(101)])
    assert list(logged) == ["confusions"]
    assert isinstance(logged["confusions"], wandb.Table)
    assert len(logged["confusions"].data) == 100


def test_pictures_made_later_go_to_the_same_run(compose, tmp_path, no_login):
    run = tmp_path / "run"
    config = compose(f"run_dir={run}", *SHORT, "logger=wandb")
    train(config)
    before = wandb_file.read(run)
    picture = tmp_path / "kernels.png"
    Image.new("RGB", (8, 8)).save(picture)
    tracking.add_pictures(run, config, [picture])
    (later,) = [path for path in run.glob("wandb/offline-run-*") if path != before.folder.parent]
    found = wandb_file.read_file(next(later.glob("*.wandb")))
    assert found.name == before.name
    assert found.exit_code == 0
    assert [name for name in found.files if "kernels" in name] != []
    steps = [row["_step"] for row in found.history]
    assert min(steps) == tracking.STEPS_OF_A_PART > before.history[-1]["_step"]
    assert steps == sorted(set(steps))


def test_pictures_of_a_run_without_wandb_go_nowhere(digits_run, compose, tmp_path):
    tracking.add_pictures(digits_run, compose(f"run_dir={tmp_path}"), [])
    assert not (digits_run / "wandb").exists()


def test_what_wandb_does_not_take_is_said_and_does_not_end_the_run(tmp_path, no_login, monkeypatch, caplog):
    monkeypatch.setattr(tracking.log, "propagate", True)
    logger = tracking.wandb_logger(tmp_path, {"tags": []}, mode="offline")
    tracking.show(logger, pictures=[], epochs=[{"epoch": "no number"}], confusion=None, class_names=[])
    tracking.finish(logger, 0, {})
    assert "W&B got no pictures and tables: ValueError: could not convert" in caplog.text


def test_nothing_is_shown_to_other_trackers(tmp_path):
    tracking.show(None, pictures=[tmp_path / "a.png"], epochs=[], confusion=None, class_names=[])


def test_failed_run_ends_as_failed(compose, tmp_path, no_login, monkeypatch):
    def fail(self: Classifier, batch: Any, index: int) -> None:
        raise ValueError("on purpose")

    monkeypatch.setattr(Classifier, "training_step", fail)
    run = tmp_path / "run"
    with pytest.raises(RunError, match="on purpose"):
        train(compose(f"run_dir={run}", *SHORT, "logger=wandb"))
    assert wandb_file.read(run).exit_code == 1


def test_one_after_the_other_are_two_runs(compose, tmp_path, no_login):
    for name in ("one", "two"):
        train(compose(f"run_dir={tmp_path / name}", "debug=fast", "logger=wandb"))
    assert [wandb_file.read(tmp_path / name).name for name in ("one", "two")] == ["one", "two"]


def test_disabled_leaves_no_files(compose, tmp_path, no_login):
    run = tmp_path / "run"
    train(compose(f"run_dir={run}", *SHORT, "logger=wandb", "logger.mode=disabled"))
    assert not (run / "wandb").exists()


def test_id_is_kept_for_a_resumed_run(tmp_path):
    first = tracking._run_id(tmp_path)
    assert tracking._run_id(tmp_path) == first
    assert len(first) == 8


@pytest.mark.parametrize(
    ("asked", "environment", "mode"),
    [("offline", "online", "offline"), ("auto", "dryrun", "offline"), ("auto", "disabled", "disabled")],
)
def test_mode(asked, environment, mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", environment)
    assert tracking._mode(asked) == mode


def test_no_network_becomes_an_offline_run(tmp_path, no_login, monkeypatch, caplog):
    import wandb
    from wandb.errors import CommError

    original, modes = wandb.init, []

    def init(*, mode: Any, **arguments: Any) -> Any:
        modes.append(mode)
        if mode == "online":
            raise CommError("no network")
        return original(mode=mode, **arguments)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(tracking.log, "propagate", True)
    logger = tracking.wandb_logger(tmp_path, {"tags": []})
    assert isinstance(logger, WandbLogger)
    tracking.finish(logger, 0, {})
    assert modes == ["online", "offline"]


def test_tensorboard(compose, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    train(compose(f"run_dir={run}", *SHORT, "logger=tensorboard"))
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert len(events.Scalars("val/loss")) == 2
    assert not (run / "wandb").exists()


def test_csv_leaves_no_tracker(digits_run):
    assert not (digits_run / "wandb").exists()
    assert not (digits_run / "wandb_id.txt").exists()


def test_flat():
    nested = {"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None, "g": {}}
    assert tracking.flat(nested) == {"a.b.c": 1, "a.d": [1, {"e": 2}], "f": None}
