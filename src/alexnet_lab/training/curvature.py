"""Second derivatives by back-propagation: LeCun et al. 1998, appendix C.

With a_i the weighted sum of unit i, x_i = f(a_i) and u_ij the weight of the connection from x_j to a_i:

    d2E/du_ij2 = d2E/da_i2 x_j^2                    and a shared weight has the sum over its connections
    d2E/da_i2  = f'(a_i)^2 sum_k u_ki^2 d2E/da_k2   without the term of f'' (Gauss-Newton): never negative

Terms off the diagonal are dropped, so one backward pass suffices, with weights, inputs and slopes squared. The rules
below state for each kind of layer what is squared. The pass starts from the exact diagonal of the loss's second
derivatives with respect to the last layer's outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn
from torch.func import functional_call, vjp

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models.hooks import evaluating, watched
from alexnet_lab.models.layers import ClassicDropout, LocallyConnected2d, PartialConv2d, ScaledTanh, Subsampling

Curvature = dict[str, "Tensor"]
"""Per parameter name: the sum over images of d2E/dw2, in the parameter's shape."""

WEIGHTED = (nn.Linear, nn.Conv2d, PartialConv2d, Subsampling, LocallyConnected2d)
"""Layers that compute weighted sums with biases."""

POINTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, ScaledTanh, ClassicDropout, nn.Dropout, nn.Identity)
"""Element-wise functions; dropout is off."""

MOVING = (nn.Flatten, nn.MaxPool2d, nn.ZeroPad2d)
"""Layers that move elements without changing them."""

KNOWN = (*WEIGHTED, *POINTWISE, *MOVING, nn.AvgPool2d)
"""The layers with a rule."""


class Call(NamedTuple):
    """One forward call of a layer, and how often x and y had been changed in place when it ended."""

    name: str
    layer: nn.Module
    x: Tensor
    y: Tensor
    changes_x: int
    changes_y: int


def summed_curvature(
    net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor
) -> Curvature:
    """Computes the Gauss-Newton diagonal of the losses' second derivatives, summed over the images.

    Args:
        net: A chain of layers, each used once. It is not changed.
        loss: Computes the loss of each image, (B,), from the net's output and the labels.
        images: (B, C, H, W).
        labels: (B,).

    Raises:
        ConfigError: A layer has no known rule for second derivatives, or the net is no chain.
    """
    with evaluating(net):
        calls, outputs = _watch(net, images)
        known = max((index for index, call in enumerate(calls) if isinstance(call.layer, KNOWN)), default=-1)
        chain = calls[: known + 1]  # what follows has no weights and belongs to the loss
        _check(net, chain, calls[known + 1 :])
        curvature = _loss_curvature(loss(outputs, labels), chain[-1].y)
        return _back(chain, curvature)


