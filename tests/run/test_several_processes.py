"""One run in two processes: the same images, the same losses, each test image once; and how it ends if one fails."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from commands import QUICK, finished, forked, train_config, wait_for
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from alexnet_lab.base.errors import ConfigError, Interrupted, RunError
from alexnet_lab.config.schema import Train
from alexnet_lab.run import elastic, last_step, launcher, train
from alexnet_lab.run.devices import uses_workers
from alexnet_lab.training.checkpoint_io import load_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=4", "trainer.accelerator=cpu", "data.batch_size=18")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def one_and_two(compose: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same run in one process and in two."""
    folder = tmp_path_factory.mktemp("processes")
    train(compose(f"run_dir={folder / 'one'}", *SHORT))
    train(compose(f"run_dir={folder / 'two'}", *SHORT, "trainer.devices=2"))
    return folder / "one", folder / "two"


def test_losses_and_errors_agree(one_and_two):
    one, two = (rows(run) for run in one_and_two)
    assert len(one) == len(two) == 2
    for alone, shared in zip(one, two, strict=True):
        assert list(alone) == list(shared)
        for name in alone:
            if "loss" in name or "rate" in name:
                assert float(shared[name]) == pytest.approx(float(alone[name]), rel=1e-5)
            elif name != "images_per_second":
                assert shared[name] == alone[name]


def test_each_test_image_is_counted_once(one_and_two):
    one, two = (json.loads((run / "result.json").read_text()) for run in one_and_two)
    assert two["metrics"]["test/top1_error"] == one["metrics"]["test/top1_error"]
    assert two["metrics"]["test/loss"] == pytest.approx(one["metrics"]["test/loss"], rel=1e-5)
    assert (two["epochs"], two["steps"], two["status"]) == (2, 8, "completed")


def test_weights_agree_and_have_the_same_names(one_and_two):
    one, two = (load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in one_and_two)
    assert list(one) == list(two)
    assert all(two[name].allclose(one[name], rtol=1e-4, atol=1e-6) for name in one)


@pytest.mark.slow
@pytest.mark.real_data
def test_fifty_steps_of_alexnet_on_cifar10_have_the_same_losses(compose, real_data, tmp_path):
    """One step an epoch, so that metrics.csv has each step's loss.

    In float64: 50 steps let the rounding of float32 grow from 1e-7 to 1e-4 on a processor with AVX-512.
    """
    words = (
        "model=alexnet", "model.width=0.25", "data=cifar10", f"data.dir={real_data}",
        "data.batch_size=32", "trainer.max_epochs=50", "trainer.limit_train_batches=1", "trainer.limit_val_batches=0",
        "trainer.limit_test_batches=1", "trainer.accelerator=cpu", "trainer.precision=64-true",
    )  # fmt: skip
    losses: list[list[float]] = []
    for devices in (1, 2):
        run = tmp_path / f"{devices}"
        train(compose(f"run_dir={run}", *words, f"trainer.devices={devices}"))
        losses.append([float(row["train/loss"]) for row in rows(run)])
    assert len(losses[0]) == 50
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert losses[0][-1] < losses[0][0]


