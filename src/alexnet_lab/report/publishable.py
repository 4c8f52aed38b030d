"""The published files of a sweep, and a check whether they name the machine that computed them."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from alexnet_lab.base.checked_files import read_text
from alexnet_lab.base.errors import RunError

if TYPE_CHECKING:
    from pathlib import Path

RECORDS = (
    "README.md", "*.json", "ledger.jsonl", "summary.csv", "summary.md", "eval/*.json", "*/eval/*.json",
    "*/config.yaml", "*/result.json", "*/manifest.json", "*/metrics.csv",
)  # fmt: skip
"""Patterns of the text files of a sweep that are published; .gitignore has the same ones."""

ABSOLUTE = re.compile(r"""(?:(?<=["'`=\[(,\s])|^)~?/(?:[\w.@+-]+/)*[\w.@+-]+""", re.ASCII | re.MULTILINE)
"""An absolute path."""


def local_names(folder: Path) -> dict[str, str]:
    """The published files that name an absolute path or this machine, each with the first such name.

    Args:
        folder: Of a sweep.
    """
    paths = sorted(path for pattern in RECORDS for path in folder.glob(pattern))
    found = {path.relative_to(folder).as_posix(): _local_name(path) for path in paths}
    return {path: name for path, name in found.items() if name}


def _local_name(path: Path) -> str:
    try:
        text = read_text(path, errors="replace")
    except (FileNotFoundError, RunError):
        return ""
    host = re.escape(socket.gethostname())
    match = ABSOLUTE.search(text) or re.search(rf"(?<![\w.-]){host}(?![\w.-])", text)
    return match.group() if match else ""
