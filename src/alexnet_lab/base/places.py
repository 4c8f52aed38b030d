"""In published files, names the folder of the data sets by its environment variable instead of its path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

DATA_VARIABLE = "ALEXNET_LAB_DATA"
"""The environment variable for the default of `data.dir`."""

BY_VARIABLE = f"${DATA_VARIABLE}"
"""The placeholder for the variable's folder in the config.yaml of a published run."""

PUBLISHED = "results"
"""The folder of the repository for published sweeps, whose files go into git and to other machines."""


def is_published(path: Path) -> bool:
    """Whether a run or a sweep is in `results/`, relative to the current directory."""
    return not path.is_absolute() and path.parts[:1] == (PUBLISHED,)


def with_variable(config: dict[str, Any]) -> dict[str, Any]:
    """A run's config with `data.dir` as `$ALEXNET_LAB_DATA`, if it comes from that variable."""
    data = config["data"]
    chosen = os.environ.get(DATA_VARIABLE)
    return config if chosen is None or data.get("dir") != chosen else config | {"data": data | {"dir": BY_VARIABLE}}


def without_variable(config: dict[str, Any]) -> dict[str, Any]:
    """Reverses `with_variable`: with the folder of the variable on this machine, otherwise the default `data`."""
    data = config.get("data")
    if not isinstance(data, dict) or data.get("dir") != BY_VARIABLE:
        return config
    return config | {"data": data | {"dir": os.environ.get(DATA_VARIABLE) or "data"}}
