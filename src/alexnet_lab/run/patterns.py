"""Run directories by name or pattern: one rule for eval.py and report.py."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from alexnet_lab.base.errors import RunError


def is_run(path: str | Path) -> bool:
    """Whether a path is the directory of a run, possibly a damaged one."""
    return Path(path).is_dir() and any(os.path.lexists(Path(path) / name) for name in ("config.yaml", "result.json"))


def run_names(patterns: Sequence[str], key: str) -> list[str]:
    """The names in `patterns`, with each pattern replaced by the run directories that it matches, in sorted order.

    A name is kept as it is if it exists or has no wildcard, so `logs/a[1]` names the directory `logs/a[1]`. Matches of
    a pattern that are not runs (`summary.csv` in a sweep) are skipped.

    Args:
        patterns: Names, or patterns such as `logs/sweeps/ideas/base_seed-*`.
        key: Of the command line, for the message.

    Raises:
        RunError: A pattern matches no run.
    """
    return [name for pattern in patterns for name in _matches(pattern, key)]


def _matches(pattern: str, key: str) -> list[str]:
    if os.path.lexists(pattern) or not glob.has_magic(pattern):
        return [pattern]
    runs = [name for name in sorted(glob.glob(pattern)) if is_run(name)]  # noqa: PTH207 - absolute patterns too
    if not runs:
        raise RunError(f"no runs found by {key}={pattern}; a run is a directory with a config.yaml")
    return runs
