"""A sweep's summary as text: CSV for programs, tables for readers (Markdown, terminal)."""

from __future__ import annotations

import re
from typing import Any

from rich.table import Table
from rich.text import Text

from alexnet_lab.base import csv_tables
from alexnet_lab.base.formats import counted, p_value
from alexnet_lab.base.printable import printable
from alexnet_lab.base.statistics import Difference, Ratio
from alexnet_lab.sweeps.summary import LEFT_OUT, Row, Summary


def csv_text(summary: Summary) -> str:
    """All numbers with full precision; fields that do not apply are empty."""
    return csv_tables.csv_text([_record(summary, row) for row in summary.rows])


def _record(summary: Summary, row: Row) -> dict[str, Any]:
    gap = row.against_base
    compared = {name: getattr(gap, field, None) for name, field in GAP_COLUMNS.items()}
    compared |= {name: getattr(row.ratio, field, None) for name, field in RATIO_COLUMNS.items()}
    compared["verdict"] = gap and verdict(gap, summary.about.get("expects"))
    also = dict(further(summary, row))
    if summary.about.get("paper_points"):
        compared["paper_points"] = paper_point(summary, row)
    place = {"level": level_label(row), "setting": pairs_label(row.cell.setting), "tuned": pairs_label(row.tuned)}
    place["metric"] = summary.about["metric"]
    return dict(row.group) | place | row.sample._asdict() | compared | also | row.counts


GAP_COLUMNS = {
    "difference": "mean", "ci95_low": "low", "ci95_high": "high", "pairs": "pairs", "interval": "method",
    "comparisons": "family", "p": "p",
}  # fmt: skip
"""Columns of summary.csv from the fields of a `Difference`."""

RATIO_COLUMNS = {"ratio": "value", "ratio_ci95_low": "low", "ratio_ci95_high": "high"}
"""Likewise of a `Ratio`."""


def further(summary: Summary, row: Row) -> list[tuple[str, float | None]]:
    """The sweep's further metrics and their means in a row."""
    names = summary.about.get("also") or []
    return list(zip(names, row.also or [None] * len(names), strict=True))


def markdown(summary: Summary) -> str:
    """The summary as a page of Markdown."""
    parts = [f"# {title(summary)}", *introduction(summary), markdown_table(summary, *cells(summary))]
    if lines := verdict_lines(summary):
        parts += ["What the intervals say:", "\n".join(lines)]
    if summary.effects:
        parts += ["Each factor alone, averaged over the others within a seed:", "\n".join(effect_lines(summary))]
    return "\n\n".join([*parts, reading(summary)]) + "\n"


def markdown_table(summary: Summary, head: list[str], rows: list[list[str]]) -> str:
    """The summary's table with the columns of `cells`, or more."""
    lines = [head, [_alignment(summary, name) for name in head], *rows]
    return "\n".join(f"| {' | '.join(map(_markdown_cell, line))} |" for line in lines)


def _markdown_cell(text: str) -> str:
    """Escapes a text so that it neither ends its cell nor begins an HTML element."""
    return re.sub(r"([|<])", r"\\\1", text)


WORDS = ("data", "model", "setting", "tuned", "left out", "verdict")
"""Columns of words, besides that of the level; all others contain numbers."""


def _alignment(summary: Summary, name: str) -> str:
    return "---" if name in WORDS or name == factor_label(summary) else "---:"


