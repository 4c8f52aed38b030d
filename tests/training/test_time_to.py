"""How soon a training error is reached: against a count of every window, resumed runs, and several processes."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_lab.base.errors import Interrupted
from alexnet_lab.run import train
from alexnet_lab.training.callbacks import Throughput
from alexnet_lab.training.classifier import Classifier
from alexnet_lab.training.time_to import TimeToError, first_crossing

if TYPE_CHECKING:
    from pathlib import Path

BATCHES, SIZE = 6, 20
SHORT = ("trainer.max_epochs=4", f"trainer.limit_train_batches={BATCHES}", f"data.batch_size={SIZE}",
         "callbacks=to_error", "schedule=constant", "optimizer.learning_rate=0.05")  # fmt: skip


@settings(deadline=None)
@given(
    epochs=st.lists(st.lists(st.integers(0, 10), min_size=4, max_size=4), min_size=1, max_size=5),
    error=st.floats(0.05, 0.95),
)
def test_first_crossing_is_that_of_all_windows(epochs: list[list[int]], error: float):
    wrong = [count for epoch in epochs for count in epoch]
    total = 4 * 10
    windows = {last: sum(wrong[last - 3 : last + 1]) for last in range(3, len(wrong))}
    expected = next((last for last, count in windows.items() if count <= error * total), None)
    found = None
    for number, epoch in enumerate(epochs):
        place = first_crossing(epochs[number - 1] if number else [], epoch, total, error)
        if place is not None:
            found = 4 * number + place
            break
    assert found == expected


def test_an_epoch_cut_short_still_has_windows():
    assert first_crossing([5, 5, 5], [1], 30, 0.4) == 0
    assert first_crossing([5, 5, 5], [4, 4], 30, 0.3) is None


def result(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())["to_error"]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def counted(compose: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A finished run, and the wrong answers to each of its batches."""
    wrong: list[int] = []
    run = tmp_path_factory.mktemp("to_error") / "run"
    with pytest.MonkeyPatch.context() as patch:
        step = Classifier.training_step

        def counting(self: Classifier, batch: Any, batch_index: int) -> Any:
            before = int(self.train_counts.top1_wrong)
            loss = step(self, batch, batch_index)
            wrong.append(int(self.train_counts.top1_wrong) - before)
            return loss

        patch.setattr(Classifier, "training_step", counting)
        train(compose(f"run_dir={run}", *SHORT, "callbacks.to_error.error=0.01"))
    return run, wrong


def test_what_is_not_reached_is_null(counted):
    assert result(counted[0]) == {"error": 0.01, "epochs": None, "steps": None, "seconds": None}


def test_the_step_is_the_first_whose_window_is_good_enough(compose, counted, tmp_path):
    wrong = counted[1]
    assert len(wrong) == 4 * BATCHES
    windows = [sum(wrong[last - BATCHES + 1 : last + 1]) for last in range(BATCHES - 1, len(wrong))]
    lows = [number for number, count in enumerate(windows) if all(count < other for other in windows[:number])]
    first = next(BATCHES + number for number in lows if number % BATCHES)  # steps: one within an epoch
    target = windows[first - BATCHES]
    train(compose(f"run_dir={tmp_path / 'run'}", *SHORT, f"callbacks.to_error.error={target / (BATCHES * SIZE)}"))
    found = result(tmp_path / "run")
    assert (found["steps"], found["epochs"]) == (first, pytest.approx(first / BATCHES, abs=1e-6))
    assert 0 < found["seconds"] < 60


def test_at_the_end_of_an_epoch_it_is_the_error_of_metrics_csv(counted):
    run, wrong = counted
    for epoch, row in enumerate(rows(run)):
        count = sum(wrong[epoch * BATCHES : (epoch + 1) * BATCHES])
        assert float(row["train/top1_error"]) == pytest.approx(count / (BATCHES * SIZE), rel=1e-6)


def test_off_by_default(digits_run):
    assert result(digits_run) is None


@pytest.mark.parametrize("stop", ["false", "true"])
def test_an_interrupted_run_finds_the_same_step(stop, compose, counted, tmp_path, monkeypatch):
    wrong = counted[1]
    target = max(sum(wrong[BATCHES + k : 2 * BATCHES + k]) for k in (1, 2)) / (BATCHES * SIZE)
    words = (*SHORT, f"callbacks.to_error.error={target}", f"callbacks.to_error.stop={stop}")
    train(compose(f"run_dir={tmp_path / 'whole'}", *words))
    whole = result(tmp_path / "whole")
    epoch = whole["steps"] // BATCHES  # the one before that in which it is reached has its checkpoint by then

    def interrupt(self: Any, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Throughput, "on_train_epoch_start", interrupt)
        with pytest.raises(Interrupted):
            train(compose(f"run_dir={tmp_path / 'parted'}", *words))
    train({"resume": str(tmp_path / "parted")})
    parted = result(tmp_path / "parted")
    assert {**parted, "seconds": 0} == {**whole, "seconds": 0}


