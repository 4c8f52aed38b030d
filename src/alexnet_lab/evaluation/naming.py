"""The names of an evaluation's files: a name stands for one evaluation, and no other one overwrites it."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any, get_args

from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.base.records import read_json
from alexnet_lab.config.schema import Evaluate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SPLITS, VIEWS = (get_args(Evaluate.model_fields[key].annotation) for key in ("split", "views"))

DEFAULTS = {f"{split}_{views}": f"split={split} views={views}" for split in SPLITS for views in VIEWS}
"""The names that evaluations of a single run have by default."""


def chosen_name(folder: Path, given: str | None, default: str, about: Mapping[str, Any]) -> str:
    """The name that was asked for, or the default one; with a number where another evaluation has that.

    Args:
        folder: Of the evaluations.
        given: By the user; None: no name.
        default: Of this evaluation.
        about: The fields of `<name>.json` that tell evaluations apart.

    Raises:
        ConfigError: The given name belongs to another evaluation.
    """
    if given is None:
        names = itertools.chain([default], (f"{default}_{number}" for number in itertools.count(2)))
        return next(name for name in names if _difference(folder / f"{name}.json", about) is None)
    other = DEFAULTS.get(given.lower())
    if other is not None and given != default:
        raise ConfigError(f"`name` is {given}, the name of the evaluation {other}; choose another name")
    difference = _difference(folder / f"{given}.json", about)
    if difference is not None:
        raise ConfigError(
            f"`name` is {given}, but that file holds another evaluation ({difference}); choose another name"
        )
    return given


def _difference(path: Path, about: Mapping[str, Any]) -> str | None:
    """How the evaluation in a file differs; None where it does not, or no evaluation can be read."""
    try:
        there = read_json(path)
    except (FileNotFoundError, RunError):
        return None
    if not isinstance(there, dict):
        return None
    for key, value in about.items():
        if _compared(key, there.get(key)) != _compared(key, value):
            return f"{key}: {there.get(key)}, not {value}"
    return None


def _compared(key: str, value: Any) -> Any:
    """A field as it is compared: places by where they lead, runs without the one whose folder this is."""
    if key == "data_root" and isinstance(value, str):
        return os.path.realpath(value)
    if key == "runs" and isinstance(value, list):
        return value[1:]
    return list(value.values()) if isinstance(value, dict) else value
