"""The names of an evaluation's files: a name identifies one evaluation, and no other one overwrites it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from alexnet_lab.base import shell
from alexnet_lab.base.checked_files import read_json
from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.base.files import try_folder
from alexnet_lab.config.schema import Evaluate

SPLITS, VIEWS = (get_args(Evaluate.model_fields[key].annotation) for key in ("split", "views"))

DEFAULTS = {f"{split}_{views}": f"split={split} views={views}" for split in SPLITS for views in VIEWS}
"""The default names of evaluations of a single run."""


TABLES = ("_confusion.csv", "_classes.csv", "_images.csv")
"""The suffixes of an evaluation's tables."""


def out_folder(out: str) -> Path:
    """The folder in `out`, checked before any run is read.

    Raises:
        ConfigError: It is a file, or cannot be written.
    """
    folder = Path(out)
    if folder.suffix == ".json" and not folder.is_dir():
        words = shell.join([shell.override("out", folder.parent), shell.override("name", folder.stem)])
        raise ConfigError(f"`out` is {out}, a file; allowed: a folder, with `name` for the file in it: {words}")
    try:
        try_folder(folder)
    except OSError as error:
        raise ConfigError(
            f"the evaluation cannot go to {folder}: {error.strerror or error}; choose another folder: out=DIR"
        ) from error
    return folder


def chosen_name(
    folder: Path, given: str | None, default: str, about: Mapping[str, Any], *, shared: bool = False
) -> str:
    """The requested or default name; the default gets a number if another evaluation uses it.

    Args:
        folder: Of the evaluations.
        given: The user's choice, or None.
        default: The default name of this evaluation.
        about: The fields of `<name>.json` that identify an evaluation.
        shared: Whether the folder may contain other files, none of which is overwritten. In a run's own folder, a
            damaged file is overwritten.

    Raises:
        ConfigError: The given name belongs to another evaluation.
    """
    if given is None:
        names = itertools.chain([default], (f"{default}_{number}" for number in itertools.count(2)))
        return next(name for name in names if _obstacle(folder, name, about, shared=shared) is None)
    other = DEFAULTS.get(given.lower())
    if other is not None and given != default:
        raise ConfigError(f"`name` is {given}, the name of the evaluation {other}; choose another name")
    obstacle = _obstacle(folder, given, about, shared=shared)
    if obstacle is not None:
        raise ConfigError(f"`name` is {given}, but {obstacle}; choose another name")
    return given


def _obstacle(folder: Path, name: str, about: Mapping[str, Any], *, shared: bool) -> str | None:
    """The reason why an evaluation cannot use a name, or None."""
    path = folder / f"{name}.json"
    try:
        there = read_json(path)
    except (FileNotFoundError, RunError):
        there = None
    if isinstance(there, dict):
        difference = _difference(there, about, shared=shared)
        return None if difference is None else f"that file contains another evaluation ({difference})"
    others = [path.with_name(f"{name}{end}") for end in (".json", *TABLES)] if shared else []
    return next((f"{other} is no evaluation" for other in others if os.path.lexists(other)), None)


def _difference(there: Mapping[str, Any], about: Mapping[str, Any], *, shared: bool) -> str | None:
    """How the evaluation in a file differs, or None."""
    for key, value in about.items():
        if _compared(key, there.get(key), shared=shared) != _compared(key, value, shared=shared):
            return f"{key}: {there.get(key)}, not {value}"
    return None


def _compared(key: str, value: Any, *, shared: bool) -> Any:
    """A field as it is compared: places by their real path, runs without the one whose own folder this is."""
    if key == "data_root" and isinstance(value, str):
        return os.path.realpath(value)
    if key == "runs" and isinstance(value, list):
        return value[1:]
    if key == "checkpoints" and isinstance(value, list):
        return value if shared else value[1:]
    return list(value.values()) if isinstance(value, dict) else value
