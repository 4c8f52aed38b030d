"""Learning-rate schedules. Durations are given in epochs; `Duration` converts them to steps once.

A rate that depends on the length of the run is a function of (step, total steps), and a checkpoint keeps only the step.
A run that is resumed with more epochs therefore has, from its next step on, the rates of a run of the new length.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le
from lightning import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import ExtraMetric, NonNegativeFloat, PositiveFloat, PositiveInt, UnitInterval
from alexnet_lab.base.targets import build, locate, target_of
from alexnet_lab.training.schedule_rules import check_drops, needs_layer_groups

__all__ = ["Duration", "one_cycle", "plateau", "step"]


log = logging.getLogger(__name__)

Factor = Callable[[int], float]


def group_kinds(optimizer: Optimizer, wish: str) -> list[str]:
    """Returns what each parameter group holds: weights, scales or biases.

    Args:
        optimizer: With groups as built by `krizhevsky_sgd`.
        wish: The setting that needs them, for the message.

    Raises:
        ConfigError: The optimiser does not separate them.
    """
    if any("kind" not in group for group in optimizer.param_groups):
        raise needs_layer_groups(wish)
    return [group["kind"] for group in optimizer.param_groups]


@dataclass(frozen=True)
class Duration:
    """The length of a run in optimiser steps and epochs.

    Example:
        >>> Duration(steps=100, epochs=10.0).steps_per_epoch
        10.0
    """

    steps: int
    epochs: float

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps in one epoch."""
        return self.steps / self.epochs


def warn_beyond(key: str, epochs: Iterable[int], duration: Duration) -> None:
    """Warns about changes of the rate beyond the end of the run.

    Args:
        key: The config key.
        epochs: The epochs at whose start the rate changes, from 0.
        duration: Of the run.
    """
    late = [str(epoch) for epoch in epochs if epoch >= duration.epochs]
    if late:
        log.warning("`%s`: the run ends before epoch %s, so the rate does not change there", key, ", ".join(late))


class ByStep(LambdaLR):
    """`LambdaLR` whose checkpoint contains only the number of steps."""

    def state_dict(self) -> dict[str, Any]:
        """The number of steps taken."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Sets the rates of the step in the checkpoint."""
        self.last_epoch = state_dict["last_epoch"] - 1
        self._step_count = 2  # at 1 torch warns that the optimiser has not stepped; it did before the resume
        self.step()


def go_to(scheduler: LRScheduler, step: int) -> None:
    """Sets the rates of a step, if they are a function of it."""
    if isinstance(scheduler, ByStep | OneCycle):
        scheduler.load_state_dict({"last_epoch": step})


class OneCycle(OneCycleLR):
    """`OneCycleLR` whose checkpoint contains only the number of steps; torch's would restore its old length."""

    state_dict = ByStep.state_dict
    load_state_dict = ByStep.load_state_dict

    def get_lr(self) -> list[float | Tensor]:
        """The rates of this step; they stay after the last one, where torch's would rise again and then fail."""
        step = self.last_epoch
        self.last_epoch = min(step, self.total_steps - 1)
        try:
            return super().get_lr()
        finally:
            self.last_epoch = step


@checked("schedule")
def plateau(
    optimizer: Optimizer,
    duration: Duration,
    *,
    factor: Annotated[UnitInterval, Gt(0)] = 0.1,
    patience_epochs: PositiveInt = 10,
    min_learning_rate: NonNegativeFloat = 0.0,
    lower_biases: bool = True,
    monitor: Literal["val/loss", "val/top1_error"] | ExtraMetric = "val/top1_error",
) -> dict[str, Any]:
    """Lowers the learning rate when validation stops improving (Krizhevsky 2012, sec. 5: by ten, by hand).

    Args:
        optimizer: Whose rates are changed.
        duration: Not used.
        factor: The rate is multiplied by this, in (0, 1).
        patience_epochs: The N-th epoch in a row without a new best lowers the rate, as in Keras. An epoch without
            validation counts, but the rate falls only after a validation.
        min_learning_rate: The lower limit of the rate.
        lower_biases: Also lower the rate of biases; in the recorded runs of 2012 it stayed.
        monitor: The metric that should fall, or rise if it is one of the config's `metrics` that says so.

    Raises:
        ConfigError: `lower_biases` is false, and biases have no groups of their own.

    Example:
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.01)
        >>> scheduler = plateau(optimizer, Duration(steps=100, epochs=10.0), patience_epochs=2)["scheduler"]
        >>> for error in (0.30, 0.31, 0.32):
        ...     scheduler.step(error)
        >>> round(optimizer.param_groups[0]["lr"], 4)
        0.001
    """
    kinds = group_kinds(optimizer, "schedule.lower_biases=false") if not lower_biases else []
    kept = [kind == "biases" for kind in kinds] or [False] * len(optimizer.param_groups)
    least = [
        group["lr"] if keep else min_learning_rate for group, keep in zip(optimizer.param_groups, kept, strict=True)
    ]
    borne = patience_epochs - 1  # torch lowers the rate one epoch later than its patience says
    scheduler = ReduceLROnPlateau(optimizer, factor=factor, patience=borne, threshold=0.0, min_lr=least)
    # Not Lightning's kind of plateau: the Classifier passes it the metric before it writes the checkpoint.
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor, "reduce_on_plateau": False}


