"""Optimisers: each function turns a network and a few published numbers into a `torch.optim.Optimizer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, overload

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer, RMSprop

from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import NonNegativeFloat, PositiveFloat, UnitInterval
from alexnet_lab.base.targets import build, locate, target_of

__all__ = ["adam", "rmsprop", "sgd"]


class GroupOptimizer(Optimizer):
    """An optimiser whose rule treats one parameter group after the other."""

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Updates all groups; calls `closure` first and returns its result."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self.step_group(group)
        return loss

    def step_group(self, group: dict[str, Any]) -> None:
        """Updates the parameters of a group that have a gradient."""
        raise NotImplementedError


@checked("optimizer")
def sgd(
    net: nn.Module,
    *,
    learning_rate: PositiveFloat = 0.01,
    momentum: UnitInterval = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegativeFloat = 5e-4,
    decay_biases: bool = False,
) -> Optimizer:
    """Stochastic gradient descent with momentum, in torch's form.

    Args:
        net: The network whose parameters are trained.
        learning_rate: Of weights and biases alike.
        momentum: Share of the last step that is kept, in [0, 1).
        nesterov: Look ahead by the momentum before the gradient is taken.
        weight_decay: L2 term added to the gradient in each step, before the multiplication by the learning rate.
        decay_biases: Also decay biases and other vectors, as torch does; the papers decay weights only.

    Example:
        >>> optimizer = sgd(torch.nn.Linear(2, 1), weight_decay=0.0005)
        >>> [(group["momentum"], group["weight_decay"]) for group in optimizer.param_groups]
        [(0.9, 0.0005), (0.9, 0.0)]
    """
    groups = decayed_and_not(net, weight_decay, decay_biases=decay_biases)
    return SGD(groups, lr=learning_rate, momentum=momentum, nesterov=nesterov, fused=True)


@checked("optimizer")
def adam(
    net: nn.Module,
    *,
    learning_rate: PositiveFloat = 1e-3,
    beta1: UnitInterval = 0.9,
    beta2: UnitInterval = 0.999,
    epsilon: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    decay_biases: bool = False,
) -> Optimizer:
    """Adam (Kingma and Ba 2015, algorithm 1), as in the course notebooks; `weight_decay` is an L2 term in the gradient.

    Example:
        >>> adam(torch.nn.Linear(2, 1), learning_rate=0.001).param_groups[0]["lr"]
        0.001
    """
    groups = decayed_and_not(net, weight_decay, decay_biases=decay_biases)
    return Adam(groups, lr=learning_rate, betas=(beta1, beta2), eps=epsilon, fused=True)


@checked("optimizer")
def rmsprop(
    net: nn.Module,
    *,
    learning_rate: PositiveFloat = 1e-3,
    smoothing: UnitInterval = 0.9,
    momentum: UnitInterval = 0.0,
    epsilon: PositiveFloat = 1e-7,
    weight_decay: NonNegativeFloat = 0.0,
    decay_biases: bool = False,
) -> Optimizer:
    """RMSprop (Hinton 2012, lecture 6e of Neural Networks for Machine Learning), with Keras' defaults.

    Args:
        net: The network whose parameters are trained.
        learning_rate: Of weights and biases alike.
        smoothing: Share of the running mean of squared gradients that a step keeps, in [0, 1): torch's alpha, Keras'
            rho. The lecture has .9, torch .99.
        momentum: Share of the last step that is kept, in [0, 1).
        epsilon: Added to the root of that mean, as in torch; Keras adds it to the mean.
        weight_decay: L2 term added to the gradient.
        decay_biases: Also decay biases and other vectors.

    Example:
        >>> rmsprop(torch.nn.Linear(2, 1)).param_groups[0]["alpha"]
        0.9
    """
    groups = decayed_and_not(net, weight_decay, decay_biases=decay_biases)
    return RMSprop(groups, lr=learning_rate, alpha=smoothing, eps=epsilon, momentum=momentum)


def decayed_and_not(net: nn.Module, weight_decay: float, *, decay_biases: bool) -> list[dict[str, Any]]:
    """Builds parameter groups: matrices and kernels with `weight_decay`, vectors (biases, scales) without by default.

    Every trainable parameter is in exactly one group; empty groups are left out.
    """
    decayed, kept = [], []
    for path, parameter in net.named_parameters():
        is_vector = parameter.ndim <= 1 or path.rpartition(".")[2] == "bias"  # a bias per position has two dimensions
        if parameter.requires_grad:
            (kept if is_vector and not decay_biases else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(spec: Mapping[str, Any], net: nn.Module, trusted: tuple[str, ...] = ()) -> Optimizer:
    """Builds the optimiser of a config; a class such as `torch.optim.AdamW` gets all that are trained in one group."""
    target = locate(target_of(spec, "optimizer"), "optimizer", trusted)
    foreign = isinstance(target, type) and issubclass(target, Optimizer)
    trained = (parameter for parameter in net.parameters() if parameter.requires_grad)
    return build(spec, "optimizer", trained if foreign else net, trusted=trusted)
