"""Metrics of torchmetrics beside the error rates: each image counts once, for any number of processes."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from lightning import LightningModule
from torch import Tensor
from torchmetrics import Metric

from alexnet_lab.base.errors import ConfigError, one_line
from alexnet_lab.base.ranges import check_metric_name
from alexnet_lab.base.targets import build
from alexnet_lab.training.per_rank_state import gathered, rank_and_size

State = dict[str, Any]
"""A metric's state, by name: tensors or lists of tensors, on the CPU."""

MERGED = ("dim_zero_sum", "dim_zero_cat", "dim_zero_max", "dim_zero_min")
"""The reductions that give the same state however the images are divided."""


class ExtraMetrics:
    """The metrics that the config's `metrics` names, over all images since the last reset.

    A metric gets the probabilities (B, num_classes), the softmax of the logits in float32, and the labels (B,).

    Args:
        specs: A `_target_` and its fields for each name.
        num_classes: The number of classes.
        trusted: Additional packages that a `_target_` may name.

    Raises:
        ConfigError: As `build_metric`.
    """

    def __init__(self, specs: Mapping[str, Any], num_classes: int, trusted: tuple[str, ...] = ()) -> None:
        self._metrics = {
            name: build_metric(name, spec, num_classes, trusted) for name, spec in specs.items() if spec is not None
        }
        self._images = 0

    @property
    def higher_is_better(self) -> dict[str, bool | None]:
        """For each metric whether more is better; None: it does not say."""
        return {name: metric.higher_is_better for name, metric in self._metrics.items()}

    def reset(self) -> None:
        """Forgets all images."""
        self._images = 0
        for metric in self._metrics.values():
            metric.reset()

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds one batch: logits (B, num_classes), any float type, and labels (B,); B may be 0."""
        if not self._metrics or len(labels) == 0:
            return
        probabilities = logits.detach().float().softmax(1)
        self._images += len(labels)
        for metric in self._metrics.values():
            metric.to(labels.device).update(probabilities, labels)

    def compute(self) -> dict[str, Tensor]:
        """A scalar for each name; NaN without images. All processes of a run must call this together."""
        if not self._metrics:
            return {}
        whole = self._merged(gathered(self.state()))
        if not whole["images"]:
            return {name: torch.tensor(math.nan) for name in self._metrics}
        return {name: _value(metric, whole[name]) for name, metric in self._metrics.items()}

    def state(self) -> State:
        """This process's state: the number of images, and each metric's state."""
        return {"images": self._images, **{name: _state(metric) for name, metric in self._metrics.items()}}

    def restore(self, states: Sequence[State]) -> None:
        """Restores the states of all processes; with another number of them, the first gets everything.

        Raises:
            ConfigError: A metric is new within an epoch, some of whose images it has not seen.
        """
        rank, size = rank_and_size()
        self.reset()
        if not any(state["images"] for state in states):
            return
        if new := [name for name in self._metrics if name not in states[0]]:
            raise ConfigError(
                f"`metrics.{new[0]}` is not in this checkpoint, which was written within an epoch; add it at the end "
                "of an epoch"
            )
        if len(states) == size:
            own = states[rank]
        elif rank == 0:
            own = self._merged(states)
        else:
            return
        self._images = own["images"]
        for name, metric in self._metrics.items():
            _set_state(metric, own[name])

    def _merged(self, states: Sequence[State]) -> State:
        """The state of all processes together."""
        merged = {name: _merge(metric, [state[name] for state in states]) for name, metric in self._metrics.items()}
        return {"images": sum(state["images"] for state in states), **merged}


def build_metric(name: str, spec: Mapping[str, Any], num_classes: int, trusted: tuple[str, ...] = ()) -> Metric:
    """Builds one metric and tries it.

    Raises:
        ConfigError: Another number has its name; it refuses its fields, or classes as we count them, or gives more than
            one number; or its state depends on how the images are divided among processes.
    """
    check_metric_name(name)
    key = f"metrics.{name}"
    with torch.device("cpu"):  # where a rehearsal builds its network without numbers, metrics still need theirs
        return _tried(key, cast("Metric", build(spec, key, trusted=trusted)), spec["_target_"], num_classes)


def _tried(key: str, metric: Metric, target: str, num_classes: int) -> Metric:
    """The metric, after it has measured a few images."""
    reductions = [getattr(function, "__name__", str(function)) for function in metric._reductions.values()]
    if not reductions or any(reduction not in MERGED for reduction in reductions):
        raise ConfigError(f"`{key}`: the state of {target} cannot be added up over processes; choose another metric")
    metric.sync_on_compute = metric._to_sync = False  # `compute` above does that, also for processes without an image
    labels = torch.arange(2 * num_classes) % num_classes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            metric.update(torch.eye(num_classes)[labels.flip(0)], labels)
            value = metric.compute()
    except Exception as error:  # of any kind: the class is another package's
        text = one_line(f"{type(error).__name__}: {error}")[:300]
        raise ConfigError(
            f"`{key}`: {target} fails on probabilities (B, {num_classes}) and labels (B,): {text}"
        ) from error
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ConfigError(f"`{key}`: {target} gives {shape}, but a metric is one number; set +{key}.average=macro")
    metric.reset()
    return metric


def sign(module: LightningModule, monitor: str | None) -> int:
    """1 if a lower value of a metric is better, -1 if a higher one is."""
    directions = getattr(module, "higher_is_better", {})
    return -1 if directions.get(str(monitor).partition("/")[2]) else 1


def _state(metric: Metric) -> State:
    """A copy on the CPU."""
    found = metric.metric_state
    return {
        name: [part.detach().cpu() for part in value] if isinstance(value, list) else value.detach().cpu().clone()
        for name, value in found.items()
    }


def _set_state(metric: Metric, state: State) -> None:
    """Puts a state in place of a metric's own, on its device."""
    for name, value in state.items():
        parts = [part.to(metric.device) for part in value] if isinstance(value, list) else value.to(metric.device)
        setattr(metric, name, parts)
    metric._update_count, metric._computed = 1, None


def _merge(metric: Metric, states: Sequence[State]) -> State:
    merged: State = {}
    for name, reduce in metric._reductions.items():
        values = [state[name] for state in states]
        if isinstance(values[0], list):
            merged[name] = [part for value in values for part in value]
        else:
            merged[name] = cast("Any", reduce)(torch.stack(values))
    return merged


def _value(metric: Metric, state: State) -> Tensor:
    """What a metric computes of a state; its own stays."""
    whole = copy.deepcopy(metric)
    _set_state(whole, state)
    return whole.compute().detach().reshape(()).float()
