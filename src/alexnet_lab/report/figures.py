"""Figures of a study for papers and slides: the levels' results, their curves, the curves of one run.

Import this module only where a figure is drawn: matplotlib takes half a second.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator, PercentFormatter

from alexnet_lab.evaluation.figures.style import COLOURS, FAINT, OTHER, new_figure, shorten, styled
from alexnet_lab.report.comparison import PARTIAL, Run, Study
from alexnet_lab.report.forest import Gap, gaps, span
from alexnet_lab.report.text_tables import summary_of

AXIS_MARGIN = 0.05
"""Space beyond the ends of an axis, as a share of its length."""

LONGEST_NAME = 28
"""The most characters of a level's name in a figure."""

LINES = ("-", "--", ":", "-.")
"""Line styles, one for each pass through the colours."""


def figures(study: Study) -> dict[str, Figure]:
    """All figures for which a study has data, by the name of their file."""
    found: dict[str, Figure] = {}
    with styled():
        if any(study.metric in run.metrics for run in study.completed):
            found["levels"] = levels_figure(study)
            if shown := gaps(summary_of(study, study.metric)):
                found["differences"] = differences_figure(shown, study.metric)
        drawn = [name for name in CURVES if any(name in run.curves for run in study.runs)]
        if len(study.runs) == 1:
            found["run"] = run_figure(study.runs[0])
            if layer_columns(study.runs[0], "update_ratio"):
                found["layers"] = layers_figure(study.runs[0])
        elif drawn:
            found["curves"] = curves_figure(study, drawn)
    return found


CURVES = ("train/top1_error", "val/top1_error")
"""The columns that `curves` shows, if available."""


