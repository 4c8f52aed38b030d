"""Any classifier of torchvision, by its name, for comparison with ours."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import nn

from alexnet_lab.base.errors import ConfigError, did_you_mean, one_line
from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import PositiveInt
from alexnet_lab.models.counts import trace


def _extras(name: str, image_size: int) -> dict[str, Any]:
    """What some networks need besides: no second outputs and their papers' start, or the size of the images."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": image_size}
    return {"input_size": (image_size, image_size)} if name == "maxvit_t" else {}


@checked()
def torchvision_net(
    *,
    name: str = "resnet18",
    num_classes: PositiveInt = 1000,
    in_channels: PositiveInt = 3,
    image_size: PositiveInt = 224,
) -> nn.Module:
    """An untrained network of torchvision.

    Args:
        name: A name of `torchvision.models.list_models(module=torchvision.models)`.
        num_classes: Outputs.
        in_channels: 3; or 1, then each grey image is shown as three equal channels.
        image_size: The images' side in pixels.

    Raises:
        ConfigError: An unknown name, other channels, or images that the network cannot read.

    Example:
        >>> net = torchvision_net(name="squeezenet1_1", num_classes=10, in_channels=1, image_size=64)
        >>> net(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 10])
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise ConfigError(f"unknown name={name} of torchvision.models; {did_you_mean(name, names)}")
    if in_channels not in (1, 3):
        raise ConfigError(f"in_channels={in_channels} does not fit torchvision's networks: 3, or 1 (shown as three)")
    try:
        net = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **_extras(name, image_size))
        if in_channels == 1:
            net.register_forward_pre_hook(_grey_as_colour)
        trace(net, (in_channels, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(f"image_size={image_size} does not fit torchvision's {name}: {one_line(error)}") from error
    return net


def _grey_as_colour(_net: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Images of one channel as images of three."""
    return inputs[0].expand(-1, 3, -1, -1)
