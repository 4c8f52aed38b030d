"""Figures of a network: its first kernels, its maps for one image, and the curves of activation functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alexnet_lab.base.formats import p_value
from alexnet_lab.evaluation.comparisons import Comparison
from alexnet_lab.evaluation.figures.style import COLOURS, FAINT, INK, bare, new_figure, shorten, show_image
from alexnet_lab.evaluation.kernels import Kernels, colour_saturation, tower_test
from alexnet_lab.evaluation.layer_outputs import LayerMaps

KERNELS_IN_ROW = 16
MAPS_SHOWN = 12


def kernels_figure(kernels: Kernels) -> Figure:
    """Draws the kernels tower by tower, each scaled to grey for 0 and full for its largest weight (paper, figure 3)."""
    blocks = [mosaic(_as_pixels(tower), KERNELS_IN_ROW) for tower in kernels.towers]
    width = 7.0
    heights = [width * block.shape[0] / block.shape[1] + 0.35 for block in blocks]
    figure = new_figure(width, sum(heights) + 0.5)
    figure.suptitle(_kernels_title(kernels), fontsize=10)
    rows = figure.subplots(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for number, (axes, block, tower) in enumerate(zip(rows, blocks, kernels.towers, strict=True), start=1):
        axes.imshow(block, interpolation="nearest")
        bare(axes)
        name = f"tower {number}: " if len(blocks) > 1 else ""
        colour = f", mean colour saturation {colour_saturation(tower).mean():.2f}" if kernels.colour else ""
        axes.set_title(f"{name}{len(tower)} kernels{colour}", loc="left", fontsize=9)
    return figure


def _kernels_title(kernels: Kernels) -> str:
    count, _, side, _ = kernels.towers[0].shape
    title = f"First layer: {count * len(kernels.towers)} kernels of {side}x{side} pixels"
    if kernels.colour and len(kernels.towers) == 2:
        p = tower_test([kernels.saturations]).p
        title += (
            f"; the towers' saturations differ with p {p_value(p)}" if p < 0.05 else f"; towers alike (p {p_value(p)})"
        )
    return title


def saturation_figure(names: Sequence[str], means: Sequence[Sequence[float]], over_runs: Comparison) -> Figure:
    """Draws the mean colour saturation of both towers of each run on one line.

    Args:
        names: Of the runs (R,).
        means: (R, 2).
        over_runs: The test of all runs together.
    """
    figure = new_figure(6.4, 0.26 * len(names) + 1.5)
    axes = figure.subplots()
    places = range(len(names))
    axes.hlines(places, [min(pair) for pair in means], [max(pair) for pair in means], color=FAINT, linewidth=4)
    for tower, (colour, mark) in enumerate(zip(COLOURS, "os", strict=False)):
        axes.plot([pair[tower] for pair in means], places, mark, color=colour, label=f"tower {tower + 1}")
    axes.axvline(2 / 3, color=INK, linewidth=0.8, linestyle=":", label="noise")
    axes.set_yticks(places, [shorten(name, 40) for name in names], fontsize=7)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="mean colour saturation of the first kernels")
    axes.set_title(
        f"towers differ by {over_runs.mean:.2f}, by chance {over_runs.base:.2f}; p {p_value(over_runs.effect.p)}"
    )
    axes.grid(color=FAINT, axis="x")
    axes.legend(loc="best")
    return figure


def _as_pixels(kernels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Kernels (n, C, K, K) as colour images (n, K, K, 3) in [0, 1]; grey unless they have three channels."""
    shown = kernels if kernels.shape[1] == 3 else kernels.mean(axis=1, keepdims=True).repeat(3, axis=1)
    largest: NDArray[np.float32] = np.abs(shown).max(axis=(1, 2, 3), keepdims=True)
    return (0.5 + 0.5 * shown / np.where(largest > 0, largest, 1)).transpose(0, 2, 3, 1).astype(np.float32)


