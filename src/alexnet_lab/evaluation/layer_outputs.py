"""Each layer's output for one image, and the curves of activation functions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from alexnet_lab.data.loader import RawBatch
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.models.hooks import watched
from alexnet_lab.models.layers import ACTIVATIONS, ClassicDropout

NOTHING_TO_SEE = (nn.Flatten, nn.Identity, nn.Dropout, ClassicDropout, nn.ZeroPad2d)
"""Layers that change no map in evaluation."""


class LayerMaps(NamedTuple):
    """One layer's output for one image."""

    name: str
    kind: str
    output: NDArray[np.float32]  # (C, H, W), or (D,) of a dense layer


def layer_maps(run: FinishedRun, image: NDArray[np.uint8]) -> list[LayerMaps]:
    """The outputs of a network's layers, in order, for one stored image (C, S, S)."""
    net = run.net
    raw = RawBatch(torch.from_numpy(image[None].copy()), torch.zeros(1).long(), torch.zeros(1).long(), 1, None)
    weights = next(net.parameters())
    inputs = run.data.transform(raw).images.to(weights)
    found: list[LayerMaps] = []

    def record(name: str, layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        if not isinstance(layer, NOTHING_TO_SEE):
            values = output[0].float().cpu().numpy()
            values = values.ravel() if values.ndim == 3 and values.shape[-1] == 1 else values
            found.append(LayerMaps(name.rpartition(".")[2], type(layer).__name__, values.copy()))

    with watched(net, record), torch.no_grad():
        net(inputs)
    return found


def activation_curves() -> tuple[NDArray, dict[str, tuple[NDArray, NDArray]]]:
    """The places x (n,), then the values and slopes of each available activation, by name."""
    curves = {}
    for name, make in ACTIVATIONS.items():
        x = torch.linspace(-4, 4, 401, requires_grad=True)
        with torch.enable_grad():
            values = make()(x)
            (slopes,) = torch.autograd.grad(values.sum(), x)
        curves[name] = (values.detach().numpy(), slopes.numpy())
    return np.linspace(-4, 4, 401), curves
