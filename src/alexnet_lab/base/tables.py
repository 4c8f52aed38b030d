"""Tables as CSV text: rows are dictionaries, columns stand in the order in which they first come."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    r"""Rows as the text of a CSV file; what a row lacks is an empty cell.

    Example:
        >>> csv_text([{"epoch": 0}, {"epoch": 1, "val/loss": 0.5}])
        'epoch,val/loss\n0,\n1,0.5\n'
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
