"""format=onnx: torch's exporter, with the local response norm in operators of ONNX."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from alexnet_lab.base.errors import RunError, one_line
from alexnet_lab.export.plain_layers import with_plain_layers
from alexnet_lab.export.served import INPUT, MESSAGE_LENGTH, OUTPUTS, Served, example, traced
from alexnet_lab.models.layers import LocalResponseNorm
from alexnet_lab.models.layers.response_norm import power, window_sum

LARGEST = 2**31 - 2**24
"""The most bytes of weights in one file: the format's limit is 2 GiB, and the graph needs some."""

CHATTY = ("onnxscript", "onnx_ir", "torch.onnx")
"""Loggers that report each optimisation."""


class OperatorNorm(nn.Module):
    """ONNX's operator LRN. It divides alpha by the size of the window, ours does not."""

    def __init__(self, norm: LocalResponseNorm) -> None:
        super().__init__()
        self.groups = norm.groups
        self.constants = {"alpha": norm.alpha * norm.size, "beta": norm.beta, "bias": norm.k, "size": norm.size}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) in and out; each tower by itself."""
        if self.groups == 1:
            return self._norm(x)
        return torch.cat([self._norm(tower) for tower in x.chunk(self.groups, 1)], 1)

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        return torch.onnx.ops.symbolic("LRN", [x], self.constants, dtype=x.dtype, shape=x.shape)


class ConvolutionNorm(nn.Module):
    """The sum over the window as a 1x1 convolution of the squares: alpha within the window, 0 elsewhere."""

    kernel: torch.Tensor

    def __init__(self, norm: LocalResponseNorm) -> None:
        super().__init__()
        self.norm = norm
        self.register_buffer("kernel", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) in and out; the first call determines C."""
        if self.kernel is None:
            ones = torch.eye(x.shape[1])[..., None, None]  # square of one map at a time
            self.kernel = self.norm.alpha * window_sum(ones, self.norm.size, self.norm.groups).transpose(0, 1)
            self.register_buffer("bias", torch.full((x.shape[1],), self.norm.k))
        return x * power(functional.conv2d(x.square(), self.kernel, self.get_buffer("bias")), self.norm.beta)


RESPONSE_NORMS: dict[str, Callable[[LocalResponseNorm], nn.Module]] = {
    "operator": lambda norm: OperatorNorm(norm) if norm.size % 2 else ConvolutionNorm(norm),  # even: other borders
    "convolution": ConvolutionNorm,
}
"""By the value of `response_norm`. The operator's even windows reach one map further up, ours one further down."""


def write(served: Served, description: Mapping[str, Any], path: Path, *, response_norm: str = "operator") -> None:
    """Writes an ONNX file whose metadata has the entries of a description, as JSON where they are no texts.

    Args:
        served: The network; its response norms are replaced.
        description: Of `described`.
        path: Of the file.
        response_norm: A key of `RESPONSE_NORMS`.

    Raises:
        RunError: The network has an operation that cannot be exported, or too many weights for one file.
    """
    size = sum(tensor.nbytes for tensor in served.state_dict().values())
    if size > LARGEST:
        raise RunError(
            f"the network has {size / 2**30:.1f} GiB of weights, but an ONNX file holds at most 2 GiB; "
            f"set format=torch_export"
        )
    served.net = with_plain_layers(served.net, {LocalResponseNorm: RESPONSE_NORMS[response_norm]})
    with torch.no_grad():
        served(example(served))  # builds the kernels of `ConvolutionNorm`
    program = traced(served)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        exported = torch.onnx.export(
            program,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: "batch"},),  # the name of the axis
            verbose=False,
        )
    except Exception as error:  # torch and onnxscript raise errors of many kinds
        raise RunError(f"the network cannot be written as ONNX: {one_line(error)[:MESSAGE_LENGTH]}") from error
    assert exported is not None  # noqa: S101 - None is the older exporter's
    _describe(exported.model, description)
    path.write_bytes(exported.model_proto.SerializeToString())


def _describe(model: Any, description: Mapping[str, Any]) -> None:
    """Replaces torch's notes, which name files of this machine, by a description."""
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
    entries = {key: value if isinstance(value, str) else json.dumps(value) for key, value in description.items()}
    model.metadata_props.clear()
    model.metadata_props.update(entries)
    model.producer_name, model.producer_version = "alexnet_lab", description["versions"]["alexnet_lab"]


def logits(path: Path, pixels: NDArray) -> NDArray:
    """What a file makes of pixels, uint8 (B, C, S, S)."""
    import onnxruntime  # noqa: PLC0415 - of the extra `export`

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {INPUT: pixels})[0])
