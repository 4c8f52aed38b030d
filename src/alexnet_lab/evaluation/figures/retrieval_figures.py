"""Figures of retrieval: the most similar images, and how many of them have the query's class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alexnet_lab.evaluation.figures.style import COLOURS, FAINT, RIGHT, WRONG, new_figure, shorten, show_image


class Query(NamedTuple):
    """An image and its nearest neighbours by two measures, nearest first."""

    image: NDArray  # uint8 (C, H, W)
    label: str
    by_features: list[tuple[NDArray, str]]  # images and their classes
    by_pixels: list[tuple[NDArray, str]]


def retrieval_figure(queries: Sequence[Query], title: str, heads: tuple[str, str]) -> Figure:
    """Draws a row for each query: the image, its neighbours by features and by pixels (paper, figure 4 right).

    Args:
        queries: Each with the same number of neighbours.
        title: Of the figure.
        heads: Of the two blocks, e.g. their precision.
    """
    count = len(queries[0].by_features)
    figure = new_figure(0.78 * (2 * count + 1) + 0.6, 0.92 * len(queries) + 0.9)
    figure.suptitle(title, fontsize=10)
    blocks = figure.subfigures(1, 3, width_ratios=[1.05, count, count], squeeze=False)[0]
    grids = [
        block.subplots(len(queries), columns, squeeze=False)
        for block, columns in zip(blocks, (1, count, count), strict=True)
    ]
    for block, head in zip(blocks, ("query", *heads), strict=True):
        block.suptitle(head, fontsize=9)
    for row, query in enumerate(queries):
        _tile(grids[0][row, 0], query.image, query.label, "black")
        for grid, found in zip(grids[1:], (query.by_features, query.by_pixels), strict=True):
            for axes, (image, label) in zip(grid[row], found, strict=True):
                _tile(axes, image, label, RIGHT if label == query.label else WRONG)
    return figure


def _tile(axes: Axes, image: NDArray, label: str, colour: str) -> None:
    """Draws an image above its class; right and wrong classes differ in colour and by a frame."""
    show_image(axes, image)
    axes.set_xlabel(shorten(label, 16), fontsize=6, color=colour, labelpad=1)
    if colour == WRONG:
        for spine in axes.spines.values():
            spine.set(visible=True, color=WRONG, linewidth=1.5)


def precision_figure(precision: Mapping[str, Mapping[int, float]], title: str) -> Figure:
    """Draws the share of the k nearest that have the query's class, over k, for each search method."""
    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    for (name, values), colour, mark in zip(precision.items(), COLOURS, "osD^vP*", strict=False):
        axes.plot(list(values), list(values.values()), f"-{mark}", color=colour, markersize=4, label=name)
    ks = list(next(iter(precision.values())))
    axes.set_xscale("log")
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set(title=title, xlabel="neighbours k", ylabel="precision at k", ylim=(0, 1))
    axes.grid(color=FAINT)
    axes.legend(loc="best")
    return figure
