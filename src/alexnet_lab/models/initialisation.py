"""How the weights of AlexNet and of LeNet-5 start, preset by preset."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

ALEXNET_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


class Start(NamedTuple):
    """Zero-mean Gaussian weights with these deviations, constant biases; one number per layer, conv1 to fc8."""

    std: tuple[float, ...]
    bias: tuple[float, ...]


PRESETS: dict[str, Start] = {
    # Krizhevsky 2012, section 5
    "paper": Start(std=(0.01,) * 8, bias=(0, 1, 0, 1, 1, 1, 1, 0)),
    # the released code, layers-145.cfg
    "code2012": Start(std=(0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01), bias=(0, 1, 0, 1, 1, 1, 1, 0)),
    # cuda-convnet2's layers-imagenet-1gpu.cfg: at -7 each class starts near its share of 1/1000
    "code2014": Start(std=(0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01), bias=(0, 1, 0, 1, 1, 1, 1, -7)),
    # Caffe's bvlc_alexnet: its authors found that a bias of 1 "gave flat loss"
    "caffe": Start(std=(0.01,) * 5 + (0.005, 0.005, 0.01), bias=(0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0)),
    # Caffe's bvlc_reference_caffenet
    "caffenet": Start(std=(0.01,) * 5 + (0.005, 0.005, 0.01), bias=(0, 1, 0, 1, 1, 1, 1, 0)),
}


def initialise(layers: dict[str, nn.Module], preset: str, bias: float | None = None) -> None:
    """Sets weights and biases of convolutions and dense layers in place, drawing from torch's global generator.

    Args:
        layers: Of a network, by name; others than convolutions and dense layers are left alone.
        preset: A key of `PRESETS`, for layers with AlexNet's names; or `he` (Gaussian, std sqrt(2 / fan-in), biases 0:
            He et al. 2015, eq. 10), `glorot` (uniform within sqrt(6 / (fan-in + fan-out)), biases 0: Keras' default),
            `torch` (what torch's layers do themselves: nothing is changed).
        bias: Replaces the preset's non-zero biases, as the paper's "constant 1"; None keeps them.
    """
    for name, layer in layers.items():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        _set_weight(layer, preset, name)
        if layer.bias is not None and preset != "torch":
            start = PRESETS[preset].bias[ALEXNET_LAYERS.index(name)] if preset in PRESETS else 0.0
            nn.init.constant_(layer.bias, start)
        if bias is not None and layer.bias is not None and _lifted(name):
            nn.init.constant_(layer.bias, bias)


def _set_weight(layer: nn.Conv2d | nn.Linear, preset: str, name: str) -> None:
    """The weights of one layer."""
    if preset == "he":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    elif preset == "glorot":
        nn.init.xavier_uniform_(layer.weight)
    elif preset != "torch":
        nn.init.normal_(layer.weight, 0.0, PRESETS[preset].std[ALEXNET_LAYERS.index(name)])


def _lifted(name: str) -> bool:
    """Whether the paper starts this layer's biases above 0."""
    return PRESETS["paper"].bias[ALEXNET_LAYERS.index(name)] > 0