def terminal_table(summary: Summary) -> Table:
    """The summary as a table of rich."""
    head, rows = cells(summary)
    table = Table(title=Text(title(summary)), title_justify="left", caption_justify="left")
    lines = [
        *introduction(summary),
        *filter(None, [correction(summary)]),
        *verdict_lines(summary),
        *effect_lines(summary),
    ]
    table.caption = Text("\n".join(lines)) or None
    for name in head:
        words = _alignment(summary, name) == "---"
        table.add_column(name, justify="left" if words else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # plain text: [red] is a value here, not markup
    return table


def introduction(summary: Summary) -> list[str]:
    """The paper's claim, and the network and images of the table."""
    about = summary.about
    lines = ("claim", "paper", "model", "data")
    return [printable(f"{name.capitalize()}: {about[name]}") for name in lines if about.get(name)]


def title(summary: Summary) -> str:
    """Its name and its metric."""
    kind = "" if summary.about.get("loose") else "Sweep "
    return printable(f"{kind}{summary.about.get('name') or ''}: {summary.about['metric']}".replace(" :", ":"))


def cells(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """The formatted head and rows, without empty columns."""
    rows = [_cells(summary, row) for row in summary.rows]
    optional = OPTIONAL if any(row.is_base for row in summary.rows) else (*OPTIONAL, *COMPARED)
    kept = [
        column for column, (name, _) in enumerate(rows[0])
        if not name.startswith(optional) or any(row[column][1] for row in rows)
    ]  # fmt: skip
    return [rows[0][column][0] for column in kept], [[row[column][1] for column in kept] for row in rows]


def _cells(summary: Summary, row: Row) -> list[tuple[str, str]]:
    """The heads and cells of a row."""
    about, gap, units = summary.about, row.against_base, Units(summary.about["metric"])
    mean, difference = ("mean, %", "difference, points") if units.per_cent else ("mean", "difference")
    left_out = ", ".join(f"{count} {LEFT_OUT[name]}" for name, count in row.counts.items() if count)
    found = [
        *row.group,
        (factor_label(summary), level_label(row)),
        ("setting", pairs_label(row.cell.setting)),
        ("tuned", pairs_label(row.tuned)),
        ("n", str(row.sample.n)),
        (mean, units.number(row.sample.mean)),
        ("deviation", units.number(row.sample.std)),
        (difference, "base" if row.is_base else units.signed(gap and gap.mean)),
        ("simultaneous 95 % interval" if family(summary) > 1 else "95 % interval", interval(gap, units)),
        ("p (Holm)", probability(gap)),
        ("ratio", "" if units.per_cent else times(row.ratio)),
        ("left out", left_out),
    ]
    if about.get("paper_points"):
        points = paper_point(summary, row)
        found.append(("paper, points", "" if points is None else f"{points:+g}"))
        found.append(("verdict", "" if gap is None else verdict(gap, about.get("expects"))))
    return found + [(heading(name), Units(name).number(value)) for name, value in further(summary, row)]


OPTIONAL = ("setting", "tuned", "p (Holm)", "ratio", "left out", "paper, points", "verdict")
"""Columns that are left out if empty."""

COMPARED = ("deviation", "difference", "simultaneous", "95 %")
"""How further columns begin that are left out if no levels are compared (a search, only seeds)."""


def heading(metric: str) -> str:
    """The head of a column of means.

    Example:
        >>> heading("gap/top1_error"), heading("val/top1_error"), heading("val/loss")
        ('gap, %', 'val/top1_error, %', 'val/loss')
    """
    return FURTHER.get(metric, metric) + (", %" if Units(metric).per_cent else "")


FURTHER = {"train_set/top1_error": "training error", "gap/top1_error": "gap"}
"""Names of further metrics in a table, if clearer than the metric's name."""


def factor_label(summary: Summary) -> str:
    """The head of the column of levels."""
    return " ".join(key.rpartition(".")[2] for key in summary.about["factor"])


def interval(gap: Difference | None, units: Units) -> str:
    """Such as `+0.80 to +1.60`, with enough digits for its ends to differ; otherwise why there is no interval."""
    if gap is None:
        return ""
    if gap.low is None or gap.high is None:
        return f"no interval: {NO_INTERVAL[gap.method]}"
    ends = ((units.signed(gap.low, more), units.signed(gap.high, more)) for more in range(MOST_DIGITS))
    low, high = next((pair for pair in ends if pair[0] != pair[1]), (units.signed(gap.low), units.signed(gap.high)))
    return f"{low} to {high}{' (Welch)' if gap.method == 'welch' else ''}"


def times(ratio: Ratio | None) -> str:
    """Such as `5.29x (4.60 to 6.02)`; without the interval if there is none, and empty without a ratio."""
    if ratio is None:
        return ""
    return f"{ratio.value:.2f}x" + ("" if ratio.low is None else f" ({ratio.low:.2f} to {ratio.high:.2f})")


NO_INTERVAL = {"equal": "all differences are equal", "none": "n too small"}
"""Why a difference has no interval, by its method."""

MOST_DIGITS = 7
"""The most additional digits of an interval."""


def verdict(gap: Difference, expected: str | None) -> str:
    """The verdict of these seeds, from the interval alone.

    Args:
        gap: The difference from the base.
        expected: The claim's direction, "higher" or "lower" than the base; None if it has none.

    Returns:
        supported, contradicted, or undecided if the interval contains 0 or does not exist; without an expectation
        higher, lower, or undecided.
    """
    if gap.low is None or gap.high is None or gap.low <= 0 <= gap.high:
        return "undecided"
    found = "higher" if gap.low > 0 else "lower"
    if expected is None:
        return found
    return "supported" if found == expected else "contradicted"


def verdict_lines(summary: Summary) -> list[str]:
    """The verdict on each level, in a line."""
    units = Units(summary.about["metric"])
    return [
        f"- {row_label(row)}: {_verdict_words(row.against_base, summary.about.get('expects'), units)}"
        for row in summary.rows
        if row.against_base is not None
    ]


def row_label(row: Row) -> str:
    """The level and its place in the table."""
    return " ".join(filter(None, [*(value for _, value in row.group), level_label(row), pairs_label(row.cell.setting)]))


def _verdict_words(gap: Difference, expected: str | None, units: Units) -> str:
    word = verdict(gap, expected)
    if gap.method == "equal":
        return f"{word}: all differences are {units.signed(gap.mean)}, so no interval can be given"
    if gap.low is None or gap.high is None:
        return f"{word}: too few seeds for an interval"
    side = "lies above 0" if gap.low > 0 else "lies below 0" if gap.high < 0 else "contains 0"
    return f"{word} by these seeds: the interval {side}"


def family(summary: Summary) -> int:
    """The number of comparisons in the table, for which intervals and p are corrected; 0 if nothing is compared."""
    return max((row.against_base.family for row in summary.rows if row.against_base), default=0)


def probability(gap: Difference | None) -> str:
    """The adjusted p value of one of several comparisons; empty for a single one."""
    return p_value(gap.p) if gap and gap.family > 1 else ""


def correction(summary: Summary) -> str:
    """The correction in a table of several comparisons; empty for a single one."""
    count = family(summary)
    if count < 2:
        return ""
    where = "Within each data set, up to " if _groups(summary) > 1 else ""
    return (
        f"{where}{count} comparisons: the intervals hold together (Bonferroni, {100 - 5 / count:.1f} % each), and p is "
        f"adjusted by Holm's method, which may show a difference whose interval still contains 0."
    )


def effect_lines(summary: Summary) -> list[str]:
    """The effect of each of several factors, in a line."""
    units = Units(summary.about["metric"])
    lines = []
    for effect in summary.effects:
        gap = effect.against_base
        p = f"; p {probability(gap)}" if probability(gap) else ""
        spread = "" if gap.method == "none" else f" ({interval(gap, units)}{p})"
        lines.append(
            printable(f"- {effect.key}={effect.level} against {effect.base}: ") + f"{units.signed(gap.mean)}"
            f"{' points' * units.per_cent}{spread}, {counted(gap.pairs, 'seed')}"
        )
    return lines


def reading(summary: Summary) -> str:
    """How to read the table."""
    where = " on the validation part" if summary.about["metric"].startswith("test/") else ""
    tuned = (
        f"The tuned keys are those of each level's best mean{where}." if any(row.tuned for row in summary.rows) else ""
    )
    apart = "Runs on different images are not compared." if _groups(summary) > 1 else ""
    compared = family(summary) > 0
    differences = (
        "; difference to the base over the seeds that both have, with the 95 % interval of Student's t over these "
        "pairs (Welch's where seeds do not pair)"
    )
    basis = f"n jobs per level; sample deviation{differences if compared else ''}."
    fractions = Units(summary.about["metric"]).per_cent
    ratios = "The ratio of the means has Fieller's interval." if compared and not fractions else ""
    hardware = OTHER_HARDWARE if summary.counts["other_hardware"] else ""
    return " ".join(part for part in (basis, ratios, tuned, apart, hardware, correction(summary)) if part)


OTHER_HARDWARE = (
    "Two runs of a seed are a pair only if the same kind of hardware (processor or GPU) computed both; the other runs "
    "count in n and mean, not in the difference."
)


def _groups(summary: Summary) -> int:
    return len({dict(row.group).get("data") for row in summary.rows})


def level_label(row: Row) -> str:
    """`lrn`; with several factors `norm=across local3=32`."""
    level = row.cell.level
    return printable(level[0][1]) if len(level) == 1 else pairs_label(level) or "all"


def paper_point(summary: Summary, row: Row) -> float | None:
    """The paper's difference for a level that differs from the base in one factor; None without one."""
    points = summary.about.get("paper_points") or {}
    base = next((other.cell.level for other in summary.rows if other.is_base), ())
    changed = [value for key, value in row.cell.level if (key, value) not in base]
    return points.get(changed[0] if len(changed) == 1 else level_label(row))


def pairs_label(pairs: tuple[tuple[str, str], ...]) -> str:
    """Keys by their last part, with their values."""
    return printable(" ".join(f"{key.rpartition('.')[2]}={value}" for key, value in pairs))


class Units:
    """Formats the numbers of a metric: error rates in per cent, others with four digits."""

    def __init__(self, metric: str) -> None:
        self.per_cent = metric.endswith("_error")

    def number(self, value: float | None) -> str:
        """A mean or a deviation."""
        if value is None:
            return ""
        return f"{100 * value:.2f}" if self.per_cent else f"{value:.4g}"

    def signed(self, value: float | None, more: int = 0) -> str:
        """A difference, with `more` digits than usual."""
        if value is None:
            return ""
        return f"{100 * value:+.{2 + more}f}" if self.per_cent else f"{value:+.{4 + more}g}"
