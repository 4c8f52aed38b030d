"""A run that is continued with changes: what may change, what a longer run does, what stays of the earlier result."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import REPOSITORY, call, finished, forked
from endings import assert_same_ending
from lightning.pytorch.callbacks import Timer

from alexnet_lab.base.errors import Interrupted, RunError
from alexnet_lab.config.continuing import LONGER
from alexnet_lab.run import train
from alexnet_lab.run.request import merged, requested
from alexnet_lab.run.resuming import STOPS, begin
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.training import Classifier
from alexnet_lab.training.checkpoint_io import load_checkpoint

STEPS = 12  # of an epoch of `digits_run`


@pytest.fixture
def done(digits_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of 2 epochs."""
    return Path(shutil.copytree(digits_run, tmp_path / "run"))


@pytest.fixture
def unfinished(done: Path) -> Path:
    """As if it had been killed at its last step."""
    (done / "result.json").unlink()
    return done


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def config(run: Path) -> dict[str, Any]:
    return yaml.safe_load((run / "config.yaml").read_text())


def interrupt(monkeypatch: pytest.MonkeyPatch, epoch: int, batch: int = 1) -> None:
    """Ctrl-C in an epoch, counted from 0."""
    original = Classifier.training_step

    def step(self: Classifier, images: Any, index: int) -> Any:
        if (self.current_epoch, index) == (epoch, batch):
            raise KeyboardInterrupt
        return original(self, images, index)

    monkeypatch.setattr(Classifier, "training_step", step)


def one_cycle(step: int, steps: int, peak: float = 0.01) -> float:
    """The rate at a step >= the warm-up's end."""
    top, low = 0.2 * steps - 1, peak / 25 / 1e4
    return low + (peak - low) * (1 + math.cos(math.pi * (step - top) / (steps - 1 - top))) / 2


def asked(run: Path, *words: str) -> dict[str, Any]:
    """What `train.py resume=RUN words` asks for."""
    found: list[dict[str, Any]] = []
    outcome = call(lambda composed: found.append(requested(composed).model_dump()), "train", f"resume={run}", *words)
    assert outcome.code == 0, outcome.err
    return found[0]


def refusal(run: Path, *words: str) -> str:
    """The one line by which a command line is refused, with exit code 2."""
    outcome = call(requested, "train", f"resume={run}", *words)
    assert outcome.code == 2, outcome
    assert outcome.err.count("\n") == 1
    return outcome.err


# A longer run


def test_finished_run_is_trained_further(done, capsys):
    before, checkpoint = result(done), load_checkpoint(done / "checkpoints" / "last.ckpt")
    train({"resume": str(done), "changes": {"trainer.max_epochs": 4}, "overrides": ["trainer.max_epochs=4"]})
    printed = capsys.readouterr().err
    assert (
        "training continues (trainer.max_epochs: 2 -> 4): from step 25 on the learning rate is that of a run of the "
        "new length; the test set is used once more at the end"
    ) in printed
    after = result(done)
    assert (after["status"], after["epochs"], after["steps"]) == ("completed", 4, 4 * STEPS)
    kept = {key: before[key] for key in ("epochs", "steps", "metrics", "best_epoch", "wall_seconds")}
    assert after["history"] == [kept]
    assert "trainer.max_epochs=4" in after["overrides"]
    assert "trainer.max_epochs=2" not in after["overrides"]
    assert [row["epoch"] for row in rows(done)] == list("1234")
    found = [float(row["learning_rate"]) for row in rows(done)[2:]]  # of the step after the epoch
    assert found[0] == pytest.approx(one_cycle(3 * STEPS, 4 * STEPS), rel=1e-6)
    assert found[1] == pytest.approx(0.01 / 25 / 1e4, rel=1e-6)
    assert load_checkpoint(done / "checkpoints" / "last.ckpt")["global_step"] == 2 * checkpoint["global_step"]


def test_config_of_a_version_without_max_steps_is_extended_too(done):
    path = done / "config.yaml"
    path.write_text(path.read_text().replace("  max_steps: -1\n", ""))
    assert "max_steps" not in path.read_text()
    longer = requested({"resume": str(done), "changes": {"trainer.max_epochs": 4}})
    assert begin(RunDirectory(done), longer).checkpoint.path.name == "last.ckpt"


