"""How a run may end: completed, failed or interrupted, and what it leaves then."""

from __future__ import annotations

import csv
import errno
import json
import logging
import os
import re
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import QUICK, call, finished, forked, wait_for

from alexnet_lab.base.errors import ConfigError, Interrupted, RunError
from alexnet_lab.base.signals import terminate
from alexnet_lab.config import check_train
from alexnet_lab.config.schema import Trainer
from alexnet_lab.run import devices, engine, launcher, train, worker
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.training import Classifier
from alexnet_lab.training.callbacks import MetricsCsv, Throughput
from alexnet_lab.training.checkpoint_io import load_checkpoint
from alexnet_lab.training.last_validation import LastValidation

SHORT = ("trainer.max_epochs=3", "trainer.limit_train_batches=4", "trainer.limit_val_batches=2")


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]


def test_the_test_set_is_used_once_with_the_best_weights(compose, tmp_path, monkeypatch):
    seen: list[tuple[int, dict[str, torch.Tensor]]] = []
    original = Classifier.test_step

    def counted(self: Classifier, batch: Any, index: int) -> torch.Tensor:
        weights = {name: value.clone() for name, value in self.state_dict().items()}
        seen.append((len(batch.labels), weights))
        return original(self, batch, index)

    monkeypatch.setattr(Classifier, "test_step", counted)
    run = tmp_path / "run"
    done = train(compose(f"run_dir={run}", *SHORT, "optimizer.learning_rate=0.05"))
    assert sum(count for count, _ in seen) == 359  # a fifth of 1,797: each image once
    best = load_checkpoint(run / "checkpoints" / "best.ckpt")
    assert best["epoch"] + 1 == done["best_epoch"]  # Lightning counts from 0
    assert all(torch.equal(best["state_dict"][name], value) for name, value in seen[0][1].items())


def test_failing_run_is_recorded_and_its_traceback_kept_in_the_log(compose, tmp_path, monkeypatch, capsys):
    def fail(self: Classifier, batch: Any, index: int) -> None:
        raise ValueError("first line\nsecond line")

    monkeypatch.setattr(Classifier, "training_step", fail)
    run = tmp_path / "run"
    with pytest.raises(RunError, match="the run failed: ValueError: first line second line") as caught:
        train(compose(f"run_dir={run}", *SHORT))
    assert "\n" not in str(caught.value)
    assert str(run / "train.log") in str(caught.value)
    found = result(run)
    assert (found["status"], found["error"]) == ("failed", "ValueError: first line second line")
    assert found["best_checkpoint"] is None
    assert "Traceback" in (run / "train.log").read_text()
    assert "Traceback" not in capsys.readouterr().err


def test_loss_that_is_no_number_ends_the_run_and_keeps_the_weights_before(compose, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(RunError, match=r"the training loss is (nan|inf) in step 2 \(epoch 1\), at a learning"):
        train(compose(f"run_dir={run}", *SHORT, "optimizer.learning_rate=1e18", "schedule=constant"))
    assert result(run)["status"] == "failed"
    assert "the training loss is" in result(run)["error"]
    assert not (run / "metrics.csv").exists()


def test_resumed_run_ends_as_if_it_had_not_been_interrupted(compose, tmp_path, monkeypatch):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    train(compose(f"run_dir={whole}", *SHORT))
    _interrupt_in_epoch(monkeypatch, 2)
    with pytest.raises(Interrupted, match=r"interrupted by Ctrl-C in epoch 3; resume it: python train\.py resume="):
        train(compose(f"run_dir={parted}", *SHORT))
    monkeypatch.undo()
    assert result(parted)["status"] == "interrupted"
    assert len(rows(parted)) == 2
    train({"resume": str(parted)})
    timeless = [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows(parted)]
    assert timeless == [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows(whole)]
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(parted).items())
    assert result(parted)["metrics"] == result(whole)["metrics"]
    assert (result(parted)["status"], result(parted)["epochs"], result(parted)["steps"]) == ("completed", 3, 12)


