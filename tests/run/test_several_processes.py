"""One run in two processes: the same images, the same losses, each test image once; and how it ends if one fails."""

from __future__ import annotations

import csv
import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from commands import QUICK, command, finished, wait_for

from alexnet_lab.base.errors import Interrupted, RunError
from alexnet_lab.run import elastic, train
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


def test_all_processes_write_one_log(one_and_two):
    assert "rank 0 INFO" in (one_and_two[1] / "train.log").read_text()
    assert {path.name for path in one_and_two[1].iterdir()} == {path.name for path in one_and_two[0].iterdir()}


def test_failing_worker_is_told_in_one_line(compose, tmp_path, capfd):
    run = tmp_path / "run"
    config = compose(f"run_dir={run}", *SHORT, "trainer.devices=2", "optimizer.learning_rate=1e18", "schedule=constant")
    with pytest.raises(RunError, match=r"worker \d of the run failed: RunError: the training loss is") as caught:
        train(config)
    assert "\n" not in str(caught.value)
    found = json.loads((run / "result.json").read_text())
    assert found["status"] == "failed"
    assert "Traceback" in (run / "train.log").read_text()
    assert "Traceback" not in capfd.readouterr().err


def test_signal_ends_all_processes(digits_dir, tmp_path):
    run = tmp_path / "run"
    words = (f"run_dir={run}", f"data.dir={digits_dir}", *QUICK, *SHORT, "trainer.devices=2", "trainer.max_epochs=400")
    process = command("train.py", *words, cwd=tmp_path)
    wait_for(run / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    outcome = finished(process)
    assert time.monotonic() - start < elastic.SHUTDOWN_SECONDS + 15
    assert outcome.code == 130, outcome.err
    assert [line for line in outcome.err.splitlines() if "SIGTERM" in line and not line.startswith("error")] == []
    assert "Traceback" not in outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: interrupted by SIGTERM; go on with it: resume=")
    assert json.loads((run / "result.json").read_text())["status"] == "interrupted"


def test_signal_becomes_interrupted(monkeypatch, compose, tmp_path):
    from torch.distributed.elastic.multiprocessing import SignalException

    handler = signal.getsignal(signal.SIGTERM)

    def launch(*_: Any) -> Any:
        def worker(*_: Any) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as elastic launch leaves it
            raise SignalException("msg", signal.SIGINT)

        return worker

    monkeypatch.setattr(elastic, "elastic_launch", launch)
    with pytest.raises(Interrupted, match=r"^interrupted by SIGINT"):
        train(compose(f"run_dir={tmp_path / 'run'}", *SHORT, "trainer.devices=2"))
    assert signal.getsignal(signal.SIGTERM) is handler


def test_killed_worker_is_named():
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    failure = ProcessFailure(local_rank=1, pid=1, exitcode=-signal.SIGKILL, error_file="none")
    text = elastic._explain(ChildFailedError("train", {1: failure}))
    assert text == "worker 1 of the run failed: it was killed by SIGKILL"
