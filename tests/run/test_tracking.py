"""What the trackers record, read back from their own files."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest
import wandb
import wandb_file
from commands import command, finished, forked, move_home
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from alexnet_lab.base.errors import Interrupted, RunError
from alexnet_lab.base.targets import build
from alexnet_lab.run import tolerant_loggers, tracking, train, wandb_media
from alexnet_lab.training import Classifier

if TYPE_CHECKING:
    from pathlib import Path

SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=3", "trainer.limit_val_batches=2")


@pytest.fixture
def no_login(monkeypatch, tmp_path):
    """No account: nothing in the environment and nothing at home."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    move_home(monkeypatch, tmp_path)
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
    assert [row["epoch"] for row in found.history if "val/loss" in row] == [1, 2]
    assert [row["_step"] for row in found.history if "val/loss" in row] == [3, 6]  # of the optimiser
    (tested,) = [row for row in found.history if "test/loss" in row]
    assert (tested["epoch"], tested["_step"]) == (2, 7)
    assert found.metrics == {"epoch": None, "*": "epoch"}  # the x axis of every chart
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    seen = [row["val/loss"] for row in found.history if "val/loss" in row]
    assert seen == pytest.approx([float(row["val/loss"]) for row in rows], rel=1e-6)
    assert found.summary["test/top1_error"] == result["metrics"]["test/top1_error"]
    shown = ("num_parameters", "best_epoch", "epochs", "steps", "store_hash")
    assert {key: found.summary[key] for key in shown} == {key: result[key] for key in shown}
    assert 0 < found.summary["wall_seconds"] <= result["wall_seconds"]
    shown_lines = capsys.readouterr().err.splitlines()
    assert "W&B: no login, so offline" in shown_lines
    (line,) = [line for line in shown_lines if "wandb sync" in line]
    parts = shlex.split(line.partition("upload it with: ")[2])[2:]
    assert parts == [str(path) for path in run.glob("wandb/offline-run-*")]


def started(run_dir: Path, **fields: Any) -> tolerant_loggers.Steady:
    """An offline W&B logger."""
    spec = {"_target_": "alexnet_lab.run.tracking.wandb_logger", "mode": "offline"} | fields
    (logger,) = tolerant_loggers.steady(spec["_target_"], lambda: build(spec, "logger", run_dir, {"tags": []}))
    return logger


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
    logged = wandb_media._confusion(counts, [f"c{number}" for number in range(101)])
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
    tracking.add_pictures(run, config, [picture], steps=6)
    (later,) = [path for path in run.glob("wandb/offline-run-*") if path != before.folder.parent]
    found = wandb_file.read_file(next(later.glob("*.wandb")))
    assert found.name == before.name
    assert found.exit_code == 0
    assert [name for name in found.files if "kernels" in name] != []
    steps = [row["_step"] for row in found.history]
    assert min(steps) == before.history[-1]["_step"] + 1 == 9
    assert steps == sorted(set(steps))


def test_pictures_of_a_run_without_wandb_go_nowhere(digits_run, compose, tmp_path):
    tracking.add_pictures(digits_run, compose(f"run_dir={tmp_path}"), [], steps=24)
    assert not (digits_run / "wandb").exists()


def test_what_wandb_does_not_take_is_said_and_does_not_end_the_run(tmp_path, no_login, monkeypatch, caplog):
    monkeypatch.setattr(tracking.log, "propagate", True)
    monkeypatch.setattr(tolerant_loggers.log, "propagate", True)
    logger = started(tmp_path)
    tracking.show([logger], lambda: wandb_media.shown([], [{"epoch": "no number"}]))
    tracking.finish([logger], 0)
    assert "W&B is dropped (ValueError: could not convert" in caplog.text


def test_nothing_is_shown_to_other_trackers(tmp_path):
    target = "alexnet_lab.run.tracking.tensorboard_logger"
    loggers = tolerant_loggers.steady(target, lambda: tracking.tensorboard_logger(tmp_path, {}))
    made: list[str] = []
    tracking.show(loggers, lambda: {"picture": made.append("picture")})
    assert ([logger.lost for logger in loggers], made) == ([False], [])


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


def test_a_run_that_the_caller_has_started_stays_his(tmp_path, no_login):
    own = wandb.init(mode="offline", dir=str(tmp_path), settings=wandb.Settings(silent=True, console="off"))
    ours = cast("Any", tracking.wandb_logger(tmp_path / "run", {"tags": []}, mode="offline")).experiment
    assert ours.id != own.id
    ours.finish()
    own.log({"loss": 1.0})  # raises if it has ended
    own.finish()