def mosaic(tiles: NDArray[np.float32], columns: int) -> NDArray[np.float32]:
    """Tiles (n, K, K, 3) in rows on white, one pixel apart."""
    count, side, _, _ = tiles.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = np.ones((rows * (side + 1) - 1, columns * (side + 1) - 1, 3), dtype=np.float32)
    for number, tile in enumerate(tiles):
        top, left = (side + 1) * (number // columns), (side + 1) * (number % columns)
        canvas[top : top + side, left : left + side] = tile
    return canvas


def feature_maps_figure(image: NDArray[np.uint8], title: str, layers: Sequence[LayerMaps]) -> Figure:
    """Draws a row for each layer: its strongest maps, each scaled to its own range, or all units of a dense layer.

    Args:
        image: (C, H, W), as stored.
        title: Describes the image.
        layers: In order.
    """
    row = 0.62
    figure = new_figure(8.5, row * len(layers) + 1.3)
    grid = figure.subplots(len(layers) + 1, 1, height_ratios=[1.1 / row, *[1.0] * len(layers)])
    show_image(grid[0], image)
    grid[0].set_title(title, loc="left")
    grid[0].set_anchor("W")
    for axes, layer in zip(grid[1:], layers, strict=True):
        strip = _maps_strip(layer.output) if layer.output.ndim == 3 else _units_strip(layer.output)
        axes.imshow(strip, interpolation="nearest", aspect="auto" if layer.output.ndim == 1 else "equal")
        axes.set_anchor("W")
        bare(axes)
        size = " x ".join(map(str, layer.output.shape))
        axes.set_ylabel(f"{layer.name}\n{layer.kind}\n{size}", rotation=0, ha="right", va="center", fontsize=6)
    return figure


def _maps_strip(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """The maps (C, H, W) that vary most, side by side, each with its own colour range."""
    varied = np.sort(np.argsort(-maps.std(axis=(1, 2)), kind="stable")[:MAPS_SHOWN])
    tiles = np.stack([_coloured(values) for values in maps[varied]])
    size = max(1, 24 // tiles.shape[1])  # keeps the gaps thin beside small maps
    tiles = tiles.repeat(size, axis=1).repeat(size, axis=2)
    missing = np.ones((MAPS_SHOWN - len(tiles), *tiles.shape[1:]), dtype=np.float32)
    return mosaic(np.concatenate([tiles, missing]), MAPS_SHOWN)


def _units_strip(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """All units (D,) of a dense layer, in several rows if needed."""
    rows = max(1, len(values) // 256)
    return _coloured(values[: len(values) // rows * rows].reshape(rows, -1))


def _coloured(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours (H, W, 3) from dark for the smallest value to bright for the largest."""
    low, high = values.min(), values.max()
    return mpl.colormaps["viridis"]((values - low) / (high - low if high > low else 1))[..., :3].astype(np.float32)


def activations_figure(curves: Mapping[str, tuple[NDArray, NDArray]], x: NDArray, used: str | None) -> Figure:
    """Draws each function with its slope; where the slope is near 0, a unit hardly learns.

    Args:
        curves: Values and slopes at `x`, by the name of the function.
        x: (n,).
        used: The run's function, which is marked.
    """
    columns = 4
    rows = -(-len(curves) // columns)
    figure = new_figure(8.0, 2.1 * rows + 0.4)
    cells = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in cells.flat[len(curves) :]:
        axes.remove()
    for axes, (name, (values, slopes)) in zip(cells.flat, curves.items(), strict=False):
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.axvline(0, color=INK, linewidth=0.6)
        axes.plot(x, values, color=COLOURS[0], label="f(x)")
        axes.plot(x, slopes, color=COLOURS[1], linestyle="--", label="slope f'(x)")
        axes.set(ylim=(-2, 3), xticks=(-4, -2, 0, 2, 4))
        axes.set_title(f"{name} (this run's)" if name == used else name, weight="bold" if name == used else "normal")
        axes.grid(color=FAINT)
    figure.legend(*cells[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
