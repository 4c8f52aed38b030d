"""Figures of predictions: confusion matrix, reliability, mistakes, the five most probable classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alexnet_lab.evaluation.error_rates import Bins
from alexnet_lab.evaluation.figures.style import (
    COLOURS,
    FAINT,
    INK,
    OTHER,
    RIGHT,
    WRONG,
    bare,
    new_figure,
    shorten,
    show_image,
)

MOST_NUMBERS = 20
"""The most classes whose cells contain numbers; with more, only colours are legible."""

MOST_NAMES = 100
"""The most classes whose names fit beside a matrix."""

SHEET_COLUMNS = 6


def confusion_figure(matrix: Sequence[Sequence[int]], class_names: Sequence[str], title: str) -> Figure:
    """Draws the matrix, coloured by the share of each true class, so that rare classes are visible too."""
    counts = np.array(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = float(np.clip(0.42 * len(counts) + 1.6, 3.6, 14))
    figure = new_figure(size + 0.6, size)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the true class")
    axes.set(title=title, xlabel="predicted class", ylabel="true class")
    for spine in axes.spines.values():
        spine.set_visible(False)
    if len(counts) <= MOST_NAMES:
        names = [shorten(name, 24) for name in class_names]
        small = 9 if len(counts) <= MOST_NUMBERS else 5
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=small)
        axes.set_yticks(range(len(names)), names, fontsize=small)
    if len(counts) <= MOST_NUMBERS:
        for (row, column), number in np.ndenumerate(counts):
            if number:
                ink = "white" if shares[row, column] > 0.5 else INK
                axes.text(column, row, f"{number}", ha="center", va="center", color=ink, fontsize=7.5)
    return figure


def reliability_figure(bins: Bins, title: str) -> Figure:
    """Draws accuracy over confidence, which agree on the diagonal, and below the number of images per bin."""
    figure = new_figure(4.6, 5.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    edges, filled = bins.edges.numpy(), bins.images.numpy() > 0
    width = np.diff(edges)
    accuracy, confidence = bins.accuracy.numpy(), bins.confidence.numpy()
    look: dict[str, Any] = {"align": "edge", "edgecolor": "white", "linewidth": 0.8}
    upper.bar(edges[:-1][filled], accuracy[filled], width[filled], color=COLOURS[0], label="accuracy", **look)
    upper.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1, label="perfect calibration")
    dots: dict[str, Any] = {"color": COLOURS[1], "markersize": 4, "linestyle": "none", "marker": "o", "clip_on": False}
    upper.plot(confidence[filled], accuracy[filled], label="mean confidence", **dots)
    upper.set(title=title, ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    upper.legend(loc="upper left")
    lower.bar(edges[:-1], bins.images.numpy() / bins.images.sum().item(), width, color=OTHER, **look)
    lower.set(xlabel="confidence (probability of the predicted class)", ylabel="images", ylim=(0, 1))
    lower.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    for axes in (upper, lower):
        axes.grid(color=FAINT)
    return figure


class Shown(NamedTuple):
    """An image with its prediction."""

    image: NDArray[np.uint8]  # (C, H, W)
    label: str | None  # None: unknown
    classes: list[str]  # most probable first
    probabilities: list[float]


def mistakes_figure(mistakes: Sequence[Shown], title: str) -> Figure:
    """Draws a sheet of misclassified images, with the predicted class above and the true class below."""
    columns = min(SHEET_COLUMNS, max(1, len(mistakes)))
    rows = max(1, -(-len(mistakes) // columns))
    figure = new_figure(1.45 * columns + 0.2, 1.85 * rows + 0.5)
    figure.suptitle(title, fontsize=10)
    for axes, shown in zip(_cells(figure, rows, columns), mistakes, strict=False):
        show_image(axes, shown.image)
        axes.set_title(f"{shorten(shown.classes[0], 16)} {shown.probabilities[0]:.0%}", fontsize=8, color=WRONG, pad=3)
        axes.set_xlabel(shorten(str(shown.label), 18), fontsize=8, color=RIGHT, labelpad=2)
    return figure


def top5_figure(examples: Sequence[Shown], title: str) -> Figure:
    """Draws images with their most probable classes as bars, the true one in another colour (paper, figure 4 left)."""
    columns = min(4, max(1, len(examples)))
    rows = max(1, -(-len(examples) // columns))
    figure = new_figure(2.0 * columns + 0.2, 2.9 * rows + 0.5)
    figure.suptitle(title, fontsize=10)
    cells = _cells(figure, 2 * rows, columns, height_ratios=[1.5, 1.0] * rows)
    for number, shown in enumerate(examples):
        row, column = divmod(number, columns)
        upper, lower = cells[2 * row * columns + column], cells[(2 * row + 1) * columns + column]
        show_image(upper, shown.image)
        upper.set_title(shorten(shown.label or "?", 22), fontsize=9)
        _bars(lower, shown)
    return figure


def _bars(axes: Axes, shown: Shown) -> None:
    """Draws bars with the classes' names on them, the most probable one on top."""
    right = [name == shown.label for name in shown.classes]
    colours = [RIGHT if hit else WRONG if rank == 0 and shown.label else OTHER for rank, hit in enumerate(right)]
    places = range(len(shown.classes))
    axes.barh(places, shown.probabilities, color=colours, height=0.85, alpha=0.55)
    axes.set(xlim=(0, 1), ylim=(len(shown.classes) - 0.5, -0.5))
    for place, name, share in zip(places, shown.classes, shown.probabilities, strict=True):
        axes.text(0.02, place, shorten(name, 18), va="center", fontsize=7)
        axes.text(0.98, place, f"{share:.0%}" if share >= 0.005 else "<1%", va="center", ha="right", fontsize=7)
    bare(axes)


def _cells(figure: Figure, rows: int, columns: int, height_ratios: Sequence[float] | None = None) -> list[Axes]:
    """A grid of axes without ticks and frames."""
    cells = list(figure.subplots(rows, columns, squeeze=False, height_ratios=height_ratios).flat)
    for axes in cells:
        bare(axes)
    return cells