@checked("schedule")
def step(
    optimizer: Optimizer,
    duration: Duration,
    *,
    drop_epochs: list[int],
    factor: Annotated[PositiveFloat, Le(1)] = 0.1,
    lower_biases: bool = True,
) -> dict[str, Any]:
    """Multiplies the learning rate by `factor` at the start of each of `drop_epochs` (0-based, rising).

    Args:
        optimizer: Whose rates are changed.
        duration: Of the run.
        drop_epochs: How many epochs are complete when the rate drops; a warning lists those beyond the end of the run.
        factor: In (0, 1].
        lower_biases: Also lower the rate of biases; in cuda-convnet's 13pct and 11pct it stayed.

    Raises:
        ConfigError: The epochs do not rise, or `lower_biases` is false and biases have no groups of their own.

    Example:
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.01)
        >>> scheduler = step(optimizer, Duration(steps=100, epochs=10.0), drop_epochs=[5, 8])["scheduler"]
        >>> [scheduler.lr_lambdas[0](number) for number in (49, 50)]
        [1.0, 0.1]
    """
    check_drops(drop_epochs)
    warn_beyond("schedule.drop_epochs", drop_epochs, duration)
    kinds = group_kinds(optimizer, "schedule.lower_biases=false") if not lower_biases else []
    falls = staircase([round(epoch * duration.steps_per_epoch) for epoch in drop_epochs], factor)
    factors = [constant if kind == "biases" else falls for kind in kinds]
    return {"scheduler": ByStep(optimizer, factors or falls), "interval": "step"}


def staircase(drops: Sequence[int], factor: float) -> Factor:
    """1 at first, multiplied by `factor` at each of the steps `drops`."""
    return lambda step: factor ** sum(step >= drop for drop in drops)


def constant(step: int) -> float:
    """Keeps the rate."""
    return 1.0


@checked("schedule")
def one_cycle(
    optimizer: Optimizer,
    duration: Duration,
    *,
    warmup_fraction: Annotated[UnitInterval, Gt(0)] = 0.2,
    start_divisor: PositiveFloat = 25.0,
    end_divisor: PositiveFloat = 1e4,
    anneal: Literal["cos", "linear"] = "cos",
) -> dict[str, Any]:
    """Rises to the optimiser's learning rate and falls to almost nothing (Smith and Topin 2018); momentum stays.

    Args:
        optimizer: Its learning rates are the peak.
        duration: Of the run, which is one cycle.
        warmup_fraction: The share of steps in which the rate rises.
        start_divisor: The first rate is the peak divided by this.
        end_divisor: The last rate is the first divided by this.
        anneal: The shape of both slopes.

    Example:
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.01)
        >>> scheduler = one_cycle(optimizer, Duration(steps=100, epochs=10.0))["scheduler"]
        >>> round(optimizer.param_groups[0]["lr"], 6)  # 0.01 / 25
        0.0004
    """
    exactly_one = math.isclose(warmup_fraction * duration.steps, 1.0)  # step of warm-up: torch would divide by zero
    warmup = warmup_fraction * (1 + 1e-6) if exactly_one else warmup_fraction
    scheduler = OneCycle(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=duration.steps,
        pct_start=warmup,
        anneal_strategy=anneal,
        cycle_momentum=False,
        div_factor=start_divisor,
        final_div_factor=end_divisor,
    )
    return {"scheduler": scheduler, "interval": "step"}


def duration_of(trainer: Trainer) -> Duration:
    """The length of the run: `max_epochs` whole epochs, or less if `max_steps` ends it earlier.

    Raises:
        ConfigError: Neither limits it, the loader has no length, or steps differ in their number of batches.
    """
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()  # counts the batches of an epoch
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in trainer.callbacks):  # pyright: ignore[reportAttributeAccessIssue] - set out of its sight
        raise ConfigError(
            "`schedule` needs steps of one size: set accumulate_grad_batches of the Trainer in place of "
            "GradientAccumulationScheduler, or leave `schedule` out"
        )
    steps, batches = trainer.estimated_stepping_batches, trainer.num_training_batches
    if math.inf in (steps, batches):
        raise ConfigError(
            "`schedule` needs the length of the run, which is unknown: set max_epochs or max_steps of the Trainer and "
            "use a loader that has a length, or leave `schedule` out"
        )
    return Duration(int(steps), int(steps) / math.ceil(batches / trainer.accumulate_grad_batches))


def build_schedule(
    spec: Mapping[str, Any], optimizer: Optimizer, duration: Duration, trusted: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Builds the schedule of a config for Lightning.

    A schedule of torch, such as `torch.optim.lr_scheduler.StepLR` or what a function returns, counts epochs. A
    function whose schedule counts steps returns `{"scheduler": schedule, "interval": "step"}`.

    Raises:
        ConfigError: It is no schedule, or needs a metric, which only schedule=plateau receives.
    """
    target = locate(target_of(spec, "schedule"), "schedule", trusted)
    if isinstance(target, type) and issubclass(target, ReduceLROnPlateau):
        raise ConfigError(f"`schedule._target_` is {spec['_target_']}, which needs a metric; set schedule=plateau")
    if isinstance(target, type) and issubclass(target, LRScheduler):
        return {"scheduler": build(spec, "schedule", optimizer, trusted=trusted), "interval": "epoch"}
    schedule = build(spec, "schedule", optimizer, duration, trusted=trusted)
    if isinstance(schedule, LRScheduler):
        return {"scheduler": schedule, "interval": "epoch"}
    if "scheduler" not in schedule:
        raise ConfigError(
            f"`schedule._target_` is {spec['_target_']}, whose dictionary has no `scheduler`; allowed: "
            '{"scheduler": ..., "interval": "step"}, or a schedule of torch.optim.lr_scheduler'
        )
    return schedule