def look(level: int) -> dict[str, str]:
    """The colour and line style of a level."""
    return {"color": COLOURS[level % len(COLOURS)], "linestyle": LINES[level // len(COLOURS) % len(LINES)]}


def levels_figure(study: Study) -> Figure:
    """Draws each run as a dot, and each level's mean as a bar with one sample standard deviation on both sides."""
    figure = new_figure(6.4, 1.1 + 0.45 * len(study.levels))
    axes = figure.subplots()
    for place, level in enumerate(study.levels):
        values = [
            run.metrics[study.metric] for run in study.completed if run.level == level and study.metric in run.metrics
        ]
        if not values:
            continue
        colour = look(place)["color"]
        heights = [place + 0.25 * (number / max(len(values) - 1, 1) - 0.5) for number in range(len(values))]
        axes.plot(values, heights, "o", color=colour, alpha=0.55, markeredgewidth=0, markersize=6)
        mean, deviation = spread(values)
        axes.plot([mean, mean], [place - 0.28, place + 0.28], color=colour, linewidth=2.4)
        axes.plot([mean - deviation, mean + deviation], [place, place], color=colour, linewidth=1.2)
    axes.set_yticks(range(len(study.levels)), [shorten(level, LONGEST_NAME) for level in study.levels])
    axes.set_ylim(len(study.levels) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set_xlabel(study.metric)
    _in_per_cent(axes, study.metric, "x")
    return figure


def differences_figure(shown: Sequence[Gap], metric: str) -> Figure:
    """Draws each level's difference from the base with its interval, around zero; diamonds are the paper's numbers."""
    figure = new_figure(6.4, 1.1 + 0.4 * len(shown))
    axes = figure.subplots()
    axes.axvline(0.0, color=OTHER, linewidth=1)
    low, high = span(shown)
    axes.set_xlim(low - AXIS_MARGIN * (high - low), high + AXIS_MARGIN * (high - low))
    for place, gap in enumerate(shown):
        numbers, beyond = gap.drawn(low, high)
        if "low" in numbers:
            axes.plot([numbers["low"], numbers["high"]], [place, place], color=COLOURS[0], linewidth=1.8)
        for end in (end for end, far in beyond.items() if far):  # the interval continues
            axes.plot([numbers[end]], [place], "<" if end == "low" else ">", color=COLOURS[0], markersize=7)
        axes.plot([gap.mean], [place], "o", color=COLOURS[0], markersize=6)
    claimed = [(gap.paper, place) for place, gap in enumerate(shown) if gap.paper is not None]
    if claimed:
        mark = {"markerfacecolor": "none", "color": COLOURS[1], "markersize": 7, "label": "the paper's number"}
        axes.plot(*zip(*claimed, strict=True), "D", **mark)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0))
    axes.set_yticks(range(len(shown)), [shorten(gap.label, LONGEST_NAME) for gap in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="x")
    unit = "points" if metric.endswith("_error") else metric.partition("/")[2] if metric.startswith("to_") else ""
    axes.set_xlabel(f"{metric}: difference to the base{', ' * bool(unit)}{unit}")
    return figure


def curves_figure(study: Study, names: Sequence[str]) -> Figure:
    """Draws columns of metrics.csv over the epochs: each level's mean with a band of one standard deviation."""
    figure = new_figure(1.2 + 3.4 * len(names), 3.4)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for place, level in enumerate(study.levels):
            _draw_level(axes, [run for run in study.runs if run.level == level], name, place)
        _over_epochs(axes, name)
        if name == "train/top1_error" and study.target is not None:
            axes.axhline(study.target, color=OTHER, linestyle="--", linewidth=1)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    return figure


def _draw_level(axes: Axes, runs: Sequence[Run], name: str, place: int) -> None:
    """Draws the mean of the completed runs with its band, and incomplete runs as dotted lines."""
    label = shorten(runs[0].level, LONGEST_NAME)
    course = mean_course([run for run in runs if run.status == "completed"], name)
    if course.epochs:
        _draw(axes, course, label, place)
        axes.fill_between(course.epochs, course.low, course.high, color=look(place)["color"], alpha=0.18, lw=0)
    for run in runs:
        if run.status in PARTIAL:
            part = mean_course([run], name)
            _draw(axes, part, "_" if course.epochs else f"{label} (incomplete)", place, linestyle=":", linewidth=1)


def run_figure(run: Run) -> Figure:
    """Draws one run over its epochs: loss, error, learning rate, images per second."""
    panels = {
        "loss": ("train/loss", "val/loss"), "top-1 error": ("train/top1_error", "val/top1_error"),
        "learning rate": ("learning_rate",), "images/s": ("images_per_second",),
    }  # fmt: skip
    figure = new_figure(7.2, 4.8)
    for axes, (title, names) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for place, name in enumerate(names):
            course = mean_course([run], name)
            _draw(axes, course, name.partition("/")[0], place)
        if len(names) > 1:
            axes.legend()
        _over_epochs(axes, title)
        axes.set_ylim(bottom=0)
    return figure


def layers_figure(run: Run) -> Figure:
    """Draws one run's layers over its epochs: the size of weight updates and the share of dead ReLUs."""
    figure = new_figure(9.0, 3.6)
    for axes, kind in zip(figure.subplots(1, 2), ("update_ratio", "dead_share"), strict=True):
        for place, name in enumerate(layer_columns(run, kind)):
            course = mean_course([run], name)
            _draw(axes, course, name.split("/")[1], place)
        _over_epochs(axes, {"update_ratio": "|step| / |weights|", "dead_share": "share of dead ReLUs"}[kind])
        if kind == "update_ratio":
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(LogFormatter())  # plain text: the default needs formulas, which are off
            axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
        if axes.lines:
            axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def layer_columns(run: Run, kind: str) -> list[str]:
    """The columns of metrics.csv with this measurement of each layer."""
    return [name for name in run.curves if name.startswith("layers/") and name.endswith(f"/{kind}")]


class Course(NamedTuple):
    """A column over the epochs, averaged over the runs that have it."""

    epochs: list[float]
    means: list[float]
    low: list[float]
    high: list[float]


def mean_course(runs: Sequence[Run], name: str) -> Course:
    """The mean of a column at each epoch, and one sample standard deviation on both sides."""
    by_epoch: dict[float, list[float]] = {}
    for run in runs:
        for epoch, value in zip(run.curves.get("epoch", []), run.curves.get(name, []), strict=False):
            if epoch is not None and value is not None:
                by_epoch.setdefault(epoch, []).append(value)
    epochs = sorted(by_epoch)
    spreads = [spread(by_epoch[epoch]) for epoch in epochs]
    return Course(
        epochs,
        [mean for mean, _ in spreads],
        [mean - deviation for mean, deviation in spreads],
        [mean + deviation for mean, deviation in spreads],
    )


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, which is 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _draw(axes: Axes, course: Course, label: str, place: int, **style: Any) -> None:
    """Draws a line in the style of a level, or a dot for a single epoch."""
    marker = "o" if len(course.epochs) == 1 else None
    (line,) = axes.plot(course.epochs, course.means, marker=marker, markersize=4, label=label)
    line.set(**{**look(place), **style})


def _over_epochs(axes: Axes, title: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    axes.grid(color=FAINT)
    _in_per_cent(axes, title, "y")


def _in_per_cent(axes: Axes, name: str, axis: str) -> None:
    """Formats errors and shares in per cent, but not the epochs until an error is reached (`to_error/epochs`)."""
    if name.endswith("error") or "share" in name:
        getattr(axes, f"{axis}axis").set_major_formatter(PercentFormatter(1.0))
