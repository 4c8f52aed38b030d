"""The folder of a report: a new or empty folder, that of an earlier report, or the sweep's own directory."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.files import try_folder

if TYPE_CHECKING:
    from alexnet_lab.config.schema import Report

PAGE = "report.html"

MARK = '<meta name="generator" content="alexnet-lab report">'
"""Marks each page, and so distinguishes a report from other folders."""

OTHERS = ("sweep.json", "config.yaml", "result.json")
"""Files of a sweep or a run; their folder is no place for a report on something else."""


def report_folder(config: Report) -> Path:
    """The folder in `out`, or the default, checked before any run is read.

    Raises:
        ConfigError: It cannot be written, or contains something other than a report.
    """
    sweep = None if config.sweep is None else Path(config.sweep)
    folder = Path(config.out) if config.out is not None else sweep or _free_folder()
    try:
        _check(folder, sweep)
    except OSError as error:
        raise ConfigError(f"the report cannot go to {folder}: {error.strerror or error}; choose {OUT}") from error
    return folder


OUT = "another folder: out=DIR"


def _free_folder() -> Path:
    """`logs/reports/<date>_<time>`, with a number if two reports start in one second."""
    name = f"logs/reports/{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return next(path for path in map(Path, itertools.chain([name], numbered)) if not os.path.lexists(path))


def _check(folder: Path, sweep: Path | None) -> None:
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise ConfigError(f"the report cannot go to {folder}: {there} is no folder; choose {OUT}")
    own = sweep is not None and sweep.is_dir() and there.samefile(sweep)
    if there == folder and not own and any(folder.iterdir()) and not is_report(folder):
        raise ConfigError(f"the report cannot go to {folder}: the folder contains other files; choose {OUT}")
    try_folder(folder)


def is_report(folder: Path) -> bool:
    """Whether a folder contains a report and nothing that a report would overwrite."""
    page = folder / PAGE
    if not page.is_file() or any((folder / name).exists() for name in OTHERS):
        return False
    with page.open("rb") as file:
        return MARK.encode() in file.read(2000)
