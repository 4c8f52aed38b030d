"""Learning-rate schedules as the sources recorded them, or as their programs computed them.

Each multiplies the optimiser's initial rates. Shares of a run and epochs become steps here, once. A change applies from
the first step at or after its place; in `dexp` from the first step after it, as in the source.
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any, Literal, NamedTuple, cast

from annotated_types import Gt, Le
from torch.optim import Optimizer

from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, UnitInterval
from alexnet_lab.training.schedule_rules import check_passes, check_step_length
from alexnet_lab.training.schedules import ByStep, Duration, Factor, constant, group_kinds, staircase, warn_beyond

__all__ = ["by_pass", "caffe_inv", "caffe_step", "dexp", "recorded"]


class RecordedRun(NamedTuple):
    """Epochs at which the rates of one run were changed by hand; None: not recorded."""

    drops: tuple[int, ...]  # the weights' rate falls tenfold
    first_lowered: int | None  # conv1's rate falls to a tenth of the others'
    first_frozen: int  # conv1's rate becomes 0
    end: int  # the run was killed


RUNS: dict[str | int, RecordedRun] = {
    "145-2010": RecordedRun((23, 51, 78), 68, 72, 93),  # the paper's network on ILSVRC-2010
    145: RecordedRun((25, 51, 79), 67, 72, 91),  # the same on ILSVRC-2012
    "145-half": RecordedRun((20, 48), 66, 72, 96),  # one GPU; its third drop was not recorded
    147: RecordedRun((23, 51, 79), None, 79, 90),  # non-overlapping pooling
    148: RecordedRun((22, 44, 86), 69, 73, 97),  # no response normalisation
}
"""The notes in the released code's layer-params files (computerhistory/AlexNet-Source-Code)."""


@checked("schedule")
def recorded(
    optimizer: Optimizer,
    duration: Duration,
    *,
    run: Literal["145-2010", 145, "145-half", 147, 148] = 145,
    lower_biases: bool = False,
    freeze_first: bool = True,
) -> dict[str, Any]:
    """The drops that Krizhevsky made by hand in 2012, at the same shares of the run.

    Run 145 of 91 epochs: weights x .1 at 25, 51 and 79; conv1 lowered by another factor of ten at 67, frozen at 72.

    Args:
        optimizer: Of `krizhevsky_sgd`, whose groups separate layers and biases. Its first layer counts as conv1.
        duration: Of the run; the recorded epochs are scaled to it.
        run: Which run. 145 is the paper's network.
        lower_biases: Whether the biases' rate falls with the weights'. The notes do not say: 145 and 148 ended with
            the initial epsB, 145-2010 and 147 with a tenth of it, reached at an unrecorded epoch.
        freeze_first: Lower and then freeze the first layer before the others; freezing includes its biases.

    Raises:
        ConfigError: An unknown run, or an optimiser without groups by layer.

    Example:
        >>> from alexnet_lab.models import AlexNet
        >>> from alexnet_lab.training.krizhevsky import krizhevsky_sgd
        >>> from alexnet_lab.training.schedules import Duration
        >>> optimizer = krizhevsky_sgd(AlexNet(width=0.125))
        >>> scheduler = recorded(optimizer, Duration(steps=910, epochs=91.0))["scheduler"]
        >>> [round(scheduler.lr_lambdas[-2](epoch * 10), 4) for epoch in (24, 26, 52, 80)]
        [1.0, 0.1, 0.01, 0.001]
    """
    kinds = group_kinds(optimizer, "schedule=recorded_145")
    notes = RUNS[run]

    def step_of(epoch: int) -> int:
        return round(epoch / notes.end * duration.steps)

    common = staircase([step_of(epoch) for epoch in notes.drops], 0.1)
    lowered = notes.drops if notes.first_lowered is None else (*notes.drops, notes.first_lowered)
    first = staircase(sorted(map(step_of, lowered)), 0.1)
    frozen = step_of(notes.first_frozen)
    first_layer = optimizer.param_groups[0]["layer"]
    factors: list[Factor] = []
    for group, kind in zip(optimizer.param_groups, kinds, strict=True):
        is_first = freeze_first and group["layer"] == first_layer
        follows = first if is_first else common
        factor = follows if kind != "biases" or lower_biases else constant
        factors.append(_until(frozen, factor) if is_first else factor)
    return _each_step(optimizer, factors)


@checked("schedule")
def dexp(
    optimizer: Optimizer,
    duration: Duration,
    *,
    target_factor: PositiveFloat = 250.0,
    levels: PositiveInt = 4,
    bias_target_factor: PositiveFloat | None = 10.0,
    bias_levels: PositiveInt = 2,
) -> dict[str, Any]:
    """cuda-convnet2's discrete exponential (2013): stretches of equal length, each lower by the same factor.

    With the defaults and rates of .01 and .02: .01, .00158740105, .000251984210, .00004 in the four quarters, and
    .02, .002 for biases in the two halves, as its ImageNet files have it. As in its lr.cu, a step exactly on a boundary
    still has the rate of the stretch before.

    Args:
        optimizer: Its rates are the first level.
        duration: Of the run.
        target_factor: The last level is the first divided by this.
        levels: Number of levels of the weights; 1 keeps the rate.
        bias_target_factor: `target_factor` for biases; None: the same levels as the weights.
        bias_levels: `levels` for biases.

    Raises:
        ConfigError: A field out of its range, or biases without their own groups.

    Example:
        >>> from alexnet_lab.training.krizhevsky import krizhevsky_sgd
        >>> from alexnet_lab.training.schedules import Duration
        >>> optimizer = krizhevsky_sgd(torch.nn.Linear(2, 1))
        >>> scheduler = dexp(optimizer, Duration(steps=100, epochs=10.0))["scheduler"]
        >>> [round(scheduler.lr_lambdas[0](number), 6) for number in (1, 99)]
        [1.0, 0.004]
    """
    weights = _discrete_exponential(target_factor, levels, duration)
    if bias_target_factor is None:
        return _each_step(optimizer, weights)
    biases = _discrete_exponential(bias_target_factor, bias_levels, duration)
    kinds = group_kinds(optimizer, "schedule.bias_target_factor")
    return _each_step(optimizer, [biases if kind == "biases" else weights for kind in kinds])


