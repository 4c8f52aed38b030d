"""Learning rates at a few steps against their formulas; epochs become steps."""

from __future__ import annotations

import math

import pytest
import torch

from alexnet_lab.base.errors import ConfigError
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
    with pytest.raises(ConfigError, match=r"schedule\.drop_epochs must be rising epochs >= 1, got \["):
        step(optimizer(), Duration(40, 10), drop_epochs=epochs)


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


def test_plateau_bears_its_patience_and_no_more():
    sgd = optimizer(1.0)
    spec = plateau(sgd, Duration(40, 10), factor=0.1, patience_epochs=2, min_learning_rate=0.05)
    assert (spec["interval"], spec["monitor"]) == ("epoch", "val/top1_error")
    found = []
    for error in [0.5, 0.4, 0.4, 0.41, 0.4, 0.39, 0.4, 0.4, 0.4, 0.4]:
        spec["scheduler"].step(error)
        found.append(sgd.param_groups[0]["lr"])
    assert found == pytest.approx([1.0] * 4 + [0.1] * 4 + [0.05] * 2)