def _interrupt_in_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    original = Classifier.training_step

    def step(self: Classifier, batch: Any, index: int) -> torch.Tensor:
        if self.current_epoch == epoch and index == 1:
            raise KeyboardInterrupt
        return original(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", step)


@pytest.mark.parametrize("name", ["Ctrl-C", "SIGTERM"])
def test_run_interrupted_in_its_test_is_tested_when_resumed(name, compose, digits_run, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)

    def interrupted(self: Classifier, batch: Any, index: int) -> None:
        assert signal.getsignal(signal.SIGTERM) is terminate  # Lightning's waits for the other processes
        os.kill(os.getpid(), signal.SIGINT if name == "Ctrl-C" else signal.SIGTERM)
        time.sleep(5)

    run = tmp_path / "run"
    words = (f"run_dir={run}", "trainer.max_epochs=2", "trainer.limit_train_batches=12")
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "test_step", interrupted)
        with pytest.raises(Interrupted, match=rf"^interrupted by {name} while the trained network was tested; resume"):
            train(compose(*words))
    assert signal.getsignal(signal.SIGTERM) is before
    assert result(run)["status"] == "interrupted"
    trained = weights(run)
    train({"resume": str(run)})
    assert result(run)["metrics"] == result(digits_run)["metrics"]
    assert (result(run)["epochs"], result(run)["steps"]) == (2, 24)
    assert rows(run)[1]["train/loss"] == rows(digits_run)[1]["train/loss"]
    assert all(torch.equal(value, trained[key]) for key, value in weights(run).items())


def test_interrupt_before_the_first_checkpoint_promises_no_resume(compose, tmp_path, monkeypatch):
    _interrupt_in_epoch(monkeypatch, 0)
    with pytest.raises(Interrupted, match=r"^interrupted by Ctrl-C in epoch 1$"):
        train(compose(f"run_dir={tmp_path / 'run'}", *SHORT))


