"""A trained network as one module from pixels to logits and probabilities: what export.py writes."""

from __future__ import annotations

import torch
from torch import nn
from torch.export import ExportedProgram

from alexnet_lab.base.errors import RunError, one_line
from alexnet_lab.data.augment import apply
from alexnet_lab.data.normalize import Normalizer
from alexnet_lab.evaluation.predict import Predictor
from alexnet_lab.export.plain_layers import with_plain_layers

INPUT = "pixels"
OUTPUTS = ("logits", "probabilities")

MESSAGE_LENGTH = 300
"""Of torch's message, which can be several pages."""


class Served(nn.Module):
    """Centre crop, normalisation, network and softmax of a run, as its own evaluation has them in float32.

    Args:
        run: The run; its network is copied.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, run: Predictor) -> None:
        super().__init__()
        transform = run.data.transform
        normalizer = transform.normalizer(torch.device("cpu"))
        self.register_buffer("mean", normalizer.mean.clone())
        self.register_buffer("scale", normalizer.scale.clone())
        self.geometry = transform.geometry(training=False)
        self.channels = run.data.channels
        net = with_plain_layers(run.net)
        self.net = net.to("cpu", torch.float32, memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue] - missing in torch's stubs

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From uint8 (B, C, S, S) to logits and probabilities (B, num_classes)."""
        logits = self.net(apply(pixels, None, self.geometry, Normalizer(self.mean, self.scale)))
        return logits, logits.softmax(1)


def example(served: Served) -> torch.Tensor:
    """Two black images."""
    side = served.geometry.stored
    return torch.zeros(2, served.channels, side, side, dtype=torch.uint8)


def traced(served: Served) -> ExportedProgram:
    """The module's operations, for any number of images.

    Raises:
        RunError: torch cannot trace the network.
    """
    try:
        return torch.export.export(served, (example(served),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except Exception as error:  # torch raises errors of many kinds
        raise RunError(f"torch cannot export the network: {one_line(error)[:MESSAGE_LENGTH]}") from error
