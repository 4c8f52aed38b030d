"""A sweep's summary as text: numbers for machines (CSV), tables for people (Markdown, terminal)."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from alexnet_lab.base.printable import printable

if TYPE_CHECKING:
    from alexnet_lab.sweeps.statistics import Difference
    from alexnet_lab.sweeps.summary import Row, Summary

COUNT_WORDS = {
    "failed": "failed", "interrupted": "interrupted", "unreadable": "unreadable", "to_go": "to go",
    "pruned": "ended early", "other_images": "on other images", "empty": "without a value",
}  # fmt: skip
"""Jobs that a row's n leaves out, in words."""


def csv_text(summary: Summary) -> str:
    """All numbers in full; fields that do not apply are empty."""
    rows = [_record(summary, row) for row in summary.rows]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else ["level"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _record(summary: Summary, row: Row) -> dict[str, Any]:
    gap = row.against_base
    numbers = {"n": row.sample.n, "mean": row.sample.mean, "std": row.sample.std}
    compared = {
        "difference": gap and gap.mean,
        "ci95_low": gap and gap.low,
        "ci95_high": gap and gap.high,
        "pairs": gap and gap.pairs,
        "interval": gap and gap.method,
        "comparisons": gap and gap.family,
        "p": gap and gap.p,
        "ratio": row.ratio,
    }
    place = {"level": level_label(row), "setting": pairs_label(row.cell.setting), "tuned": pairs_label(row.tuned)}
    return place | {"metric": summary.about["metric"]} | numbers | compared | row.counts


def markdown(summary: Summary) -> str:
    """The summary as a page of Markdown."""
    parts = [f"# {title(summary)}", *told(summary), _markdown_table(summary)]
    if summary.effects:
        parts += ["Each factor alone, averaged over the others within a seed:", "\n".join(effect_lines(summary))]
    return "\n\n".join([*parts, reading(summary)]) + "\n"


def _markdown_table(summary: Summary) -> str:
    head, rows = cells(summary)
    lines = [head, ["---"] + ["---:"] * (len(head) - 2) + ["---"], *rows]
    return "\n".join(f"| {' | '.join(map(_markdown_cell, line))} |" for line in lines)


def _markdown_cell(text: str) -> str:
    """A text that neither ends its cell nor begins an HTML element."""
    return re.sub(r"([|<])", r"\\\1", text)


def terminal_table(summary: Summary) -> Table:
    """The summary as a table of rich."""
    head, rows = cells(summary)
    table = Table(title=Text(title(summary)), title_justify="left", caption_justify="left")
    table.caption = (
        Text("\n".join([*told(summary), *filter(None, [correction(summary)]), *effect_lines(summary)])) or None
    )
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number in (0, len(head) - 1) else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # as they are: [red] is a value here, not markup
    return table


def told(summary: Summary) -> list[str]:
    """What the paper says."""
    about = summary.about
    return [printable(f"{name.capitalize()}: {about[name]}") for name in ("claim", "paper") if about.get(name)]


def title(summary: Summary) -> str:
    """Its name and its metric."""
    return printable(f"Sweep {summary.about.get('name') or ''}: {summary.about['metric']}".replace(" :", ":"))


def cells(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """The head and the rows, formatted; columns that no row fills are left out."""
    units = Units(summary.about["metric"])
    factor = " ".join(key.rpartition(".")[2] for key in summary.about["factor"])
    mean, gap = ("mean, %", "difference, points") if units.per_cent else ("mean", "difference")
    span = "simultaneous 95 % interval" if family(summary) > 1 else "95 % interval"
    head = [factor, "setting", "tuned", "n", mean, "deviation", gap, span, "p (Holm)", "ratio", "left out"]
    base = summary.rows[0].cell.level
    rows = [_cells(row, units, is_base=bool(base) and row.cell.level == base) for row in summary.rows]
    optional = OPTIONAL if base else (*OPTIONAL, *COMPARED)
    empty = {column for column in optional if not any(row[column] for row in rows)}
    kept = [column for column in range(len(head)) if column not in empty]
    return [head[column] for column in kept], [[row[column] for column in kept] for row in rows]


OPTIONAL = (1, 2, 8, 9, 10)
"""The columns that are left out where no row fills them."""

COMPARED = (5, 6, 7)
"""The deviation and the comparison: likewise, where no levels are compared (a search, seeds alone)."""


def _cells(row: Row, units: Units, *, is_base: bool) -> list[str]:
    gap = row.against_base
    left_out = ", ".join(f"{count} {COUNT_WORDS[name]}" for name, count in row.counts.items() if count)
    return [
        level_label(row),
        pairs_label(row.cell.setting),
        pairs_label(row.tuned),
        str(row.sample.n),
        units.number(row.sample.mean),
        units.number(row.sample.std),
        "base" if gap is None and is_base else units.signed(gap and gap.mean),
        interval(gap, units),
        probability(gap),
        "" if row.ratio is None or units.per_cent else f"{row.ratio:.2f}x",
        left_out,
    ]


def interval(gap: Difference | None, units: Units) -> str:
    """Such as `+0.80 to +1.60`; Welch's and few pairs say so."""
    if gap is None or gap.low is None:
        return ""
    return f"{units.signed(gap.low)} to {units.signed(gap.high)}{' (Welch)' if gap.method == 'welch' else ''}"


def family(summary: Summary) -> int:
    """How many comparisons the table makes; more than one are corrected for."""
    return max((row.against_base.family for row in summary.rows if row.against_base), default=1)


def probability(gap: Difference | None) -> str:
    """The adjusted p value of one of several comparisons, as `0.012`; empty for a single one."""
    if gap is None or gap.family < 2 or gap.p is None:
        return ""
    return f"{gap.p:.3f}" if gap.p >= 0.001 else "<0.001"


def correction(summary: Summary) -> str:
    """What is corrected for in a table of several comparisons; empty for a single one."""
    count = family(summary)
    if count < 2:
        return ""
    return (
        f"{count} comparisons: the intervals hold together (Bonferroni, {100 - 5 / count:.1f} % each), and p is "
        f"adjusted by Holm's method, which may show a difference whose interval still holds 0."
    )


def effect_lines(summary: Summary) -> list[str]:
    """Of several factors each one's own effect, in a line."""
    units = Units(summary.about["metric"])
    lines = []
    for effect in summary.effects:
        gap = effect.against_base
        p = f"; p {probability(gap)}" if probability(gap) else ""
        spread = f" ({interval(gap, units)}{p})" if gap.low is not None else ""
        lines.append(
            printable(f"- {effect.key}={effect.level} against {effect.base}: ") + f"{units.signed(gap.mean)}"
            f"{' points' * units.per_cent}{spread}, {gap.pairs} {'seed' if gap.pairs == 1 else 'seeds'}"
        )
    return lines


def reading(summary: Summary) -> str:
    """How to read the table."""
    where = " on the validation part" if summary.about["metric"].startswith("test/") else ""
    tuned = f"The tuned keys are those of each level's best mean{where}." if _tuned(summary) else ""
    basis = (
        "n jobs per level; sample deviation; difference to the base over the seeds that both have, with the 95 % "
        "interval of Student's t over these pairs (Welch's where seeds do not pair)."
    )
    return " ".join(part for part in (basis, tuned, correction(summary)) if part)


def _tuned(summary: Summary) -> bool:
    return any(row.tuned for row in summary.rows)


def level_label(row: Row) -> str:
    """`lrn`; of several factors `norm=across local3=32`."""
    level = row.cell.level
    return printable(level[0][1]) if len(level) == 1 else pairs_label(level) or "all"


def pairs_label(pairs: tuple[tuple[str, str], ...]) -> str:
    """Keys by their last part, with their values."""
    return printable(" ".join(f"{key.rpartition('.')[2]}={value}" for key, value in pairs))


class Units:
    """How the numbers of a metric are written: error rates in per cent, others to four digits."""

    def __init__(self, metric: str) -> None:
        self.per_cent = metric.endswith("_error")

    def number(self, value: float | None) -> str:
        """A mean or a deviation."""
        if value is None:
            return ""
        return f"{100 * value:.2f}" if self.per_cent else f"{value:.4g}"

    def signed(self, value: float | None) -> str:
        """A difference."""
        if value is None:
            return ""
        return f"{100 * value:+.2f}" if self.per_cent else f"{value:+.4g}"