def test_interrupt_outside_of_training_is_recorded_too(compose, tmp_path, monkeypatch):
    def terminated(config: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(engine, "build_classifier", terminated)
    with pytest.raises(Interrupted, match=r"^interrupted by SIGTERM$"):
        train(compose(f"run_dir={tmp_path / 'run'}", *SHORT))
    assert result(tmp_path / "run")["status"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is handler


def test_interrupt_ends_the_command_with_130(compose, tmp_path, monkeypatch, digits_dir):
    _interrupt_in_epoch(monkeypatch, 1)
    outcome = call(train, "train", f"run_dir={tmp_path / 'run'}", f"data.dir={digits_dir}", *QUICK, *SHORT)
    assert outcome.code == 130
    assert outcome.err.splitlines()[-1].startswith("interrupted by Ctrl-C in epoch 2; resume it: ")
    assert "Traceback" not in outcome.err


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_while_a_checkpoint_is_written(compose, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    saved: list[int] = []
    original = torch.save

    def save(value: Any, file: Any) -> None:
        saved.append(1)
        if len(saved) > 1:
            file.write(b"half")
            raise FULL
        original(value, file)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(RunError, match=r"No space left on device$"):
        train(compose(f"run_dir={run}", *SHORT))
    assert result(run)["status"] == "failed"
    allowed = {"last.ckpt", "best.ckpt", "previous.ckpt", "best.safetensors"}
    assert {path.name for path in (run / "checkpoints").iterdir()} <= allowed
    assert load_checkpoint(run / "checkpoints" / "last.ckpt")["epoch"] == 0
    assert "Traceback" not in capsys.readouterr().err


def test_full_disk_from_the_start(compose, tmp_path, monkeypatch, capsys):
    def full(self: Path, *_: Any, **__: Any) -> None:
        raise FULL

    run = tmp_path / "run"
    config = compose(f"run_dir={run}", *SHORT)
    engine.build_data(check_train(config)).prepare_data()  # the disk fills up after that
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match=r"No space left on device$"):
        train(config)
    assert [path.name for path in run.rglob("*")] == []
    assert "error" not in capsys.readouterr().err  # train.py prints the one that is raised


def test_full_disk_at_the_end(compose, tmp_path, monkeypatch):
    def full(self: RunDirectory, result: dict[str, Any]) -> None:
        raise FULL

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write_result", full)
        with pytest.raises(RunError, match=r"run/result.json cannot be written: No space left on device$"):
            train(compose(f"run_dir={run}", *SHORT))
    assert train({"resume": str(run)})["status"] == "completed"


def test_log_on_a_full_disk_is_given_up_without_a_traceback(tmp_path, capsys):
    from alexnet_lab.base.log import close_file, log_to_file, start_log

    start_log()
    handler = log_to_file(Path("/dev/full"))
    logging.getLogger("alexnet_lab").info("a line")
    close_file(handler)
    assert capsys.readouterr().err == "a line\n"


def test_fast_dev_run_keeps_no_checkpoint(compose, tmp_path):
    run = tmp_path / "run"
    done = train(compose(f"run_dir={run}", "trainer.fast_dev_run=true"))
    assert (done["status"], done["steps"], done["best_checkpoint"]) == ("completed", 1, None)
    assert {"test/loss", "train/loss", "val/loss"} <= set(done["metrics"])
    assert not (run / "checkpoints").exists()


@pytest.mark.parametrize("debug", ["fast", "overfit"])
def test_debug_runs(debug, compose, tmp_path):
    done = train(compose(f"debug={debug}", f"run_dir={tmp_path / 'run'}", "trainer.max_epochs=1"))
    assert done["steps"] == {"fast": 1, "overfit": 10}[debug]


def test_early_stopping_ends_a_run(compose, tmp_path):
    done = train(
        compose(
            f"run_dir={tmp_path / 'run'}", *SHORT, "callbacks=early_stopping",
            "callbacks.augmentation_preview=false", "callbacks.early_stopping.patience_epochs=1",
            "callbacks.early_stopping.min_delta=100.0", "trainer.max_epochs=9",
        )
    )  # fmt: skip
    assert (done["status"], done["epochs"]) == ("completed", 2)


@pytest.mark.parametrize(("patience", "every", "epochs"), [(2, 3, 6), (3, 3, 6), (4, 3, 9), (4, 2, 6), (3, 1, 4)])
def test_patience_counts_epochs_and_not_validations(patience, every, epochs, compose, tmp_path):
    """The first validation sets the best; the first one after so many further epochs ends training."""
    done = train(
        compose(
            f"run_dir={tmp_path / 'run'}", *SHORT, "callbacks=early_stopping", "trainer.limit_train_batches=1",
            "callbacks.augmentation_preview=false", f"callbacks.early_stopping.patience_epochs={patience}",
            "callbacks.early_stopping.min_delta=100.0", "trainer.max_epochs=20",
            f"trainer.check_val_every_n_epoch={every}",
        )
    )  # fmt: skip
    assert (done["status"], done["epochs"]) == ("completed", epochs)


def test_run_without_validation_keeps_the_last_epoch(compose, tmp_path):
    done = train(compose(f"run_dir={tmp_path / 'run'}", *SHORT, "trainer.limit_val_batches=0", "trainer.max_epochs=2"))
    assert done["best_epoch"] == 2
    assert not any(name.startswith("val/") for name in done["metrics"])


def test_preview_is_drawn(compose, tmp_path):
    train(compose(f"run_dir={tmp_path / 'run'}", "debug=fast", "callbacks.augmentation_preview=true"))
    assert (tmp_path / "run" / "augmentation.png").read_bytes()[:4] == b"\x89PNG"


def test_overfitting_needs_no_validation_metric_of_each_epoch(compose, tmp_path):
    words = (*SHORT, "trainer.check_val_every_n_epoch=2")
    done = train(compose(f"run_dir={tmp_path / 'run'}", *words))
    assert done["status"] == "completed"
    found = rows(tmp_path / "run")
    assert len(found) == 3


def test_summary_line():
    metrics = {"test/top1_error": 0.0125, "test/loss": 1.0, "test/calibration_error": 0.2}
    result = {"metrics": metrics, "wall_seconds": 61.2, "epochs": 3}
    line = launcher.summary_line(result | {"images_per_second": None})
    assert line == "done in 61 s: test/top1_error 1.25% (3 epochs, 0 images/s)"
    untested = launcher.summary_line(result | {"images_per_second": 20.0, "metrics": {"val/top1_error": 0.1}})
    assert untested == "done in 61 s (3 epochs, 20 images/s)"
    single = launcher.summary_line({"metrics": {}, "wall_seconds": 9.0, "epochs": 1, "images_per_second": 20.0})
    assert single == "done in 9 s (1 epoch, 20 images/s)"


@pytest.mark.parametrize(
    ("trainer", "processes"),
    [(Trainer(devices=3, accelerator="cpu"), 3), (Trainer(devices="auto", accelerator="cpu"), 1)],
)
def test_one_process_for_each_device(trainer, processes):
    assert devices.count_processes(trainer) == processes


def test_metrics_of_a_resumed_run_continue_where_they_were(tmp_path):
    rows = [{"epoch": 0, "train/loss": 2.0}, {"epoch": 1, "train/loss": 1.0}]
    assert worker.metrics_of_epoch(rows, 0) == {"train/loss": 2.0}
    assert worker.metrics_of_epoch(rows, 7) == {"train/loss": 1.0}
    assert worker.metrics_of_epoch([], 0) == {}
    assert MetricsCsv(tmp_path / "m.csv", Throughput()).rows == []


def test_warnings_that_the_caller_captures_stay_captured(tmp_path):
    logging.captureWarnings(capture=True)
    try:
        with worker.logged_to_file(RunDirectory(tmp_path)):
            pass
        assert warnings.showwarning.__module__ == "logging"
    finally:
        logging.captureWarnings(capture=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "sigterm"])
def test_signal_ends_a_command_that_can_be_resumed(number, digits_dir, tmp_path):
    run = tmp_path / "run"
    words = ("trainer.max_epochs=6", "trainer.limit_train_batches=20", *QUICK)
    process = forked("train.py", f"run_dir={run}", f"data.dir={digits_dir}", *words, cwd=tmp_path)
    wait_for(run / "checkpoints" / "last.ckpt", process)
    process.send_signal(number)
    outcome = finished(process)
    assert outcome.code == 130, outcome.err
    assert outcome.err.splitlines()[-1].startswith("interrupted by ")
    assert "Traceback" not in outcome.err
    found = result(run)
    assert found["status"] == "interrupted"
    reached = load_checkpoint(run / "checkpoints" / "last.ckpt")
    if number == signal.SIGTERM:  # the step is finished and kept
        assert reached["global_step"] >= 20 * len(rows(run))
    else:
        assert reached["epoch"] == len(rows(run)) - 1
    done = train({"resume": str(run)})
    assert (done["status"], done["epochs"], done["steps"]) == ("completed", 6, 120)
    assert [row["epoch"] for row in rows(run)] == list("123456")


def test_sigterm_in_the_last_validation_is_not_lost(compose, tmp_path, monkeypatch):
    words = (*SHORT, "trainer.max_epochs=2", "trainer.limit_train_batches=3")
    whole = train(compose(f"run_dir={tmp_path / 'whole'}", *words))
    validated = LastValidation.on_validation_end

    def signalled(self: LastValidation, trainer: Any, module: Any) -> None:
        validated(self, trainer, module)
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(LastValidation, "on_validation_end", signalled)
    with pytest.raises(Interrupted, match="interrupted by SIGTERM in epoch 2;"):
        train(compose(f"run_dir={tmp_path / 'part'}", *words))
    assert result(tmp_path / "part")["status"] == "interrupted"
    monkeypatch.undo()
    after = train({"resume": str(tmp_path / "part")})
    assert (after["status"], after["steps"], after["metrics"]) == ("completed", 6, whole["metrics"])
    one, two = (load_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("whole", "part"))
    assert all(torch.equal(one["state_dict"][name], value) for name, value in two["state_dict"].items())


@pytest.mark.parametrize(
    ("accelerator", "wanted", "found", "message"),
    [
        ("gpu", 1, 0, "`trainer.accelerator` is gpu, but there is none here; take trainer.accelerator=cpu"),
        ("cuda", "auto", 0, "`trainer.accelerator` is cuda, but there is none here"),
        ("gpu", 8, 2, "`trainer.devices` is 8, but this machine has 2 GPUs; take trainer.devices=2"),
        ("auto", 8, 2, "`trainer.devices` is 8, but this machine has 2 GPUs; take trainer.devices=2"),
        ("auto", 2, 2, None),
        ("gpu", 2, 2, None),
        ("gpu", "auto", 2, None),
        ("cpu", 99, 0, None),
        ("auto", 99, 0, None),
    ],
)
def test_gpus_that_are_not_there(accelerator, wanted, found, message, monkeypatch):
    counts = dict.fromkeys(devices.GPUS, (lambda: found,))
    monkeypatch.setattr(devices, "GPUS", counts)
    trainer = Trainer(accelerator=accelerator, devices=wanted)
    if message is None:
        devices.check_devices(trainer)
        return
    with pytest.raises(ConfigError, match=re.escape(message)):
        devices.check_devices(trainer)


@pytest.mark.parametrize(
    ("supported", "built_for", "remedy"),
    [
        (
            12040,
            "13.0",
            "CUDA 12.4, and torch .* needs CUDA 13.0: install NVIDIA's driver 580 or newer, or a torch for",
        ),
        (11080, "13.0", "CUDA 11.8, and torch .* needs CUDA 13.0: install NVIDIA's driver 580 or newer$"),
        (11080, "12.6", "CUDA 11.8, and torch .* needs CUDA 12.6: install NVIDIA's driver 525 or newer$"),
        (12020, "12.6", None),  # a driver supports all minor versions
        (13000, "12.6", None),
        (0, "13.0", None),  # no driver: no GPU
        (12040, None, None),  # a torch for processors
    ],
)
def test_driver_that_is_too_old(supported, built_for, remedy, monkeypatch, caplog):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(devices.gpus, "visible_gpus", lambda: devices.gpus.Gpus(cuda=supported))
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(devices, "GPUS", dict.fromkeys(devices.GPUS, (lambda: 1,)))
    if remedy is None:
        devices.check_devices(Trainer(accelerator="gpu"))
        assert not caplog.records
        return
    with pytest.raises(ConfigError) as error:
        devices.check_devices(Trainer(accelerator="gpu"))
    problem = str(error.value).removesuffix("; or take trainer.accelerator=cpu")
    assert re.search(remedy, problem)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    devices.check_devices(Trainer())
    assert "training on the CPU: the NVIDIA driver supports" in caplog.text
    assert not os.environ["CUDA_VISIBLE_DEVICES"]


def test_apples_gpu_is_taken_only_where_it_is_asked_for(monkeypatch):
    none, one = (lambda: 0), (lambda: 1)
    monkeypatch.setattr(devices, "GPUS", {"auto": (none,), "gpu": (none, one), "cuda": (none,), "mps": (one,)})
    found = {name: (devices.is_cpu(name), devices.lightnings_name(name)) for name in ("auto", "gpu", "mps", "cpu")}
    assert found == {"auto": (True, "cpu"), "gpu": (False, "gpu"), "mps": (False, "mps"), "cpu": (True, "cpu")}


def test_model_summary_prints_the_layers_before_training(tmp_path, digits_dir):
    words = (f"run_dir={tmp_path / 'run'}", f"data.dir={digits_dir}", *QUICK, *SHORT)
    outcome = call(train, "train", *words, "model_summary=true")
    assert outcome.code == 0
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert lines[0].startswith("layer kind kernel stride padding output parameters")
    assert "features.c1 Conv2d 5 1 2 6 x 28 x 28 156 117,600 5 18.4" in lines
    assert "trainable 0.24 MiB 61,706" in lines
