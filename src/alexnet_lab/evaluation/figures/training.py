"""Figures of the training: augmentation, and error over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from alexnet_lab.base.formats import counted
from alexnet_lab.evaluation.figures.style import COLOURS, FAINT, INK, new_figure, shorten, show_image

LINE = 0.25
"""The training error at which the paper's figure 1 compares ReLU and tanh."""


def augmentation_figure(columns: Mapping[str, Sequence[NDArray]], title: str) -> Figure:
    """Draws a row for each image: as stored, after each step alone, and after all.

    Args:
        columns: Images (C, H, W), uint8, by augmentation step; each column has the same images.
        title: Of the figure.
    """
    rows = len(next(iter(columns.values())))
    figure = new_figure(1.3 * len(columns) + 0.1, 1.25 * rows + 0.7)
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, images) in enumerate(columns.items()):
        grid[0, column].set_title(name, fontsize=8)
        for axes, image in zip(grid[:, column], images, strict=True):
            show_image(axes, image)
    return figure


def training_error_figure(curves: Sequence[tuple[str, Sequence[tuple[int, float]]]], title: str) -> Figure:
    """Draws training error over epochs, a line at 25 %, and where each run crosses it (paper, figure 1).

    Args:
        curves: The name of each run, with its pairs of epoch (from 1) and error.
        title: Of the figure.
    """
    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    for number, (name, points) in enumerate(curves):
        epochs, errors = zip(*points, strict=True)
        crossed = next((epoch for epoch, error in points if error <= LINE), None)
        reached = f"{counted(crossed, 'epoch')} to {LINE:.0%}" if crossed else f"never {LINE:.0%}"
        look: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": "-" if number < len(COLOURS) else "--",
        }
        axes.plot(epochs, errors, marker="o", markersize=3, label=f"{shorten(name, 40)}: {reached}", **look)
    axes.axhline(LINE, color=INK, linestyle=":", linewidth=1)
    axes.set(title=title, xlabel="epoch", ylabel="training error", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(color=FAINT)
    axes.legend(loc="upper right")
    return figure
