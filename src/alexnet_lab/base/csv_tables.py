"""Tables as CSV text: rows are dictionaries, columns appear in the order of their first use."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    r"""Rows as the text of a CSV file; missing values are empty cells.

    Args:
        rows: Of the table, by column.
        columns: Of the table; None: those of the rows.

    Example:
        >>> csv_text([{"epoch": 1}, {"epoch": 2, "val/loss": 0.5}])
        'epoch,val/loss\n1,\n2,0.5\n'
    """
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    return csv_lines([columns, *([row.get(name) for name in columns] for row in rows)])


def csv_lines(rows: Iterable[Iterable[Any]]) -> str:
    """Rows of cells as the text of a CSV file."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()
