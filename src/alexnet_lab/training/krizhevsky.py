"""The update rule that Krizhevsky et al. 2012 print (sec. 5), as their released code runs it.

    v <- 0.9 v - 0.0005 eps w - eps <dL/dw>
    w <- w + v

torch's SGD keeps the momentum without the rate: buf <- 0.9 buf + g, w <- w - eps buf. Both rules are the same while eps
is constant. When eps drops, the printed v still contains the old eps and keeps moving at that pace. In terms of torch's
buffer, v = -eps buf, the printed rule is torch's with the momentum multiplied by (eps of the last step / eps of this
step). It therefore costs nothing extra and uses torch's fused kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd as fused_step

from alexnet_lab.base.errors import ConfigError, did_you_mean
from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import NonNegativeFloat, PositiveFloat, UnitInterval
from alexnet_lab.training.optimizers import GroupOptimizer

__all__ = ["KrizhevskySGD", "krizhevsky_sgd"]


class KrizhevskySGD(GroupOptimizer):
    """SGD whose momentum contains the learning rate of the step that produced it.

    Besides torch's usual keys each group has `last_lr`, the rate of its last step, as part of the state in a
    checkpoint. A group with rate 0 is skipped: its weights neither move nor decay, and its momentum is kept until the
    rate rises again, as in cuda-convnet.

    Args:
        groups: Parameter groups, each with `lr`, `momentum` and `weight_decay`; other keys are kept.

    Raises:
        ConfigError: A group lacks one of them.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = KrizhevskySGD([{"params": [weight], "lr": 0.1, "momentum": 0.9, "weight_decay": 0.5}])
        >>> weight.sum().backward()
        >>> optimizer.step()  # v = -0.5 * 0.1 * w - 0.1 * g
        >>> round(weight.item(), 4)
        0.85
    """

    skips_on_device = True
    """A step leaves the weights as they are if the attribute `found_inf`, a tensor () on their device, is 1."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {"last_lr": None})
        for key in ("lr", "momentum", "weight_decay"):
            if not all(key in group for group in self.param_groups):
                raise ConfigError(f"KrizhevskySGD needs `{key}` in each group; krizhevsky_sgd(net) builds the groups")

    def step_group(self, group: dict[str, Any]) -> None:
        """Updates the weights, unless the rate is 0."""
        if group["lr"] <= 0:
            return
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        ratio = 1.0 if group["last_lr"] is None else group["last_lr"] / group["lr"]
        if ratio != 1.0:
            for parameter in group["params"]:
                if parameter.grad is None:  # it keeps v, which the next step reads in terms of this rate
                    self._buffer(parameter).mul_(ratio)
        fused_step(
            parameters,
            [parameter.grad for parameter in parameters],
            [self._buffer(parameter) for parameter in parameters],
            lr=group["lr"],
            momentum=group["momentum"] * ratio,
            weight_decay=group["weight_decay"],
            dampening=0.0,
            nesterov=False,
            maximize=False,
            fused=True,
            found_inf=getattr(self, "found_inf", None),
        )
        group["last_lr"] = group["lr"]

    def _buffer(self, parameter: Tensor) -> Tensor:
        """-v / eps of one parameter, 0 before its first step."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state["momentum_buffer"]


@checked("optimizer")
def krizhevsky_sgd(
    net: nn.Module,
    *,
    learning_rate: PositiveFloat = 0.01,
    bias_factor: NonNegativeFloat = 2.0,
    momentum: UnitInterval = 0.9,
    weight_decay: NonNegativeFloat = 5e-4,
    layers: dict[str, dict[Literal["learning_rate", "bias_learning_rate", "weight_decay"], NonNegativeFloat]]
    | None = None,
) -> KrizhevskySGD:
    """The optimiser of AlexNet and of cuda-convnet's networks: Krizhevsky et al. 2012, sec. 5, and layers-145.cfg.

    The weights and the biases of each layer are separate groups with the keys `layer` (the module's path, such as
    `features.conv1`), `kind` and `name`, which schedules use. Parameters named `bias` have the kind `biases`.
    One-dimensional weights are `scales` (of a normalisation): they have the rate of `weights` and no decay.

    Args:
        net: The network to train.
        learning_rate: Of weights: epsW.
        bias_factor: The rate of biases (epsB) is this multiple of the rate of weights. The paper's prose has 1, its
            code 2.
        momentum: Share of the last step that is kept, in [0, 1).
        weight_decay: Of weights: wc. It is multiplied by the learning rate. Biases have none.
        layers: Settings of single layers, by a layer's name, path or a pattern, such as
            `{"conv1": {"learning_rate": 0.001}, "fc*": {"weight_decay": 0.01}}`. The last matching pattern applies.
            A `learning_rate` of 0 freezes a layer. Its biases have `bias_factor` times its `learning_rate`, unless
            `bias_learning_rate` is given.

    Raises:
        ConfigError: A field out of its range, or a name in `layers` that matches no layer.

    Example:
        >>> from alexnet_lab.models import LeNet5
        >>> optimizer = krizhevsky_sgd(LeNet5(), learning_rate=0.01)
        >>> [(group["name"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups][:2]
        [('features.c1.weights', 0.01, 0.0005), ('features.c1.biases', 0.02, 0.0)]
    """
    named = dict.fromkeys(path.rpartition(".")[0] for path, _ in net.named_parameters())  # frozen layers too
    own = layer_settings(layers or {}, list(named))
    groups: list[dict[str, Any]] = []
    for layer, kinds in layer_parameters(net).items():
        rate, decay = own[layer].get("learning_rate", learning_rate), own[layer].get("weight_decay", weight_decay)
        bias_rate = own[layer].get("bias_learning_rate", rate * bias_factor)
        for kind, params in kinds.items():
            groups.append({
                "name": f"{layer}.{kind}", "layer": layer, "kind": kind, "params": params,
                "lr": bias_rate if kind == "biases" else rate, "weight_decay": decay if kind == "weights" else 0.0,
                "momentum": momentum,
            })  # fmt: skip
    return KrizhevskySGD(groups)


def layer_parameters(net: nn.Module) -> dict[str, dict[str, list[Tensor]]]:
    """Groups the trainable parameters by the module that owns them, in the net's order, and by their kind."""
    layers: dict[str, dict[str, list[Tensor]]] = {}
    for path, parameter in net.named_parameters():
        layer, _, name = path.rpartition(".")
        kind = "biases" if name == "bias" else "weights" if parameter.ndim > 1 else "scales"
        if parameter.requires_grad:
            layers.setdefault(layer, {}).setdefault(kind, []).append(parameter)
    return {layer: {kind: kinds[kind] for kind in KINDS if kind in kinds} for layer, kinds in layers.items()}


KINDS = ("weights", "scales", "biases")
"""The kinds of a layer's parameters, in the order of their groups."""


def layer_settings(layers: Mapping[str, Mapping[Any, float]], names: list[str]) -> dict[str, dict[str, float]]:
    """Resolves the patterns of `layers` to the settings of each layer.

    Args:
        layers: Settings by pattern. A pattern with a dot must match a layer's path, any other the path's last part.
        names: The paths of all layers.

    Raises:
        ConfigError: A pattern matches no layer.
    """
    own: dict[str, dict[str, float]] = {name: {} for name in names}
    for pattern, settings in layers.items():
        fitting = [name for name in names if _fits(pattern, name)]
        if not fitting:
            short = [name.rpartition(".")[2] for name in names]
            raise ConfigError(
                f"`optimizer.layers` names `{pattern}`, which matches no layer; {did_you_mean(pattern, short)}"
            )
        for name in fitting:
            own[name] |= settings
    return own


def _fits(pattern: str, layer: str) -> bool:
    return fnmatchcase(layer if "." in pattern else layer.rpartition(".")[2], pattern)
