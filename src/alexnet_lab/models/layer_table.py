"""The layer table of a network, and the table of all networks (docs/models.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import nn

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models.counts import num_macs, num_neurons, num_parameters, trace
from alexnet_lab.models.geometry import padding_pixels
from alexnet_lab.models.layers import LocallyConnected2d, MinPool2d, PartialConv2d, SpatialResponseNorm, Subsampling
from alexnet_lab.models.zoo import build, names, published

__all__ = ["layer_rows", "layer_table"]


Pixels: TypeAlias = int | tuple[int, ...]
"""Of each axis, or (of the rows, of the columns) where they differ."""


class Window(NamedTuple):
    """A window that moves over maps."""

    kernel: Pixels
    stride: Pixels
    padding: Pixels


class Row(NamedTuple):
    """One layer; sizes for one image."""

    name: str
    kind: str
    window: Window | None
    output: tuple[int, ...]
    parameters: int
    macs: int
    receptive_field: int | None  # pixels of the image; None: all of it, or unknown
    memory: int  # bytes of the output in float32


def shown(pixels: Pixels) -> str:
    """Such as "3", or "1x7" for a window that is not square."""
    return "x".join(map(str, pixels)) if isinstance(pixels, tuple) else str(pixels)


def _pair(value: Pixels) -> tuple[int, ...]:
    """The two numbers of a kernel, stride or padding."""
    return (value, value) if isinstance(value, int) else tuple(value)


def window_of(layer: nn.Module) -> Window | None:
    """The window that a layer moves over maps; None where it sees single pixels, or everything."""
    if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | MinPool2d):
        kernel, padding = _pair(layer.kernel_size), layer.padding
        if isinstance(padding, str):
            padding = tuple(padding_pixels(padding, side)[0] for side in kernel)
        pairs = (kernel, _pair(layer.stride), _pair(padding))
        return Window(*(pair[0] if len(set(pair)) == 1 else pair for pair in pairs))
    if isinstance(layer, LocallyConnected2d):
        return Window(layer.kernel, 1, layer.padding)
    if isinstance(layer, PartialConv2d):
        return Window(layer.kernel, 1, 0)
    if isinstance(layer, Subsampling):
        return Window(2, 2, 0)
    if isinstance(layer, SpatialResponseNorm):
        return Window(layer.size, 1, layer.size // 2)
    return None


def layer_rows(net: nn.Module, input_shape: tuple[int, ...]) -> list[Row]:
    """One row for each layer, in the order of the calls.

    Args:
        net: Any network; receptive fields are given for ours alone, whose layers stand in one line.
        input_shape: Of one image, (C, H, W).

    Example:
        >>> from alexnet_lab.models import LeNet5
        >>> [(row.name, row.output) for row in layer_rows(LeNet5(), (1, 28, 28))][:3]
        [('features.c1', (6, 28, 28)), ('features.act1', (6, 28, 28)), ('features.s2', (6, 14, 14))]
    """
    in_line = type(net).__module__.startswith("alexnet_lab.")
    field, jump = 1, 1
    rows = []
    for call in trace(net, input_shape):
        window, kind, memory = window_of(call.layer), type(call.layer).__name__, 4 * torch.Size(call.output).numel()
        if window is not None:  # ours are square
            field, jump = field + (_pair(window.kernel)[0] - 1) * jump, jump * _pair(window.stride)[0]
        known = field if in_line and len(call.output) == 3 else None
        rows.append(Row(call.name, kind, window, call.output, num_parameters(call.layer), call.macs, known, memory))
    return rows


HEADERS = (
    "layer", "kind", "kernel", "stride", "padding", "output", "parameters", "MACs", "receptive field", "memory (KiB)",
)  # fmt: skip


def layer_table(net: nn.Module, input_shape: tuple[int, ...]) -> str:
    """The rows as text, then what is trainable and what is not, then the totals.

    The column `memory` is that of the outputs, for one image in float32; the MiB of the weights are in float32 too.
    Batch normalisation's running statistics and other stored numbers count as not trainable, as in Keras.

    Example:
        >>> from alexnet_lab.models import LeNet5
        >>> row = layer_table(LeNet5(), (1, 28, 28)).splitlines()[1].split()
        >>> row[:3], row[-4:]  # name, kind, kernel, ..., parameters, multiply-adds, receptive field, KiB
        (['features.c1', 'Conv2d', '5'], ['156', '117,600', '5', '18.4'])
    """
    rows = layer_rows(net, input_shape)
    lines = [HEADERS, *(_cells(row) for row in rows), *_weights(net)]
    totals = [sum(getattr(row, name) for row in rows) for name in ("macs", "memory")]
    shape = " x ".join(map(str, input_shape))
    lines.append(
        ("total", f"image {shape}", "", "", "", "", f"{num_parameters(net):,}", f"{totals[0]:,}", "", _kib(totals[1]))
    )
    return _aligned(lines)


def _weights(net: nn.Module) -> list[tuple[str, ...]]:
    """Two lines: how many numbers of the network are trained, how many are kept as they are, and their MiB."""
    trainable = num_parameters(net)
    stored = sum(value.numel() for value in net.state_dict().values() if value.is_floating_point())
    counts = {"trainable": trainable, "not trainable": stored - trainable}
    return [
        (name, f"{4 * count / 2**20:,.2f} MiB", "", "", "", "", f"{count:,}", "", "", "")
        for name, count in counts.items()
    ]


def _cells(row: Row) -> tuple[str, ...]:
    window = ("-", "-", "-") if row.window is None else tuple(map(shown, row.window))
    output = " x ".join(map(str, row.output))
    field = "-" if row.receptive_field is None else str(row.receptive_field)
    return row.name, row.kind, *window, output, f"{row.parameters:,}", f"{row.macs:,}", field, _kib(row.memory)


def _kib(memory: int) -> str:
    return f"{memory / 1024:,.1f}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns of equal width: the first two to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


DOCUMENT = """\
# Networks

Derived from the headers of `configs/model/*.yaml` and from the networks themselves. To regenerate it:
`python -m alexnet_lab.models --markdown > docs/models.md`; a test compares each row.

`model=NAME` takes one, `python -m alexnet_lab.models NAME [field=value ...]` prints its layers, and
`configs/model/NAME.yaml` explains its fields. Counts are for the data that each was published for: trainable
parameters, multiply-adds per image, and neurons (outputs of layers with weights). Multiply-adds of norms, pools and
activations are not counted. The total that Keras prints for `alexnet_bn`, 46,818,064, includes 2,752 running
statistics. `seed000` to `seed004` in a name stand for the four course notebooks and the guide that this repository grew
from; the AlexNet of seed002 is `alexnet_owt` with ten classes (57,044,810 parameters). [fidelity.md](fidelity.md)
lists the numbers of the sources and their tests.

| `model=` | image | classes | parameters | multiply-adds | neurons | source, and what sets it apart |
|---|---|---:|---:|---:|---:|---|
"""


def document() -> str:
    """The text of docs/models.md."""
    return DOCUMENT + "".join(document_row(name) for name in names() if name != "torchvision")


def document_row(name: str) -> str:
    """One network's row; a network that cannot be built has dashes."""
    facts = published(name)
    try:
        with torch.device("meta"):
            net = build(name)
        counted = num_parameters(net), num_macs(net, facts.shape), num_neurons(net, facts.shape)
        counts = [f"{count:,}" for count in counted]
    except ConfigError:
        counts = ["-"] * 3
    cells = (f"`{name}`", "x".join(map(str, facts.shape)), str(facts.classes), *counts, facts.text)
    return f"| {' | '.join(cells)} |\n"