def test_longer_run_that_is_killed_is_resumed_to_the_same_end(done, tmp_path, monkeypatch):
    whole = Path(shutil.copytree(done, tmp_path / "whole"))
    changes = {"trainer.max_epochs": 4, "callbacks.checkpoint.every_steps": 5}
    train({"resume": str(whole), "changes": changes})
    for epoch, batch in ((2, 0), (2, 7), (3, 3)):  # before the first new checkpoint, and after others
        interrupt(monkeypatch, epoch, batch)
        with pytest.raises(Interrupted):
            train({"resume": str(done), "changes": changes if epoch == 2 and batch == 0 else {}})
        monkeypatch.undo()
        assert result(done)["status"] == "interrupted"
        assert [item["epochs"] for item in result(done)["history"]] == [2]
    train({"resume": str(done)})
    for run in (done, whole):  # the same but for times
        record = result(run)
        record["history"][0].pop("wall_seconds")
        (run / "result.json").write_text(json.dumps(record))
    assert_same_ending(done, whole)


def test_run_killed_before_its_config_was_written_is_known_to_be_continued(done, monkeypatch):
    """SIGKILL leaves what lies on disk before the first step."""
    interrupt(monkeypatch, 2, 0)
    monkeypatch.setattr("alexnet_lab.run.launcher._record", lambda *_: None)
    with pytest.raises(Interrupted):
        train({"resume": str(done), "changes": {"trainer.max_epochs": 3}})
    monkeypatch.undo()
    assert (result(done)["status"], result(done)["history"][0]["steps"]) == ("interrupted", 2 * STEPS)
    assert train({"resume": str(done)})["epochs"] == 3


def test_unfinished_run_gets_more_epochs(unfinished):
    after = train({"resume": str(unfinished), "changes": {"trainer.max_epochs": 3}})
    assert (after["epochs"], "history" in after) == (3, False)


@pytest.fixture
def timer_of_8_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """`trainer.max_time` ends a run after that many steps."""

    def check(self: Timer, trainer: Any) -> None:
        trainer.should_stop |= trainer.global_step == 8

    monkeypatch.setattr(Timer, "_check_time_remaining", check)


@pytest.mark.parametrize(
    ("limit", "unlimited"),
    [
        ("trainer.max_steps=8", {"trainer.max_steps": -1}),
        ("trainer.max_time='00:01:00:00'", {"trainer.max_time": None}),
    ],
)
@pytest.mark.usefixtures("timer_of_8_steps")
def test_epoch_that_was_ended_early_counts_as_done(limit, unlimited, compose, tmp_path, capfd):
    run = tmp_path / "run"
    short = ("trainer.limit_train_batches=5", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1")
    train(compose(f"run_dir={run}", *short, "trainer.max_epochs=2", limit))
    with pytest.raises(RunError, match=r"_steps` is 8, which the run has done; set it to more|; add .*time=null$"):
        train({"resume": str(run), "changes": {"trainer.max_epochs": 3}})
    after = train({"resume": str(run), "changes": {"trainer.max_epochs": 3, **unlimited}})
    warned = "the run had ended within epoch 2; its other images are left out, and epoch 3 follows"
    assert warned in capfd.readouterr().err
    assert (after["epochs"], after["steps"]) == (3, 13)
    assert [(row["epoch"], row["step"]) for row in rows(run)] == [("1", "5"), ("2", "8"), ("3", "13")]


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (("trainer.max_steps=3",), "trainer.max_epochs=8 trainer.max_steps=-1"),
        (
            ("callbacks=early_stopping", "callbacks.early_stopping.patience_epochs=1",
             "callbacks.early_stopping.min_delta=100.0"),
            "trainer.max_epochs=8 callbacks.early_stopping=null",
        ),
    ],
)  # fmt: skip
def test_the_command_that_a_finished_run_names_trains_it_further(words, more, compose, tmp_path):
    run = tmp_path / "run"
    short = ("trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1")
    epochs = train(compose(f"run_dir={run}", *short, *words, "trainer.max_epochs=4"))["epochs"]
    with pytest.raises(RunError, match=r"to train it further: python train\.py resume=") as refused:
        train({"resume": str(run)})
    assert str(refused.value).endswith(f" {more}")
    assert epochs < 4
    outcome = call(train, "train", f"resume={run}", *more.split())
    assert outcome.code == 0, outcome.err
    assert result(run)["epochs"] == 8


def test_a_finished_job_of_a_sweep_names_no_command_that_is_refused(done):
    (done.parent / "ledger.jsonl").write_text("")
    with pytest.raises(RunError, match=r"there is nothing to resume; .* is a job of a sweep, whose table compares"):
        train({"resume": str(done)})


