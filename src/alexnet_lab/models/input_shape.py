"""What a network was built for, against what it gets."""

from __future__ import annotations

import torch

from alexnet_lab.base.errors import ConfigError


def check_images(images: torch.Tensor, expected: tuple[int, int, int]) -> None:
    """Refuses a batch that the network was not built for.

    Args:
        images: What `forward` was given, (B, C, H, W).
        expected: (C, H, W) of the constructor's fields.

    Raises:
        ConfigError: With both shapes.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != expected:
        wanted = " x ".join(str(side) for side in expected)
        raise ConfigError(
            f"the network was built for batches of {wanted} (channels x height x width) and got a tensor of shape "
            f"{tuple(images.shape)}; set in_channels and image_size to what the data have"
        )