def test_disabled_leaves_no_files(compose, tmp_path, no_login):
    run = tmp_path / "run"
    train(compose(f"run_dir={run}", *SHORT, "logger=wandb", "logger.mode=disabled"))
    assert not (run / "wandb").exists()


def test_id_is_kept_for_a_resumed_run(tmp_path):
    first, name = tracking._identity(tmp_path)
    assert tracking._identity(tmp_path) == (first, name)
    assert (len(first), name) == (8, "")


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
    tracking.finish([tolerant_loggers.Steady(logger)], 0)
    assert modes == ["online", "offline"]


def test_server_that_does_not_answer_becomes_an_offline_run(tmp_path, no_login, monkeypatch, caplog):
    """With W&B's own service, which holds the id of the run that did not start."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(tracking, "INIT_TIMEOUT_SECONDS", 5)
    monkeypatch.setattr(tracking.log, "propagate", True)
    logger = tracking.wandb_logger(tmp_path, {"tags": []})
    assert isinstance(logger, WandbLogger)
    assert logger.experiment.settings.mode == "offline"
    tracking.finish([tolerant_loggers.Steady(logger)], 0)
    assert "this run is kept offline" in caplog.text
    assert list(tmp_path.glob("wandb/offline-run-*"))


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


# A tracker never stops a run


def test_epochs_after_the_best_one_are_in_the_table(compose, tmp_path, no_login):
    """Testing the best checkpoint once brought back the rows of its epoch."""
    run = tmp_path / "run"
    words = ("trainer.max_epochs=4", "trainer.limit_train_batches=2", "trainer.limit_val_batches=2")
    config = compose(
        f"run_dir={run}", *words, "schedule=constant", "callbacks.checkpoint.monitor=val/loss", "logger=wandb"
    )
    train(config | {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.01, "maximize": True}})  # worse each epoch
    result = json.loads((run / "result.json").read_text())
    assert result["best_epoch"] < result["epochs"] == 4
    found = wandb_file.read(run)
    (name,) = [name for name in found.files if "epochs_" in name]
    table = json.loads((found.folder / name).read_text())
    assert [row[table["columns"].index("epoch")] for row in table["data"]] == [1, 2, 3, 4]


def test_resumed_run_continues_the_steps_of_its_wandb_run(compose, tmp_path, no_login, monkeypatch):
    run, original = tmp_path / "run", Classifier.training_step

    def interrupted(self: Classifier, batch: Any, index: int) -> Any:
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return original(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", interrupted)
        with pytest.raises(Interrupted):
            train(compose(f"run_dir={run}", *SHORT, "logger=wandb"))
    train({"resume": str(run)})
    first, second = (wandb_file.read_file(path) for path in sorted(run.glob("wandb/offline-run-*/run-*.wandb")))
    assert first.id == second.id == (run / "wandb_id.txt").read_text().strip()
    assert [row["_step"] for row in (*first.history, *second.history)] == [3, 6, 7, 8]
    assert [row["epoch"] for row in (*first.history, *second.history)] == [1, 2, 2, 2]


GARBAGE = {"empty": b"", "spaces": b" \n", "binary": b"\xff\xfe\x00", "long": b"x" * 1000, "slashes": b"a/../../b?"}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE.keys())
def test_id_that_is_none(tmp_path, no_login, monkeypatch, caplog, content):
    monkeypatch.setattr(tracking.log, "propagate", True)
    (tmp_path / "wandb_id.txt").write_bytes(content)
    tracking.finish([started(tmp_path)], 0)
    assert "contains no id of a W&B run" in caplog.text
    assert wandb_file.read(tmp_path).id == (tmp_path / "wandb_id.txt").read_text().strip()


def test_id_file_that_is_a_directory(tmp_path, no_login, caplog, monkeypatch):
    monkeypatch.setattr(tracking.log, "propagate", True)
    (tmp_path / "wandb_id.txt").mkdir()
    tracking.finish([started(tmp_path)], 0)
    assert "wandb_id.txt could not be written" in caplog.text
    assert wandb_file.read(tmp_path).exit_code == 0


def test_file_in_the_place_of_the_folder(compose, tmp_path, no_login, capsys):
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "test_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(Interrupted):
            train(compose(f"run_dir={run}", "debug=fast"))
    (run / "wandb").write_text("")
    (run / "tensorboard").write_text("")
    for logger in ("wandb", "tensorboard"):
        copy = shutil.copytree(run, tmp_path / logger)
        spec: dict[str, Any] = {"_target_": f"alexnet_lab.run.tracking.{logger}_logger"}
        assert train({"resume": str(copy), "changes": {"logger": spec}})["status"] == "completed"
        title = {"wandb": "W&B", "tensorboard": "TensorBoard"}[logger]
        assert capsys.readouterr().err.count(f"{title} is dropped") == 1


@pytest.mark.parametrize("method", ["log", "finish", "define_metric", "init"])
@pytest.mark.usefixtures("no_login")
def test_errors_of_wandb_in_the_middle(compose, tmp_path, monkeypatch, capsys, method):
    import wandb

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("W&B is broken")

    monkeypatch.setattr(*((wandb, "init") if method == "init" else (wandb.Run, method)), broken)
    assert train(compose(f"run_dir={tmp_path / 'run'}", "debug=fast", "logger=wandb"))["status"] == "completed"
    assert capsys.readouterr().err.count("W&B is dropped (RuntimeError: W&B is broken)") == 1
    monkeypatch.undo()
    wandb.teardown()


def test_another_logger_that_fails_leaves_wandb_running(tmp_path, no_login):
    def broken() -> NoReturn:
        raise ModuleNotFoundError("No module named 'tensorboard'")

    logger = started(tmp_path)
    assert tolerant_loggers.steady("alexnet_lab.run.tracking.tensorboard_logger", broken) == []
    logger.log_metrics({"train/loss": 0.5}, step=1)
    tracking.finish([logger], 0)
    assert [row["train/loss"] for row in wandb_file.read(tmp_path).history] == [0.5]


@pytest.mark.parametrize("words", [(), ("launcher.workers=true",)], ids=["one process", "a worker"])
def test_wandb_that_cannot_be_imported(words, compose, tmp_path):
    """A broken installation raises anything, also in the fork server that imports it for the workers."""
    (tmp_path / "broken" / "wandb").mkdir(parents=True)
    (tmp_path / "broken" / "wandb" / "__init__.py").write_text("raise RuntimeError('numpy.dtype size changed')\n")
    run = tmp_path / "run"
    words = (*words, f"run_dir={run}", *SHORT, f"data.dir={compose('logger=csv')['data']['dir']}", "logger=wandb")
    outcome = finished(command("train.py", *words, cwd=tmp_path, PYTHONPATH=str(tmp_path / "broken")), 300)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("W&B is dropped (RuntimeError: numpy.dtype size changed)") == 1
    assert "Traceback" not in outcome.err
    assert json.loads((run / "result.json").read_text())["status"] == "completed"


def test_unknown_mode_is_offline(tmp_path, no_login, monkeypatch, caplog):
    monkeypatch.setattr(tracking.log, "propagate", True)
    monkeypatch.setenv("WANDB_MODE", "bogus")
    assert tracking._mode("auto") == "offline"
    assert "WANDB_MODE is bogus; allowed: online, offline, dryrun, disabled" in caplog.text


# What W&B's own variables say


def test_variables_are_defaults(compose, monkeypatch):
    values = {"PROJECT": "mine", "ENTITY": "team", "NAME": "shown", "NOTES": "few words"}
    for name, value in values.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_TAGS", "a, b,")
    config = compose("logger=wandb")
    assert {key: config["logger"][key.lower()] for key in values} == values
    assert config["tags"] == ["a", "b"]
    config = compose("logger=wandb", "logger.project=other", "logger.name=n", "tags=[c]")
    assert (config["logger"]["project"], config["logger"]["name"], config["tags"]) == ("other", "n", ["c"])
    monkeypatch.setenv("WANDB_PROJECT", "")
    monkeypatch.delenv("WANDB_TAGS")
    config = compose("logger=wandb")
    assert (config["logger"]["project"], config["tags"]) == ("alexnet-lab", ["lenet5", "digits"])


def test_variables_reach_the_run(compose, tmp_path, no_login):
    """In a process of its own, as W&B reads some of them once."""
    words = (f"run_dir={tmp_path / 'run'}", f"data.dir={compose('logger=csv')['data']['dir']}", "debug=fast")
    process = forked(
        "train.py", *words, "logger=wandb", cwd=tmp_path, HOME=str(tmp_path), WANDB_PROJECT="mine",
        WANDB_NAME="shown", WANDB_TAGS="a,b", WANDB_RUN_GROUP="many", WANDB_SWEEP_ID="sweep1", WANDB_RUN_ID="agent01",
    )  # fmt: skip
    outcome = finished(process)
    assert outcome.code == 0, outcome.err
    found = wandb_file.read(tmp_path / "run")
    assert (found.project, found.name, found.group, found.tags) == ("mine", "shown", "many", ["a", "b"])
    assert found.id == "agent01" == (tmp_path / "run" / "wandb_id.txt").read_text().strip()