def test_run_that_a_callback_ended(compose, tmp_path):
    run = tmp_path / "run"
    stopping = ("callbacks=early_stopping", "callbacks.early_stopping.patience_epochs=1",
                "callbacks.early_stopping.min_delta=100.0", "callbacks.augmentation_preview=false")  # fmt: skip
    short = ("trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1")
    train(compose(f"run_dir={run}", *short, *stopping, "trainer.max_epochs=4"))
    ended = result(run)["epochs"]
    assert ended < 4
    with pytest.raises(RunError, match=r"was ended by a callback, .*; add callbacks.early_stopping=null$"):
        train({"resume": str(run), "changes": {"trainer.max_epochs": 5}})
    after = train({"resume": str(run), "changes": {"callbacks.early_stopping": None}})
    assert after["epochs"] == 4


def test_run_that_reached_its_loss(compose, tmp_path):
    run = tmp_path / "run"
    words = ("callbacks.to_loss={loss: 100.0, stop: true}", "trainer.limit_train_batches=2", "trainer.max_epochs=3")
    assert train(compose(f"run_dir={run}", *words))["epochs"] == 1
    with pytest.raises(RunError, match=r"was ended by a callback, .*; add callbacks.to_loss.stop=false$"):
        train({"resume": str(run), "changes": {"trainer.max_epochs": 4}})
    changes = {"callbacks.to_loss.stop": False, "trainer.max_epochs": 4}
    assert train({"resume": str(run), "changes": changes})["epochs"] == 4
    assert set(STOPS) <= set(LONGER)


def test_job_of_a_sweep_keeps_its_length(done):
    (done.parent / "ledger.jsonl").touch()
    with pytest.raises(RunError, match=r"is a job of a sweep, whose table compares runs of one length; copy the dir"):
        train({"resume": str(done), "changes": {"trainer.max_epochs": 4}})


def test_nothing_left_to_do(done):
    before = result(done)
    with pytest.raises(
        RunError, match=r"is a finished run; .*; to train it further: .*train.py resume=\S+ trainer.max_epochs=4$"
    ):
        train({"resume": str(done), "changes": {"trainer.num_threads": 2}})
    assert result(done) == before


# What may change


def test_where_and_how_a_run_computes_is_free(unfinished):
    words = (
        "trainer.devices=2", "trainer.num_threads=1", "trainer.accelerator=cpu", "logger=csv", "launcher=in_process",
        "trainer.progress_bar=true", "callbacks.checkpoint.every_minutes=1.5", "data.dir=elsewhere", "tags=[a]",
    )  # fmt: skip
    found = asked(unfinished, *words)
    assert (found["trainer"]["devices"], found["trainer"]["num_threads"]) == (2, 1)
    assert found["launcher"]["workers"] is False
    assert (found["data"]["dir"], found["tags"], found["logger"]) == ("elsewhere", ["a"], None)
    assert found["overrides"] == merged(config(unfinished)["overrides"], list(words))


def test_files_of_groups_bring_no_defaults_of_other_keys(unfinished):
    path = unfinished / "config.yaml"
    path.write_text(path.read_text().replace("num_threads: 1", "num_threads: 3"))
    before = config(unfinished)
    found = asked(unfinished, "trainer=cpu", "logger=wandb", "logger.project=mine")
    assert found["trainer"] == before["trainer"] | {"accelerator": "cpu"}  # not the 30 epochs of configs/trainer
    assert (found["logger"]["_target_"], found["logger"]["project"]) == (
        "alexnet_lab.run.tracking.wandb_logger", "mine",
    )  # fmt: skip
    assert asked(unfinished, "trainer=ddp")["trainer"] == before["trainer"] | {"devices": 2}
    back = asked(unfinished, "trainer=default")["trainer"]
    assert back == before["trainer"] | {"num_threads": None, "progress_bar": True}