def _watch(net: nn.Module, images: Tensor) -> tuple[list[Call], Tensor]:
    """Records the calls of all layers in order, and the output of the net."""
    calls: list[Call] = []

    def record(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        (x, *_) = inputs
        calls.append(Call(name, layer, x.detach(), output, x._version, output._version))

    with watched(net, record), torch.enable_grad():
        return calls, net.forward(images)  # not net(...): that may be compiled, and hooks do not run there


def _check(net: nn.Module, chain: list[Call], rest: list[Call]) -> None:
    unknown = [call for call in chain if not isinstance(call.layer, KNOWN)]
    unknown += [call for call in rest if list(call.layer.parameters())]
    if unknown:
        known = ", ".join(layer.__name__ for layer in KNOWN)
        raise ConfigError(
            f"optimizer=diagonal_lm knows no second derivatives of {type(unknown[0].layer).__name__} "
            f"(`{unknown[0].name}`); supported: {known}"
        )
    seen = [f"{call.name}.{name}" for call in chain for name, _ in call.layer.named_parameters()]
    once = sorted(seen) == sorted(name for name, _ in net.named_parameters())
    if not once or not all(_is_passed_on(before, after) for before, after in pairwise(chain)):
        raise ConfigError(
            "optimizer=diagonal_lm needs a net whose layers are used once each, one after the other, with modules for "
            "everything between them (nn.Tanh, not torch.tanh)"
        )
    if chain[-1].y.ndim != 2:
        raise ConfigError(
            f"optimizer=diagonal_lm needs outputs (B, K) of the last layer, but `{chain[-1].name}` gives "
            f"{tuple(chain[-1].y.shape)}; end with nn.Flatten and nn.Linear"
        )


def _is_passed_on(before: Call, after: Call) -> bool:
    """Whether a layer's input holds the numbers of the output before it, in their order."""
    x, y = after.x, before.y
    if x.numel() != y.numel():
        return False
    if x.data_ptr() == y.data_ptr() and (x.stride() == y.stride() or (x.is_contiguous() and y.is_contiguous())):
        return after.changes_x - int(getattr(after.layer, "inplace", False)) == before.changes_y
    # A copy, as nn.Flatten makes of channels-last images.
    return torch.allclose(y.flatten(), x.flatten(), rtol=0, atol=0, equal_nan=True)


def _loss_curvature(losses: Tensor, outputs: Tensor) -> Tensor:
    """d2E/dz2 (B, K) of the losses (B,) with respect to outputs z (B, K); negative values become 0."""
    (slope,) = torch.autograd.grad(losses.sum(), outputs, create_graph=True)
    if not slope.requires_grad:  # the loss is linear in z
        return torch.zeros_like(outputs)
    columns = [
        torch.autograd.grad(slope[:, index].sum(), outputs, retain_graph=True)[0][:, index]
        for index in range(outputs.shape[1])
    ]
    return torch.stack(columns, dim=1).clamp(min=0.0)


@torch.no_grad()
def _back(chain: list[Call], curvature: Tensor) -> Curvature:
    """Propagates the curvature of the last layer's outputs back to every parameter."""
    found: Curvature = {}
    for call in reversed(chain):
        curvature = curvature.reshape(call.y.shape)
        if isinstance(call.layer, WEIGHTED):
            found |= {f"{call.name}.{name}": value for name, value in _of_parameters(call, curvature).items()}
        curvature = _of_inputs(call, curvature)
    return found


def _of_parameters(call: Call, curvature: Tensor) -> Curvature:
    """d2E/dw2 = sum over connections of d2E/da2 x^2: the ordinary gradient for squared inputs."""
    parameters = {name: value.detach() for name, value in call.layer.named_parameters()}
    return _pullback(lambda values: functional_call(call.layer, values, (call.x.square(),)), parameters)(curvature)


def _of_inputs(call: Call, curvature: Tensor) -> Tensor:
    """d2E/dx2 from d2E/dy2: the ordinary backward pass, with the factors of x squared."""
    layer, x = call.layer, call.x
    if isinstance(layer, WEIGHTED):
        squares = {name: value.detach().square() for name, value in layer.named_parameters()}
        return _pullback(lambda x: functional_call(layer, squares, (x,)), x)(curvature)
    back = _pullback(lambda x: layer(x.clone()), x)  # nn.ReLU(inplace=True) changes its input
    if isinstance(layer, POINTWISE):
        return back(torch.ones_like(curvature)).square() * curvature
    if isinstance(layer, nn.AvgPool2d):  # y = sum of x / divisor, and the mean of ones is their number / divisor
        ones = torch.ones_like(x)
        number = F.avg_pool2d(ones, layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode, divisor_override=1)
        return back(curvature / (number / layer(ones)))
    return back(curvature)


def _pullback(function: Callable[[Any], Tensor], at: Any) -> Callable[[Tensor], Any]:
    """The vector-Jacobian product of `function` at one point."""
    back = vjp(function, at)[1]
    return lambda cotangent: back(cotangent)[0]