@checked("schedule")
def caffe_step(
    optimizer: Optimizer,
    duration: Duration,
    *,
    step_iterations: PositiveInt | None = None,
    step_share: Annotated[UnitInterval, Gt(0)] | None = 0.2222222222222222,
    gamma: Annotated[PositiveFloat, Le(1)] = 0.1,
) -> dict[str, Any]:
    """Caffe's `lr_policy: "step"`: base * gamma ^ floor(iteration / step size).

    Caffe's AlexNet drops every 100,000 of 450,000 iterations: 2/9 of the run.

    Args:
        optimizer: Its rates are the base.
        duration: Of the run.
        step_iterations: Optimiser steps between two drops.
        step_share: The share of the run between two drops. Give exactly one of the two; the other is None.
        gamma: The factor of a drop.

    Raises:
        ConfigError: Both or neither of the two are given, or a field is out of its range.

    Example:
        >>> from alexnet_lab.training.schedules import Duration
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.01)
        >>> duration = Duration(steps=100, epochs=10.0)
        >>> scheduler = caffe_step(optimizer, duration, step_iterations=40, step_share=None)["scheduler"]
        >>> [scheduler.lr_lambdas[0](number) for number in (39, 40)]
        [1.0, 0.1]
    """
    check_step_length(step_iterations, step_share)
    size = cast("float", step_iterations) if step_share is None else step_share * duration.steps
    return _each_step(optimizer, lambda step: gamma ** _whole_part(step / size))


@checked("schedule")
def caffe_inv(
    optimizer: Optimizer, duration: Duration, *, gamma: NonNegativeFloat = 1e-4, power: NonNegativeFloat = 0.75
) -> dict[str, Any]:
    """Caffe's `lr_policy: "inv"`: base * (1 + gamma * iteration) ^ -power; its LeNet runs for 10,000 iterations.

    Args:
        optimizer: Its rates are the base.
        duration: Not used: an iteration is an optimiser step, regardless of the length of the run.
        gamma: Per optimiser step, >= 0.
        power: >= 0; 0 keeps the rate.

    Raises:
        ConfigError: A field out of its range.

    Example:
        >>> from alexnet_lab.training.schedules import Duration
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.01)
        >>> scheduler = caffe_inv(optimizer, Duration(steps=100, epochs=10.0))["scheduler"]
        >>> round(scheduler.lr_lambdas[0](10_000), 4)
        0.5946
    """
    return _each_step(optimizer, lambda step: (1 + gamma * step) ** -power)


@checked("schedule")
def by_pass(
    optimizer: Optimizer,
    duration: Duration,
    *,
    factors: tuple[NonNegativeFloat, ...] = (1.0, 0.4, 0.2, 0.1, 0.02),
    passes: tuple[PositiveInt, ...] = (2, 3, 3, 4),
) -> dict[str, Any]:
    """Applies one factor for the first passes, another for the next ones, and so on: LeCun et al. 1998, sec. III.B.

    LeNet-5's eta was .0005 for two passes, .0002 for three, .0001 for three, .00005 for four, .00001 for the rest.

    Args:
        optimizer: Its rates are multiplied.
        duration: Of the run.
        factors: One for each stretch.
        passes: Epochs of each stretch except the last, which lasts to the end.

    Raises:
        ConfigError: A field out of its range, or the number of passes is not one less than that of factors.

    Example:
        >>> from alexnet_lab.training.schedules import Duration
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.01)
        >>> scheduler = by_pass(optimizer, Duration(steps=100, epochs=10.0))["scheduler"]
        >>> [scheduler.lr_lambdas[0](number) for number in (0, 20, 50)]
        [1.0, 0.4, 0.2]
    """
    check_passes(passes, factors)
    ends_in_epochs = list(itertools.accumulate(passes))
    warn_beyond("schedule.passes", ends_in_epochs, duration)
    ends = [round(epoch * duration.steps_per_epoch) for epoch in ends_in_epochs]
    return _each_step(optimizer, lambda step: factors[sum(step >= end for end in ends)])


def _until(frozen: int, factor: Factor) -> Factor:
    return lambda step: factor(step) if step < frozen else 0.0


def _discrete_exponential(target_factor: float, levels: int, duration: Duration) -> Factor:
    """The rule of lr.cu: a step on the boundary between two levels belongs to the first."""

    def factor(step: int) -> float:
        progress = min(step / duration.steps, 1.0)  # also called for the step after the last
        near = max(0, math.ceil(progress * levels) - 2)  # at or below the level, despite rounding of the product
        level = next(level for level in range(near, levels) if progress <= (level + 1) / levels)
        return target_factor ** (-level / max(levels - 1, 1))

    return factor


def _whole_part(quotient: float) -> int:
    """Floor, tolerant of quotients that rounding left just below a whole number."""
    return math.floor(quotient + 1e-9)


def _each_step(optimizer: Optimizer, factors: Factor | list[Factor]) -> dict[str, Any]:
    """One factor for all parameter groups, or one for each."""
    return {"scheduler": ByStep(optimizer, factors), "interval": "step"}
