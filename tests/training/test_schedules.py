"""Learning rates at a few steps against their formulas; epochs become steps."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.training.early_stopping import EarlyStopping
from alexnet_lab.training.published import by_pass
from alexnet_lab.training.schedules import Duration, one_cycle, plateau, step


def optimizer(rate: float = 0.4) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def rates(spec: dict, sgd: torch.optim.Optimizer, steps: int) -> list[float]:
    """The rate of each step, and the one after the last."""
    found = [sgd.param_groups[0]["lr"]]
    for _ in range(steps):
        sgd.step()
        spec["scheduler"].step()
        found.append(sgd.param_groups[0]["lr"])
    return found


def test_epochs_become_steps():
    assert Duration(steps=300, epochs=20).steps_per_epoch == 15


def test_step_drops_at_the_start_of_its_epochs():
    sgd = optimizer(1.0)
    spec = step(sgd, Duration(40, 10), drop_epochs=[2, 5], factor=0.1)
    assert spec["interval"] == "step"
    expected = [1.0] * 8 + [0.1] * 12 + [0.01] * 21
    assert rates(spec, sgd, 40) == pytest.approx(expected, rel=1e-9)


def test_step_of_a_run_whose_last_epoch_is_cut_short():
    sgd = optimizer(1.0)
    spec = step(sgd, Duration(25, 10), drop_epochs=[5], factor=0.5)
    assert rates(spec, sgd, 25).count(1.0) == round(5 * 2.5)


@pytest.mark.parametrize("epochs", [[3, 2], [2, 2], [0, 4], [-1]])
def test_step_refuses_epochs_that_do_not_rise(epochs):
    with pytest.raises(ConfigError, match=r"`schedule\.drop_epochs` must be rising epochs >= 1, got \["):
        step(optimizer(), Duration(40, 10), drop_epochs=epochs)


def test_drops_that_the_run_does_not_reach_are_named(caplog):
    step(optimizer(), Duration(40, 10), drop_epochs=[9, 10, 51])
    by_pass(optimizer(), Duration(40, 10))  # 2, 3, 3 and 4 passes: 2, 5, 8, 12
    assert [record.getMessage() for record in caplog.records] == [
        "`schedule.drop_epochs`: the run ends before epoch 10, 51, so the rate does not change there",
        "`schedule.passes`: the run ends before epoch 12, so the rate does not change there",
    ]
    caplog.clear()
    step(optimizer(), Duration(40, 10), drop_epochs=[1, 9])
    by_pass(optimizer(), Duration(80, 20))
    assert caplog.records == []


@pytest.mark.parametrize("anneal", ["cos", "linear"])
def test_one_cycle_rises_and_falls(anneal):
    peak, steps, share = 0.4, 100, 0.3
    sgd = optimizer(peak)
    spec = one_cycle(
        sgd, Duration(steps, 10), warmup_fraction=share, start_divisor=10.0, end_divisor=100.0, anneal=anneal
    )
    found = rates(spec, sgd, steps - 1)
    first, top = peak / 10, steps * share - 1  # torch's: the peak is that of step share * steps - 1

    def between(start: float, end: float, done: float) -> float:
        return end + (start - end) * ((1 + math.cos(math.pi * done)) / 2 if anneal == "cos" else 1 - done)

    for number, rate in enumerate(found):
        if number <= top:
            expected = between(first, peak, number / top)
        else:
            expected = between(peak, first / 100, (number - top) / (steps - 1 - top))
        assert rate == pytest.approx(expected, rel=1e-6)
    assert max(found) == pytest.approx(peak)


def test_one_cycle_leaves_momentum_alone():
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    spec = one_cycle(sgd, Duration(10, 1))
    rates(spec, sgd, 9)
    assert sgd.param_groups[0]["momentum"] == 0.9


def test_plateau_acts_at_the_last_epoch_of_its_patience():
    sgd = optimizer(1.0)
    spec = plateau(sgd, Duration(40, 10), factor=0.1, patience_epochs=2, min_learning_rate=0.05)
    assert (spec["interval"], spec["monitor"]) == ("epoch", "val/top1_error")
    found = []
    for error in [0.5, 0.4, 0.4, 0.41, 0.4, 0.39, 0.4, 0.4, 0.4, 0.4]:
        spec["scheduler"].step(error)
        found.append(sgd.param_groups[0]["lr"])
    assert found == pytest.approx([1.0] * 3 + [0.1] * 4 + [0.05] * 3)


SEED_004 = [
    4.3790, 3.5982, 3.3251, 2.8175, 2.9204, 2.6970, 3.2644, 2.8043, 2.9239, 2.7656, 2.7274, 2.6087, 2.7734, 2.7223,
    2.9778, 2.8415, 3.0142, 2.6681, 2.6428, 2.8702, 2.6816, 2.8195, 2.6759, 2.6260, 2.6285, 2.5984, 2.5893, 2.5752,
    2.6136, 2.5989, 2.6105, 2.6656, 2.5800, 2.6696, 2.6434, 2.6038, 2.6679, 2.6872, 2.6939, 2.6655, 2.6670, 2.6755,
    2.6720, 2.6680, 2.6844, 2.6989, 2.6838, 2.6862, 2.6988, 2.6801,
]  # fmt: skip
"""The validation losses that seed 004 printed, under Keras' ReduceLROnPlateau(patience=10) from a rate of 0.01."""


def test_plateau_drops_where_the_printed_rates_of_seed_004_do():
    sgd = optimizer(0.01)
    scheduler = plateau(sgd, Duration(500, 50), factor=0.1, patience_epochs=10, monitor="val/loss")["scheduler"]
    used = []
    for loss in SEED_004:
        used.append(sgd.param_groups[0]["lr"])
        scheduler.step(loss)
    assert used == pytest.approx([1e-2] * 22 + [1e-3] * 16 + [1e-4] * 10 + [1e-5] * 2)


def test_early_stopping_counts_like_the_plateau():
    """It would have ended seed 004's run where its rate was lowered first."""
    patience = EarlyStopping(patience_epochs=10)
    assert next(epoch for epoch, loss in enumerate(SEED_004, start=1) if patience.is_over(loss)) == 22
    assert EarlyStopping(patience_epochs=1).is_over(math.nan)


@pytest.mark.parametrize(
    ("losses", "minimum", "ends"),
    [
        ([0.5, 0.6, 0.4, 0.4, 0.3], {"min_epochs": 3}, 4),  # in epoch 2 it may not end, and epoch 3 is better
        ([0.5, 0.6, 0.6, 0.6, 0.3], {"min_epochs": 3}, 3),
        ([0.5, 0.6, 0.6, 0.6, 0.3], {"min_steps": 35}, 4),
        ([0.5, 0.6, 0.4, 0.4, 0.3], {}, 2),
    ],
)
def test_early_stopping_waits_for_the_minimum(losses, minimum, ends, monkeypatch):
    stopping = EarlyStopping(patience_epochs=1)
    trainer: Any = SimpleNamespace(should_stop=False, min_epochs=None, min_steps=None)
    vars(trainer).update(minimum)
    monkeypatch.setattr(stopping, "_value", lambda trainer: losses[trainer.current_epoch])
    stopped: list[bool] = []
    for epoch in range(len(losses)):
        trainer.current_epoch, trainer.global_step = epoch, 10 * (epoch + 1)
        stopping.on_train_epoch_end(trainer, cast("Any", None))
        stopped.append(trainer.should_stop)
    assert stopped.index(True) + 1 == ends
