"""The folder of the data sets in files that are published: named by the variable that chose it, not by its path."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

DATA_VARIABLE = "ALEXNET_LAB_DATA"
"""The environment variable for the default of `data.dir`."""

BY_VARIABLE = f"${DATA_VARIABLE}"
"""Stands for the variable's folder in the config.yaml of a published run."""

PUBLISHED = "results"
"""The folder of the repository for published sweeps, whose files go into git and to other machines."""


def is_published(path: Path) -> bool:
    """Whether a run or a sweep lies in `results/`, seen from here."""
    return not path.is_absolute() and path.parts[:1] == (PUBLISHED,)


def with_variable(config: dict[str, Any]) -> dict[str, Any]:
    """A run's config with `data.dir` as `$ALEXNET_LAB_DATA`, if that variable is where it comes from."""
    data = config["data"]
    chosen = os.environ.get(DATA_VARIABLE)
    return config if chosen is None or data.get("dir") != chosen else config | {"data": data | {"dir": BY_VARIABLE}}


def without_variable(config: dict[str, Any]) -> dict[str, Any]:
    """A config as `with_variable` left it, with the folder that the variable names here, or else the default `data`."""
    data = config.get("data")
    if not isinstance(data, dict) or data.get("dir") != BY_VARIABLE:
        return config
    return config | {"data": data | {"dir": os.environ.get(DATA_VARIABLE) or "data"}}