@pytest.fixture(scope="module")
def one_with_batch_norm(compose: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The rows of a run whose last batch of an epoch has 118 images, which three processes do not divide.

    In float64: small batches normalise tiny differences of float32 into large ones within ten steps.
    """
    run = tmp_path_factory.mktemp("batch_norm") / "one"
    train(compose(f"run_dir={run}", *BATCH_NORM))
    return rows(run)


BATCH_NORM = (
    "model=alexnet", "model.norm=batch", "model.width=0.1", "data.batch_size=294",
    "trainer.max_epochs=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "trainer.accelerator=cpu",
    "trainer.precision=64-true",
)  # fmt: skip


@pytest.mark.parametrize("processes", [2, 3])
def test_batch_norm_and_dropout_are_those_of_the_global_batch(processes, one_with_batch_norm, compose, tmp_path):
    train(compose(f"run_dir={tmp_path / 'run'}", *BATCH_NORM, f"trainer.devices={processes}"))
    found = rows(tmp_path / "run")
    for name in ("train/loss", "val/loss"):
        expected = [float(row[name]) for row in one_with_batch_norm]
        assert [float(row[name]) for row in found] == pytest.approx(expected, rel=1e-6)


def test_all_processes_write_one_log(one_and_two):
    assert "rank 0 INFO" in (one_and_two[1] / "train.log").read_text()
    assert {path.name for path in one_and_two[1].iterdir()} == {path.name for path in one_and_two[0].iterdir()}


def test_failing_worker_is_reported_in_one_line(compose, tmp_path, capfd):
    run = tmp_path / "run"
    config = compose(f"run_dir={run}", *SHORT, "trainer.devices=2", "optimizer.learning_rate=1e18", "schedule=constant")
    with pytest.raises(RunError, match=r"worker \d of the run failed: RunError: the training loss is") as caught:
        train(config)
    assert "\n" not in str(caught.value)
    found = json.loads((run / "result.json").read_text())
    assert found["status"] == "failed"
    assert "Traceback" in (run / "train.log").read_text()
    assert "Traceback" not in capfd.readouterr().err


def test_an_optimizer_whose_passes_differ_among_processes_is_refused(compose, tmp_path):
    config = compose(f"run_dir={tmp_path / 'run'}", *SHORT, "trainer.devices=2", "trainer.channels_last=false")
    spec = {"_target_": "torch.optim.LBFGS", "line_search_fn": "strong_wolfe"}
    with pytest.raises(RunError, match=r"`optimizer` is LBFGS, whose number of passes .* of the 2 processes"):
        train(config | {"optimizer": spec, "schedule": None})


def test_signal_ends_all_processes(digits_dir, tmp_path):
    run = tmp_path / "run"
    words = (f"run_dir={run}", f"data.dir={digits_dir}", *QUICK, *SHORT, "trainer.devices=2", "trainer.max_epochs=400")
    process = forked("train.py", *words, cwd=tmp_path)
    wait_for(run / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    outcome = finished(process)
    assert time.monotonic() - start < last_step.SHUTDOWN_SECONDS + 15
    assert outcome.code == 130, outcome.err
    assert [line for line in outcome.err.splitlines() if "SIGTERM" in line and not line.startswith("interrupted")] == []
    assert "Traceback" not in outcome.err
    assert outcome.err.splitlines()[-1].startswith("interrupted by SIGTERM; resume it: ")
    assert json.loads((run / "result.json").read_text())["status"] == "interrupted"


def test_signal_becomes_interrupted(monkeypatch, compose, tmp_path):
    handler = signal.getsignal(signal.SIGTERM)

    def launch(*_: Any) -> Any:
        def worker(*_: Any) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as elastic launch leaves it
            raise SignalException("msg", signal.SIGINT)

        return worker

    monkeypatch.setattr(elastic, "elastic_launch", launch)
    with pytest.raises(Interrupted, match=r"^interrupted by Ctrl-C"):
        train(compose(f"run_dir={tmp_path / 'run'}", *SHORT, "trainer.devices=2"))
    assert signal.getsignal(signal.SIGTERM) is handler


def failure(exitcode: int, message: Any = "none") -> ChildFailedError:
    one = ProcessFailure(local_rank=1, pid=1, exitcode=exitcode, error_file="none")
    one.message = message
    return ChildFailedError("train", {1: one})


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (failure(-signal.SIGKILL), "it was killed by SIGKILL"),
        (failure(-signal.SIGSEGV), "it was killed by SIGSEGV"),
        (failure(5), "it ended with exit code 5"),
        (failure(1, {"message": "RuntimeError: [pair.cc:5] Connection closed by peer"}), "RuntimeError: .*by peer"),
        (failure(1, {"message": "Interrupted: interrupted by SIGTERM"}), "Interrupted: interrupted by SIGTERM"),
        (failure(1, {"message": "AcceleratorError: CUDA error: uncorrectable ECC error"}), "AcceleratorError: .*"),
        (failure(1, {"message": "AcceleratorError: CUDA error: unspecified launch failure"}), "AcceleratorError: .*"),
    ],
)
def test_worker_that_died_is_named(error, text):
    found = elastic._explained(error)
    assert isinstance(found, elastic.WorkerDiedError)
    assert re.fullmatch(f"worker 1 of the run failed: {text}", str(found))


def test_error_of_a_worker_is_no_death():
    found = elastic._explained(failure(1, {"message": "ValueError: first\nsecond"}))
    assert type(found) is RunError
    assert str(found) == "worker 1 of the run failed: ValueError: first second"


@pytest.mark.parametrize(
    "message",
    [
        "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "OutOfMemoryError: CUDA out of memory. 3 GiB allocated by NCCL",
        "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory",
        "AcceleratorError: CUDA error: an illegal memory access was encountered",
    ],
)
def test_error_that_would_come_again_is_no_death(message):
    assert type(elastic._explained(failure(1, {"message": message}))) is RunError


def test_worker_has_the_variables_of_its_parent_and_its_own_place(monkeypatch):
    monkeypatch.setattr(os, "environ", {"LOCAL_RANK": "1", "RANK": "3", "LEFT_BEHIND": "1", "PATH": "/old"})
    elastic.take_environment({"LOCAL_RANK": "0", "LOCAL_DATA": "/scratch", "MASTER_KEY": "k", "PATH": "/new"})
    expected = {"LOCAL_RANK": "1", "RANK": "3", "LOCAL_DATA": "/scratch", "MASTER_KEY": "k", "PATH": "/new"}
    assert os.environ == expected


def test_run_restarts_as_often_as_it_may_when_a_worker_died(monkeypatch, compose, tmp_path, caplog):
    run = tmp_path / "run"
    resumed: list[bool] = []

    def dying(config: Any, directory: Any, *, resume: bool, **_: Any) -> Any:
        resumed.append(resume)
        directory.checkpoints.mkdir(exist_ok=True)
        directory.last.touch()
        raise elastic.WorkerDiedError("worker 0 of the run failed: it was killed by SIGKILL")

    monkeypatch.setattr(launcher, "run_workers", dying)
    with pytest.raises(RunError, match="killed by SIGKILL"):
        train(compose(f"run_dir={run}", *SHORT, "launcher.workers=true", "launcher.retries=2"))
    assert resumed == [False, True, True]
    found = json.loads((run / "result.json").read_text())
    assert (found["status"], found["attempts"]) == ("failed", 3)


def test_one_process_of_its_own(compose, tmp_path):
    done = train(compose(f"run_dir={tmp_path / 'run'}", *SHORT, "launcher.workers=true", "trainer.max_epochs=1"))
    assert (done["status"], done["attempts"], done["steps"]) == ("completed", 1, 4)


def asking(workers: str | bool, processes: int) -> Train:
    return train_config(launcher={"workers": workers}, trainer={"devices": processes})


@pytest.mark.parametrize(
    ("workers", "processes", "own"),
    [("auto", 1, False), ("auto", 2, True), (True, 1, True), (False, 1, False)],
)
def test_who_trains(workers, processes, own):
    assert uses_workers(asking(workers, processes)) is own


def test_several_processes_need_workers():
    with pytest.raises(ConfigError, match=r"`launcher.workers` is false, .* but it needs 2; set trainer.devices=1"):
        uses_workers(asking(False, 2))