def test_stops_with_the_epoch_in_which_it_is_reached(compose, tmp_path, monkeypatch):
    words = (*SHORT, "callbacks.to_error.error=0.99", "callbacks.to_error.stop=true")
    train(compose(f"run_dir={tmp_path / 'run'}", *words))
    ended = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (ended["status"], ended["epochs"], ended["steps"]) == ("completed", 1, BATCHES)
    assert ended["to_error"]["epochs"] == 1.0
    with monkeypatch.context() as patch:  # killed between its last checkpoint and its end
        patch.setattr("lightning.Trainer.test", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(Interrupted):
            train(compose(f"run_dir={tmp_path / 'parted'}", *words))
    train({"resume": str(tmp_path / "parted")})
    resumed = json.loads((tmp_path / "parted" / "result.json").read_text())
    same = ("status", "epochs", "steps", "metrics")
    assert [resumed[name] for name in same] == [ended[name] for name in same]


def test_seconds_leave_out_what_is_not_training(monkeypatch):
    class Trainer:
        current_epoch, num_training_batches, global_step, should_stop = 0, 1, 1, False

        class strategy:  # noqa: N801 - stands for an attribute
            @staticmethod
            def reduce(value: Any, reduce_op: str) -> Any:
                return value

    class Net:
        class train_counts:  # noqa: N801
            top1_wrong = torch.tensor(5)

    class Batch:
        total = 10

    # start, a validation of 50 s, and end of the batch in two epochs; 98 s in between
    clock = iter([100.0, 101.0, 151.0, 152.0, 250.0, 251.0, 301.0, 303.0])
    monkeypatch.setattr("alexnet_lab.training.callbacks.time.perf_counter", lambda: next(clock))
    callback = TimeToError(error=0.3)
    for wrong in (5, 2):
        Net.train_counts.top1_wrong = torch.tensor(wrong)
        callback.on_train_epoch_start(Trainer(), Net())  # pyright: ignore[reportArgumentType] - stand-ins
        callback.on_validation_start(Trainer(), Net())  # pyright: ignore[reportArgumentType] - stand-ins
        callback.on_validation_end(Trainer(), Net())  # pyright: ignore[reportArgumentType] - stand-ins
        callback.on_train_batch_end(Trainer(), Net(), None, Batch(), 0)  # pyright: ignore[reportArgumentType] - stand-ins
        callback.on_train_epoch_end(Trainer(), Net())  # pyright: ignore[reportArgumentType]
        Trainer.current_epoch += 1
    assert callback.result == {"error": 0.3, "epochs": 2.0, "steps": 1, "seconds": 5.0}


def epoch_of(callback: TimeToError, trainer: Any, wrong: list[int]) -> None:
    """Calls the hooks of an epoch whose batches of 10 images have these numbers of wrong answers."""
    module: Any = SimpleNamespace(train_counts=SimpleNamespace(top1_wrong=torch.tensor(0)))
    callback.on_train_epoch_start(trainer, module)
    for index, count in enumerate(wrong):
        trainer.global_step += 1
        module.train_counts.top1_wrong = module.train_counts.top1_wrong + count
        callback.on_train_batch_end(trainer, module, None, cast("Any", SimpleNamespace(total=10)), index)
    callback.on_train_epoch_end(trainer, module)
    trainer.current_epoch += 1


def trainer_of_three_batches() -> Any:
    strategy = SimpleNamespace(reduce=lambda value, reduce_op: value)
    return SimpleNamespace(
        strategy=strategy, num_training_batches=3, current_epoch=0, global_step=0, should_stop=False, min_epochs=None,
        min_steps=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [
        ([[5, 5, 5], [5], [5, 5, 5]], None),
        ([[5], [5, 5, 5]], None),
        ([[5], [5], [4, 4, 4]], 5),
        ([[5, 5, 5], [5], [5, 2, 5]], 6),
    ],
)
def test_images_before_an_epoch_that_was_cut_short_still_count(epochs, steps):
    callback, trainer = TimeToError(error=0.4), trainer_of_three_batches()
    for wrong in epochs:
        epoch_of(callback, trainer, wrong)
    assert callback.result["steps"] == steps


def test_does_not_stop_before_the_minimum():
    callback, trainer = TimeToError(error=0.4, stop=True), trainer_of_three_batches()
    trainer.min_steps = 4
    stopped: list[bool] = []
    for _ in range(2):
        epoch_of(callback, trainer, [0, 0, 0])
        stopped.append(trainer.should_stop)
    assert stopped == [False, True]


def test_a_loss_is_timed_in_the_same_way(compose, tmp_path, monkeypatch):
    losses: list[float] = []
    words = tuple(word.replace("to_error", "to_loss") for word in SHORT)
    step = Classifier.training_step

    def counting(self: Classifier, batch: Any, batch_index: int) -> Any:
        loss = step(self, batch, batch_index)
        losses.append(float(loss.detach()) * SIZE)
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", counting)
        train(compose(f"run_dir={tmp_path / 'whole'}", *words, "callbacks.to_loss.loss=0.001"))
    whole = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert whole["to_loss"] == {"loss": 0.001, "epochs": None, "steps": None, "seconds": None}
    means = [sum(losses[last - BATCHES + 1 : last + 1]) / (BATCHES * SIZE) for last in range(BATCHES - 1, len(losses))]
    ends = [float(row["train/loss"]) for row in rows(tmp_path / "whole")]
    assert means[::BATCHES] == pytest.approx(ends, rel=1e-5)
    assert whole["train"]["final_loss"] == pytest.approx(ends[-1])
    assert whole["train"]["early_loss"] == pytest.approx(sum(ends[:3]) / 3)
    first = next(place for place, mean in enumerate(means) if place % BATCHES and mean < min(means[:place]))
    goal = (means[first] + min(means[:first])) / 2  # rounding decides nothing
    train(compose(f"run_dir={tmp_path / 'run'}", *words, f"callbacks.to_loss.loss={goal}"))
    found = json.loads((tmp_path / "run" / "result.json").read_text())["to_loss"]
    assert found["steps"] == BATCHES + first


@pytest.mark.slow
def test_two_processes_find_the_same_step(compose, tmp_path):
    words = (*SHORT, "callbacks.to_error.error=0.85", "trainer.accelerator=cpu")
    found = []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        train(compose(f"run_dir={run}", *words, f"trainer.devices={processes}"))
        found.append(result(run) | {"seconds": 0})
    assert found[0]["steps"] is not None
    assert found[0] == found[1]
