"""A run that is continued to more epochs has, from its next step on, the rates of a run of the new length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from alexnet_lab.training import published, schedules
from alexnet_lab.training.krizhevsky import krizhevsky_sgd
from alexnet_lab.training.schedules import Duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

SHORT, LONG = Duration(40, 4), Duration(80, 8)

SCHEDULES: dict[str, Callable[[Optimizer, Duration], dict[str, Any]]] = {
    "one_cycle": schedules.one_cycle,
    "one_cycle_linear": lambda *run: schedules.one_cycle(*run, anneal="linear", warmup_fraction=0.6),
    "step": lambda *run: schedules.step(*run, drop_epochs=[2, 6], factor=0.5),
    "dexp": published.dexp,
    "recorded": published.recorded,
    "caffe_step_share": published.caffe_step,
    "caffe_step": lambda *run: published.caffe_step(*run, step_iterations=30, step_share=None),
    "caffe_inv": published.caffe_inv,
    "by_pass": published.by_pass,
}


def network() -> Optimizer:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    return krizhevsky_sgd(net, learning_rate=0.01, bias_factor=2.0)


def course(optimizer: Optimizer, scheduler: Any, steps: int) -> list[list[float]]:
    """The rates of each group at each step."""
    found = []
    for _ in range(steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found


def continued(name: str, done: int) -> list[list[float]]:
    """The rates from step `done` on of a short run that is continued as a long one."""
    before, after = network(), network()
    first = SCHEDULES[name](before, SHORT)["scheduler"]
    course(before, first, done)
    second = SCHEDULES[name](after, LONG)["scheduler"]
    after.load_state_dict(before.state_dict())  # the optimiser first, as Lightning does
    second.load_state_dict(first.state_dict())
    return course(after, second, LONG.steps - done)


@pytest.mark.parametrize("done", [1, 15, 40])
@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_those_of_the_longer_run(name, done):
    whole = network()
    expected = course(whole, SCHEDULES[name](whole, LONG)["scheduler"], LONG.steps)[done:]
    assert continued(name, done) == expected


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_of_a_run_of_the_same_length_keep_their_bits(name):
    whole, again = network(), network()
    scheduler = SCHEDULES[name](whole, SHORT)["scheduler"]
    course(whole, scheduler, 15)
    resumed = SCHEDULES[name](again, SHORT)["scheduler"]
    again.load_state_dict(whole.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert course(again, resumed, 25) == course(whole, scheduler, 25)


def test_one_cycle_comes_up_again_when_it_is_stretched():
    """Half of 80 steps done: cos from the peak at step 15 of 79 down to the end; a short run had ended at 4e-8."""
    rate = continued("one_cycle", 40)[0][0]
    low = 0.01 / 25 / 1e4
    assert rate == pytest.approx(low + (0.01 - low) * (1 + math.cos(math.pi * (40 - 15) / (79 - 15))) / 2)
    assert rate == pytest.approx(0.0066845, rel=1e-5)


def test_plateau_keeps_its_state():
    before, after = network(), network()
    first = schedules.plateau(before, SHORT, patience_epochs=1)["scheduler"]
    for error in (0.5, 0.6):
        first.step(error)
    second = schedules.plateau(after, LONG, patience_epochs=1)["scheduler"]
    after.load_state_dict(before.state_dict())
    second.load_state_dict(first.state_dict())
    assert after.param_groups[0]["lr"] == pytest.approx(0.001)
    second.step(0.55)  # the best was 0.5
    assert after.param_groups[0]["lr"] == pytest.approx(0.0001)


def test_one_cycle_stays_at_its_end():
    """With other images (resume_force) an epoch may have other steps than when the run began."""
    optimizer = network()
    scheduler = schedules.one_cycle(optimizer, SHORT)["scheduler"]
    found = course(optimizer, scheduler, 45)
    assert found[40:] == [found[40]] * 5
    assert found[40][0] <= 0.01 / 25 / 1e4 * (1 + 1e-9)
