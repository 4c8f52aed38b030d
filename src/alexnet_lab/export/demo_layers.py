"""The layers of a LeNet-5 as entries for the page's script, which has a function for each `kind`."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from alexnet_lab.export.plain_layers import with_plain_layers
from alexnet_lab.models import LeNet5, LeNet51998
from alexnet_lab.models.layers import EuclideanRBF, MinPool2d, ScaledTanh
from alexnet_lab.models.lenet5_1998 import BACKGROUND, INK

Entry = dict[str, Any]


class Numbers:
    """All weights in one array; an entry names the place of its own."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.count = 0

    def add(self, tensor: Tensor) -> int:
        """Appends a tensor; returns the place of its first number."""
        values = tensor.detach().cpu().float().numpy().ravel()
        self.parts.append(values)
        self.count += len(values)
        return self.count - len(values)

    def encoded(self) -> str:
        """All numbers as float32, little-endian, in base64."""
        return base64.b64encode(np.concatenate(self.parts).astype("<f4").tobytes()).decode()


def network_layers(net: LeNet5 | LeNet51998, numbers: Numbers) -> list[Entry]:
    """The entries from the network's input to its logits.

    An entry with a `title` is the last of its stage: the page shows its outputs under that title.
    """
    entries = _published_input(net) if isinstance(net, LeNet51998) else []
    stage: Entry | None = None
    for name, layer in _children(net):
        if isinstance(layer, nn.Flatten | nn.Dropout):
            continue  # the script reads maps in the same order; no unit is dropped in evaluation
        entry = ENTRIES[type(layer)](layer, numbers)
        if stage is not None and name.startswith("act"):
            entry["title"], entry["what"] = stage.pop("title"), f"{stage.pop('what')}, {_activation_name(layer)}"
        else:
            entry["title"] = name.upper() if name != "output" else "Output"
        entries.append(entry)
        stage = entry
    if getattr(net, "legacy_softmax", False):
        entries.append({"kind": "softmax"})
    return entries


def _published_input(net: LeNet51998) -> list[Entry]:
    """Grey levels and frame of 1998."""
    scaled = {"kind": "affine", "factor": INK - BACKGROUND, "shift": BACKGROUND}
    frame = {"kind": "frame", "pixels": net.padding, "value": BACKGROUND}
    return [*([scaled] if net.scale_input else []), frame]


def _children(net: nn.Module) -> list[tuple[str, nn.Module]]:
    plain = with_plain_layers(net)
    return [*plain.get_submodule("features").named_children(), *plain.get_submodule("classifier").named_children()]


def _conv(layer: nn.Conv2d, numbers: Numbers) -> Entry:
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    what = (
        f"convolution {kernel}x{kernel}" if layer.groups == 1 else f"sums of {kernel}x{kernel} pixels, trained factor"
    )
    return {
        "kind": "conv", "maps": layer.out_channels, "groups": layer.groups, "kernel": kernel, "stride": stride,
        "padding": int(layer.padding[0]), **_weights(layer, numbers), "what": what,
    }  # fmt: skip


def _dense(layer: nn.Linear, numbers: Numbers) -> Entry:
    return {"kind": "dense", "maps": layer.out_features, **_weights(layer, numbers), "what": "dense"}


def _weights(layer: nn.Conv2d | nn.Linear, numbers: Numbers) -> Entry:
    assert layer.bias is not None  # noqa: S101 - every layer of LeNet-5 has one
    return {"weight": numbers.add(layer.weight), "bias": numbers.add(layer.bias)}


def _pool(how: str, word: str) -> Callable[[Any, Numbers], Entry]:
    def entry(layer: Any, _: Numbers) -> Entry:
        size = layer.kernel_size
        return {"kind": "pool", "how": how, "size": size, "what": f"{word} of {size}x{size}"}

    return entry


def _rbf(layer: EuclideanRBF, numbers: Numbers) -> Entry:
    """Minus the distances: the logits."""
    count = len(layer.prototypes)
    return {"kind": "rbf", "maps": count, "weight": numbers.add(layer.prototypes), "what": "minus squared distances"}


def _scaled_tanh(layer: ScaledTanh, _: Numbers) -> Entry:
    return {"kind": "tanh", "amplitude": layer.amplitude, "slope": layer.slope}


def _activation_name(layer: nn.Module) -> str:
    return {nn.ReLU: "ReLU", nn.Sigmoid: "sigmoid"}.get(type(layer), "tanh")


ENTRIES: dict[type[nn.Module], Callable[[Any, Numbers], Entry]] = {
    nn.Conv2d: _conv,
    nn.Linear: _dense,
    nn.MaxPool2d: _pool("max", "maximum"),
    nn.AvgPool2d: _pool("average", "average"),
    MinPool2d: _pool("min", "minimum"),
    nn.ReLU: lambda _layer, _numbers: {"kind": "relu"},
    nn.Tanh: lambda _layer, _numbers: {"kind": "tanh", "amplitude": 1.0, "slope": 1.0},
    nn.Sigmoid: lambda _layer, _numbers: {"kind": "sigmoid"},
    ScaledTanh: _scaled_tanh,
    EuclideanRBF: _rbf,
}
"""The entry of each kind of layer."""
