"""LeNet-5 as it is taught today: full connections, parameter-free pooling, a linear output.

The network of LeCun et al. 1998 itself is `LeNet51998`. The course notebooks' versions are fields of this one:
61,706 parameters at 1x28x28 (C1 padded to see 32x32), 44,426 with c1_padding=valid, 82,826 at 32 px padded,
212,906 with c1_padding=valid and c5=conv_same.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import nn

from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import PositiveInt, UnitInterval
from alexnet_lab.models.geometry import LeNet5Sizes, lenet5_sizes
from alexnet_lab.models.initialisation import initialise
from alexnet_lab.models.input_shape import check_images
from alexnet_lab.models.layers import ACTIVATIONS, MinPool2d

POOLS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d, "min": MinPool2d}


class LeNet5(nn.Module):
    """6 and 16 maps of 5x5 kernels, each halved by pooling, then 120 and 84 units and the classes.

    Args:
        num_classes: Outputs.
        in_channels: 1 grey, 3 colour.
        image_size: The images' side in pixels, 12 to 64.
        activation: After C1, C3, C5 and F6.
        pool: S2 and S4, 2x2 with stride 2; `min` is there to see what it does.
        c1_padding: `valid` adds nothing around the image, `same` 2 px of zeros, `full` 4 px; `auto` is `same` for
            images below 32 px, as the original saw a 28 px digit within 32 px, and `valid` for larger ones.
        c5: `dense` connects 120 units to all of S4; `conv` is a 5x5 convolution (the same on 5x5 maps);
            `conv_same` pads it by 2 px and keeps the side, as one notebook does.
        dropout: The share of F6's units that a step drops; 0 in 1998, long before dropout.
        init: `torch` leaves torch's own start; `glorot` is Keras' (uniform, biases 0).
        legacy_softmax: A documented fault: returns softmax outputs, on which a cross-entropy cannot fall below
            ln(1 + 9 / e) = 1.461150 with 10 classes. For showing it; the logits are right.

    Raises:
        ConfigError: Images that do not fit, or a value that is not allowed.

    Example:
        >>> net = LeNet5(activation="tanh", pool="average")
        >>> net(torch.zeros(1, 1, 28, 28)).shape, sum(weight.numel() for weight in net.parameters())
        (torch.Size([1, 10]), 61706)
    """

    @checked()
    def __init__(
        self,
        *,
        num_classes: PositiveInt = 10,
        in_channels: PositiveInt = 1,
        image_size: PositiveInt = 28,
        activation: Literal["relu", "tanh", "sigmoid"] = "relu",
        pool: Literal["max", "average", "min"] = "max",
        c1_padding: Literal["auto", "same", "valid", "full"] = "auto",
        c5: Literal["dense", "conv", "conv_same"] = "dense",
        dropout: UnitInterval = 0.0,
        init: Literal["torch", "glorot"] = "torch",
        legacy_softmax: bool = False,
    ) -> None:
        super().__init__()
        self.input_shape = (in_channels, image_size, image_size)
        self.legacy_softmax = legacy_softmax
        sizes = lenet5_sizes(image_size=image_size, c1_padding=c1_padding, c5=c5)
        act, window = ACTIVATIONS[activation], POOLS[pool]
        self.features = nn.Sequential(OrderedDict(
            c1=nn.Conv2d(in_channels, 6, 5, padding=sizes.c1_padding),  # (B, 6, 28, 28)
            act1=act(),
            s2=window(2),  # (B, 6, 14, 14)
            c3=nn.Conv2d(6, 16, 5),  # (B, 16, 10, 10)
            act3=act(),
            s4=window(2),  # (B, 16, 5, 5)
        ))  # fmt: skip
        self.classifier = nn.Sequential(OrderedDict(
            **_c5(c5, sizes, act()),  # (B, 120)
            f6=nn.Linear(120 * sizes.sizes["c5"] ** 2, 84),  # (B, 84)
            act6=act(),
            **({"drop6": nn.Dropout(dropout)} if dropout else {}),
            output=nn.Linear(84, num_classes),
        ))  # fmt: skip
        initialise(dict(self.named_modules()), init)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """From (B, in_channels, image_size, image_size) to logits (B, num_classes)."""
        check_images(images, self.input_shape)
        logits = self.classifier(self.features(images))
        return logits.softmax(1) if self.legacy_softmax else logits


def _c5(kind: str, sizes: LeNet5Sizes, act: nn.Module) -> dict[str, nn.Module]:
    """C5 with its activation, flattening before it or after it."""
    flatten = nn.Flatten()
    if kind == "dense":
        return {"flatten": flatten, "c5": nn.Linear(16 * sizes.sizes["s4"] ** 2, 120), "act5": act}
    return {"c5": nn.Conv2d(16, 120, 5, padding=sizes.c5_padding), "act5": act, "flatten": flatten}
