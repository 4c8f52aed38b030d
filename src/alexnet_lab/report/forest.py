"""A forest plot: differences from the base with their intervals around zero, and the paper's numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from alexnet_lab.base.printable import printable
from alexnet_lab.base.statistics import Difference
from alexnet_lab.sweeps.summary import Row, Summary
from alexnet_lab.sweeps.summary_tables import Units, interval, paper_point, row_label

WIDTH = 400
"""The width of the picture; a phone shows a unit as about one pixel."""

ROW = 40
"""The height of a level: its name and numbers with the interval below."""

MARGIN = 10
"""Space on both sides of the axis, for marks at its ends."""

WIDEST = 1.0
"""How far an interval may widen the axis on each side, times the range of the differences: few seeds give wide ones."""

FEWEST_TICKS = 4
"""The least number of ticks on the axis, sometimes one fewer."""


class Gap(NamedTuple):
    """A level's difference from the base in the displayed unit: points for error rates."""

    label: str
    mean: float
    low: float | None  # of the interval, or None
    high: float | None
    paper: float | None
    words: str  # the numbers as text

    def numbers(self) -> dict[str, float]:
        """The available numbers by name."""
        found = {"mean": self.mean, "low": self.low, "high": self.high, "paper": self.paper}
        return {name: value for name, value in found.items() if value is not None}

    def drawn(self, low: float, high: float) -> tuple[dict[str, float], dict[str, bool]]:
        """The numbers on an axis from `low` to `high`, and whether each end of the interval lies beyond it."""
        numbers = self.numbers()
        beyond = {
            name: numbers[name] != min(max(numbers[name], low), high) for name in ("low", "high") if name in numbers
        }
        return {name: min(max(value, low), high) for name, value in numbers.items()}, beyond


def gaps(summary: Summary) -> list[Gap]:
    """One gap for each level that is compared with the base, in the table's order."""
    return [_gap(summary, row, row.against_base) for row in summary.rows if row.against_base is not None]


def _gap(summary: Summary, row: Row, gap: Difference) -> Gap:
    units = Units(summary.about["metric"])
    scale = 100 if units.per_cent else 1
    low, high = (None if end is None else scale * end for end in (gap.low, gap.high))
    spread = f" ({interval(gap, units)})" if low is not None else ""
    paper = paper_point(summary, row)
    return Gap(printable(row_label(row)), scale * gap.mean, low, high, paper, f"{units.signed(gap.mean)}{spread}")


def span(shown: Sequence[Gap]) -> tuple[float, float]:
    """The ends of an axis that covers the differences, the paper's numbers and zero, and as a rule the intervals.

    Example:
        >>> span([Gap("a", 1.0, 0.5, 1.5, None, ""), Gap("b", 2.0, -90.0, 94.0, None, "")])
        (-2.0, 4.0)
    """
    marks = [0.0, *(value for gap in shown for name, value in gap.numbers().items() if name in ("mean", "paper"))]
    intervals = [value for gap in shown for name, value in gap.numbers().items() if name in ("low", "high")]
    low, high = min(marks), max(marks)
    room = WIDEST * (high - low)
    if room:
        low, high = max(min([low, *intervals]), low - room), min(max([high, *intervals]), high + room)
    return (low, high) if high > low else (-1.0, 1.0)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two ends: multiples of 1, 2 or 5 times a power of ten.

    Example:
        >>> ticks(-0.3, 2.2)
        [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    rough = (high - low) / FEWEST_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * max(factor for factor in (1, 2, 5) if factor * power <= rough * (1 + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) + 0.0 for number in range(first, last + 1)]


def forest_svg(summary: Summary) -> Markup:
    """The plot as an SVG element; the page's style colours it. Empty if no level is compared."""
    shown = gaps(summary)
    if not shown:
        return Markup()
    low, high = span(shown)

    def x(value: float) -> str:
        return f"{MARGIN + (WIDTH - 2 * MARGIN) * (value - low) / (high - low):.1f}"

    height = ROW * len(shown)
    lines = [
        Markup('<line class="{}" x1="{x}" x2="{x}" y1="0" y2="{y}"/><text x="{x}" y="{below}">{text:g}</text>').format(
            "tick" if tick else "tick zero", x=x(tick), y=height, below=height + 16, text=tick
        )
        for tick in ticks(low, high)
    ]
    for number, gap in enumerate(shown):
        numbers, beyond = gap.drawn(low, high)
        lines += _level(gap, ROW * number, {name: x(value) for name, value in numbers.items()})
        lines += [_arrow(x(numbers[end]), ROW * (number + 1) - 12, end) for end, far in beyond.items() if far]
    title = f"Differences to the base in {'points' if Units(summary.about['metric']).per_cent else 'its unit'}"
    head = Markup('<svg class="forest" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
        WIDTH, height + 22, title
    )
    return Markup("\n").join([head, *lines, Markup("</svg>")])


def _arrow(x: str, middle: int, end: str) -> Markup:
    """The head at an end of an interval that continues beyond the axis."""
    inwards = 6 if end == "low" else -6
    place = f"{float(x) + inwards:.1f}"
    return Markup('<path class="interval" d="M{} {}L{x} {middle}L{} {}"/>').format(
        place, middle - 5, place, middle + 5, x=x, middle=middle
    )


def _level(gap: Gap, top: int, places: dict[str, str]) -> list[Markup]:
    """Draws the marks of a level.

    Args:
        gap: The level's difference.
        top: The upper edge of its row.
        places: The position of each of its numbers on the axis.
    """
    middle = top + ROW - 12
    marks = [
        Markup('<text class="level" x="0" y="{}">{}</text>').format(top + 16, gap.label),
        Markup('<text class="numbers" x="{}" y="{}">{}</text>').format(WIDTH, top + 16, gap.words),
    ]
    if "low" in places and "high" in places:
        line = Markup('<line class="interval" x1="{}" x2="{}" y1="{y}" y2="{y}"/>')
        marks.append(line.format(places["low"], places["high"], y=middle))
    marks.append(Markup('<circle class="mean" cx="{}" cy="{}" r="4"/>').format(places["mean"], middle))
    if "paper" in places:
        diamond = Markup('<path class="papers" d="M{} {}l5 -6l5 6l-5 6z"><title>the paper: {:+g}</title></path>')
        marks.append(diamond.format(f"{float(places['paper']) - 5:.1f}", middle, gap.paper))
    return marks