def test_command_of_the_run_may_be_repeated(unfinished):
    words = ("model=lenet5", "data=digits", f"data.dir={config(unfinished)['data']['dir']}", "data.batch_size=16")
    assert asked(unfinished, *words)["trainer"]["max_epochs"] == 2


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.activation=tanh", "`model.activation` is 'relu' in the run and cannot become 'tanh': that would be"),
        ("model=alexnet", "`model._target_` is 'alexnet_lab.models.LeNet5' in the run and cannot become 'alexnet_lab."),
        ("seed=1", "`seed` is 0 in the run and cannot become 1: that would be another experiment; start a new run for"),
        ("data.batch_size=32", "`data.batch_size` is 16 in the run and cannot become 32"),
        ("schedule=constant", "`schedule` is alexnet_lab.training.schedules.one_cycle in the run and cannot become No"),
        ("optimizer.learning_rate=0.5", "`optimizer.learning_rate` is 0.01 in the run and cannot become 0.5"),
        ("trainer.limit_train_batches=1.0", "`trainer.limit_train_batches` is 12 in the run and cannot become 1.0"),
        ("trainer.max_epochs=1", "`trainer.max_epochs` is 2 in the run and cannot become 1: it can only grow, or leav"),
        ("trainer.max_steps=5", "`trainer.max_steps` is -1 in the run and cannot become 5: it can only grow, or becom"),
        ("callbacks=early_stopping", "`callbacks.early_stopping` is None in the run and cannot become {...}: it can o"),
        ("experiment=lenet5_mnist", "`experiment` is None in the run and cannot become 'lenet5_mnist'"),
        ("sweep=lrn", "`sweep=lrn` describes new runs, but resume= continues one; leave one of them out"),
        ("debug=fast", "`debug=fast` describes new runs"),
        ("run_dir=other", "`run_dir`: a run stays in its directory; copy that first (cp -r), and resume the copy"),
        ("trainer.max_epoch=4", "unknown key `trainer.max_epoch`; did you mean `max_epochs`?"),
        ("max_epochs=4", "unknown key `max_epochs`; did you mean `trainer.max_epochs`?"),
        ("trainer.devices=3", "`data.batch_size` is 16 images in total, which 3 devices cannot share equally"),
        ("trainer.max_epochs=four", "`trainer.max_epochs` is 'four' (str); allowed: integer"),
        ("trainer.max_epochs=3,4", "with resume= a word sets one key of the run to one value: key=value"),
        ("~optimizer", "`~optimizer`: with resume= a word sets one key of the run to one value: key=value"),
        ("~data.val_seed", "`~data.val_seed`: with resume= a word sets one key of the run to one value: key=value"),
        ("~data.none", "`~data.none`: with resume= a word sets one key of the run to one value: key=value"),
        ("+trainer.x=1", "with resume= a word sets one key"),
        ("launcher=slurm", "`launcher=slurm` sends jobs of a sweep to the cluster; continue this run by srun"),
    ],
)
def test_what_makes_another_experiment_is_refused(digits_run, word, message):
    assert message in refusal(digits_run, word)


def test_command_line_continues_a_run_in_two_processes(done, tmp_path):
    words = ("trainer.max_epochs=3", "trainer.devices=2", "trainer=cpu", "logger=csv")
    outcome = finished(forked("train.py", f"resume={done}", *words, cwd=tmp_path, PYTHONPATH=str(REPOSITORY)))
    assert outcome.code == 0, outcome.err
    assert "from now on" in outcome.err
    assert "trainer.devices: 1 -> 2; losses agree to rounding, bits may differ" in outcome.err
    one = Path(shutil.copytree(done, tmp_path / "one"))
    assert result(one)["epochs"] == 3


def test_two_processes_continue_as_one_would(digits_run, tmp_path):
    losses = []
    for devices in (1, 2):
        run = Path(shutil.copytree(digits_run, tmp_path / str(devices)))
        train({"resume": str(run), "changes": {"trainer.max_epochs": 3, "trainer.devices": devices}})
        losses.append([float(row["train/loss"]) for row in rows(run)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


# By force


def edited(run: Path, old: str, new: str) -> None:
    path = run / "config.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_edited_config_is_followed_or_refused(unfinished, capsys):
    edited(unfinished, "max_epochs: 2", "max_epochs: 3")
    with pytest.raises(RunError, match=r"`trainer.max_epochs` is 3, the checkpoint has 2; .*or set resume_force=true"):
        train({"resume": str(unfinished)})
    after = train({"resume": str(unfinished), "resume_force": True})
    assert (after["epochs"], after["steps"]) == (3, 3 * STEPS)
    assert "training continues (trainer.max_epochs: 2 -> 3)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("learning_rate: 0.01", "learning_rate: 0.1", "optimizer.learning_rate"),
        ("batch_size: 16", "batch_size: 8", "data.batch_size"),
        ("activation: relu", "activation: tanh", "model.activation"),
        ("max_epochs: 2", "max_epochs: 1", "trainer.max_epochs"),
        ("warmup_fraction: 0.2", "warmup_fraction: 0.5", "schedule.warmup_fraction"),
    ],
)
def test_edit_that_the_checkpoint_would_undo_is_refused(unfinished, old, new, key):
    edited(unfinished, old, new)
    with pytest.raises(RunError, match=rf"resume_force cannot change `{key}` from .*: the checkpoint would undo it"):
        train({"resume": str(unfinished), "resume_force": True})


def test_words_of_two_command_lines():
    before = ["model=lenet5", "trainer.max_epochs=2"]
    now = ["resume=RUN", "trainer.max_epochs=4", "++trainer.devices=2"]
    assert merged(before, now) == ["model=lenet5", "trainer.max_epochs=4", "++trainer.devices=2"]
