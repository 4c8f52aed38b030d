"""cuda-convnet's networks for CIFAR-10 (Krizhevsky 2011-2012): 80sec, 18pct, 19pct, conv-local-13pct and -11pct.

Source: the layer files in example-layers/ of cuda-convnet 1, to which AlexNet's paper refers (footnote of sec. 3.3).
Pools round sizes up; pixels are 0..255 minus the mean image.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import PositiveInt, UnitInterval
from alexnet_lab.models.geometry import CudaConvNetSizes, cuda_convnet_sizes
from alexnet_lab.models.input_shape import check_images
from alexnet_lab.models.layers import ACTIVATIONS, LocallyConnected2d, LocalResponseNorm, SpatialResponseNorm


class CudaConvNet(nn.Module):
    """Two 5x5 convolutions with pools, then a third one (`conv`) or two locally connected layers (`local`).

    18pct is body=conv with norm=spatial; 19pct the same with norm=none; 80sec is 19pct with hidden=64. 13pct is
    body=local with local3=32 and norm=none; 11pct the same with local3=64 and norm=across.

    Args:
        num_classes: Outputs.
        in_channels: 1 grey, 3 colour.
        image_size: The images' side in pixels: 32, or crops of 24.
        body: What follows conv2, and how wide conv1 and conv2 are: 32 maps for `conv`, 64 for `local`.
        local3: Maps of the first locally connected layer; None where there is none. The published pair of 13pct
            and 11pct differs in this and in `norm` at once.
        norm: `across` is LRN over 9 maps with alpha .001 / 9 and k 1; `spatial` normalises over 3x3 pixels within
            a map with alpha 5e-5 / 9. Both come after pool1, and after pool2 (`conv`) or before it (`local`).
        pool: 3x3 or 2x2, both with stride 2.
        activation: relu, or tanh for the paper's figure 1.
        hidden: Units of a dense layer before fc10, 80sec's fc64; None where there is none. With it, fc10 starts with
            fc64's deviation, .1.
        dropout: Fraction of fc10's inputs that each training step drops; the layer files have none.
        init: `published` is Gaussian with the layer files' deviations; `he` is He et al. 2015; `torch` torch's own.

    Attributes:
        sizes: The output side of each layer, by its name.

    Raises:
        ConfigError: The images are too small, local3 does not go with the body, or a value is not allowed.

    Example:
        >>> net = CudaConvNet(norm="none")
        >>> net(torch.zeros(1, 3, 32, 32)).shape, sum(weight.numel() for weight in net.parameters())
        (torch.Size([1, 10]), 89578)
    """

    @checked()
    def __init__(
        self,
        *,
        num_classes: PositiveInt = 10,
        in_channels: PositiveInt = 3,
        image_size: PositiveInt = 32,
        body: Literal["conv", "local"] = "conv",
        local3: PositiveInt | None = None,
        norm: Literal["none", "spatial", "across"] = "spatial",
        pool: Literal["overlapping", "non_overlapping"] = "overlapping",
        activation: Literal["relu", "tanh", "sigmoid", "scaled_tanh"] = "relu",
        hidden: PositiveInt | None = None,
        dropout: UnitInterval = 0.0,
        init: Literal["published", "he", "torch"] = "published",
    ) -> None:
        super().__init__()
        plan = cuda_convnet_sizes(image_size=image_size, body=body, local3=local3, pool=pool)
        self.input_shape = (in_channels, image_size, image_size)
        self.sizes = plan.sizes
        build = _conv_body if body == "conv" else _local_body
        self.features = build(plan, in_channels, NORMS[norm], ACTIVATIONS[activation])
        last = 64 if body == "conv" else 32
        units = last * list(plan.sizes.values())[-1] ** 2
        dense = {"fc64": nn.Linear(units, hidden), "act64": ACTIVATIONS[activation]()} if hidden else {}
        drop = {"drop": nn.Dropout(dropout)} if dropout else {}
        fc10 = nn.Linear(hidden or units, num_classes)
        self.classifier = nn.Sequential(OrderedDict(flatten=nn.Flatten(), **dense, **drop, fc10=fc10))
        _start({**dict(self.features.named_children()), **dict(self.classifier.named_children())}, init)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """From (B, in_channels, image_size, image_size) to logits (B, num_classes)."""
        check_images(images, self.input_shape)
        return self.classifier(self.features(images))


NORMS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "spatial": lambda: SpatialResponseNorm(3, 5e-5 / 9, 0.75, 1.0),  # rnorm: scale 5e-5
    "across": lambda: LocalResponseNorm(9, 1e-3 / 9, 0.75, 1.0),  # cmrnorm: scale .001
}


def _conv_body(
    plan: CudaConvNetSizes, channels: int, norm: Callable[[], nn.Module], act: Callable[[], nn.Module]
) -> nn.Sequential:
    """18pct, 19pct and 80sec; shapes for 32 px and 3x3 pools. After max-pooling, ReLU treats fewer pixels."""
    return nn.Sequential(OrderedDict(
        conv1=nn.Conv2d(channels, 32, 5, padding=2),  # (B, 32, 32, 32)
        pool1=nn.MaxPool2d(plan.window, 2, ceil_mode=True),  # (B, 32, 16, 16)
        act1=act(),
        norm1=norm(),
        conv2=nn.Conv2d(32, 32, 5, padding=2),  # (B, 32, 16, 16)
        act2=act(),
        pool2=nn.AvgPool2d(plan.window, 2, ceil_mode=True),  # (B, 32, 8, 8)
        norm2=norm(),
        conv3=nn.Conv2d(32, 64, 5, padding=2),  # (B, 64, 8, 8)
        act3=act(),
        pool3=nn.AvgPool2d(plan.window, 2, ceil_mode=True),  # (B, 64, 4, 4)
    ))  # fmt: skip


def _local_body(
    plan: CudaConvNetSizes, channels: int, norm: Callable[[], nn.Module], act: Callable[[], nn.Module]
) -> nn.Sequential:
    """13pct and 11pct; shapes for crops of 24 px and 3x3 pools."""
    side = plan.sizes["pool2"]
    return nn.Sequential(OrderedDict(
        conv1=nn.Conv2d(channels, 64, 5, padding=2),  # (B, 64, 24, 24)
        act1=act(),
        pool1=nn.MaxPool2d(plan.window, 2, ceil_mode=True),  # (B, 64, 12, 12)
        norm1=norm(),
        conv2=nn.Conv2d(64, 64, 5, padding=2),  # (B, 64, 12, 12)
        act2=act(),
        norm2=norm(),
        pool2=nn.MaxPool2d(plan.window, 2, ceil_mode=True),  # (B, 64, 6, 6)
        local3=LocallyConnected2d(64, plan.local3, size=side, kernel=3, padding=1),  # (B, 64, 6, 6), or 32 maps
        act3=act(),
        local4=LocallyConnected2d(plan.local3, 32, size=side, kernel=3, padding=1),  # (B, 32, 6, 6)
        act4=act(),
    ))  # fmt: skip


STARTS = {  # deviations of Gaussian weights; biases start at 0
    "conv1": 1e-4, "conv2": 1e-2, "conv3": 1e-2, "local3": 4e-2, "local4": 4e-2, "fc64": 1e-1, "fc10": 1e-2,
}  # fmt: skip


def _start(layers: dict[str, nn.Module], preset: str) -> None:
    """Initialises weights and biases in place."""
    deviations = STARTS | ({"fc10": STARTS["fc64"]} if "fc64" in layers else {})
    for name, layer in layers.items():
        if preset == "torch" or not isinstance(layer, nn.Conv2d | nn.Linear | LocallyConnected2d):
            continue
        deviation = deviations[name]
        if preset == "he":  # sqrt(2 / fan-in)
            fan_in = layer.weight.shape[1] if isinstance(layer, LocallyConnected2d) else layer.weight[0].numel()
            deviation = (2 / fan_in) ** 0.5
        nn.init.normal_(layer.weight, 0.0, deviation)
        nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType] - every layer here has one
