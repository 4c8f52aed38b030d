"""A network as a row of blocks, drawn from its layer table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon, Rectangle

from alexnet_lab.evaluation.figures.style import COLOURS, INK, OTHER, new_figure
from alexnet_lab.models.layer_table import Row, shown

__all__ = ["architecture_figure"]

KINDS = {
    "convolution": (COLOURS[5], ("Conv2d", "PartialConv2d", "LocallyConnected2d")),
    "pooling": (COLOURS[4], ("MaxPool2d", "AvgPool2d", "MinPool2d", "Subsampling")),
    "normalisation": (COLOURS[2], ("LocalResponseNorm", "SpatialResponseNorm", "BatchNorm2d")),
    "dense": (COLOURS[3], ("Linear", "EuclideanRBF")),
}
"""Colour and classes of the layers to draw; activations, dropout and reshaping are left out."""

GAP, TALLEST = 0.42, 2.4
"""Inches."""


def architecture_figure(rows: Sequence[Row], input_shape: tuple[int, ...], title: str) -> Figure:
    """Draws one block per layer: its height grows with the side of the maps, its depth with their number.

    Args:
        rows: Of `alexnet_lab.models.layer_table.layer_rows`.
        input_shape: (C, H, W) of an image.
        title: Of the figure.

    Example:
        >>> from alexnet_lab.models import LeNet5
        >>> from alexnet_lab.models.layer_table import layer_rows
        >>> rows = layer_rows(LeNet5(), (1, 28, 28))
        >>> figure = architecture_figure(rows, (1, 28, 28), "LeNet-5")
    """
    drawn = [(row, colour) for row in rows for colour, kinds in KINDS.values() if row.kind in kinds]
    blocks = [("image", "", input_shape, OTHER)]
    blocks += [(row.name.rpartition(".")[2], _window(row), row.output, colour) for row, colour in drawn]
    widths = [_depth(shape) + _front(shape, input_shape) + GAP for _, _, shape, _ in blocks]
    figure = new_figure(sum(widths), TALLEST + 1.7)
    axes = figure.subplots()
    x = 0.0
    for block, width in zip(blocks, widths, strict=True):
        _draw(axes, x, block, input_shape)
        x += width
    axes.set(xlim=(-0.2, x), ylim=(-0.75, TALLEST + 0.5), aspect="equal", title=title)
    axes.set_axis_off()
    used = {colour for _, colour in drawn}
    axes.legend(
        handles=[Patch(color=colour, label=name) for name, (colour, _) in KINDS.items() if colour in used],
        loc="upper right", ncols=len(used), fontsize=8,
    )  # fmt: skip
    return figure


def _draw(axes: Axes, x: float, block: tuple[str, str, tuple[int, ...], str], image: tuple[int, ...]) -> None:
    """Draws a box seen from the left: its front shows the size of the maps, its side their number."""
    name, window, shape, colour = block
    front, height, depth = _front(shape, image), _height(shape, image), _depth(shape)
    slant = 0.35 * front if len(shape) == 3 else 0.0
    corners = [(x, 0.0), (x + front, slant), (x + front, slant + height), (x, height)]
    axes.add_patch(Polygon(corners, closed=True, facecolor=colour, edgecolor=INK, linewidth=0.6, alpha=0.75))
    axes.add_patch(Rectangle((x + front, slant), depth, height, facecolor=colour, edgecolor=INK, linewidth=0.6))
    text = "\n".join(filter(None, (name, "x".join(map(str, shape)), window)))
    axes.text(x, -0.08, text, fontsize=7, va="top", ha="left", linespacing=1.25)


def _window(row: Row) -> str:
    if row.window is None or row.window.kernel == 1:
        return ""
    kernel, stride = row.window.kernel, row.window.stride
    step = "" if stride == 1 else f", stride {shown(stride)}"
    return shown((kernel, kernel) if isinstance(kernel, int) else kernel) + step


def _height(shape: tuple[int, ...], image: tuple[int, ...]) -> float:
    """For maps: the square root of their side, so that 6 px next to 224 stay visible. For units: by their number."""
    if len(shape) == 1:
        return TALLEST * math.log2(1 + shape[0]) / 14
    return 0.8 * TALLEST * math.sqrt(shape[1] / max(image[1:]))


def _front(shape: tuple[int, ...], image: tuple[int, ...]) -> float:
    return 0.3 * _height(shape, image) if len(shape) == 3 else 0.12


def _depth(shape: tuple[int, ...]) -> float:
    return 0.06 * math.log2(1 + shape[0]) if len(shape) == 3 else 0.0
