"""`resume=RUN` with further words: what the command line changes in the run, in Hydra's grammar.

Hydra composes the defaults of `configs/`, which differ from the run's config. It therefore gets only the words that
choose files. This module parses the other words, and `continuing` applies both to the run's own config.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexnet_lab.base import shell
from alexnet_lab.base.errors import ConfigError, one_line
from alexnet_lab.base.flatten import flat, within
from alexnet_lab.config.command_line import PATHS, expanded
from alexnet_lab.config.continuing import FREE, differences
from alexnet_lab.config.hydra_adapter import arguments

OWN = ("resume", "resume_force", "trusted_packages")
"""Keys that control how a run is resumed."""

SECTIONS = ("trainer", "callbacks")
"""Groups in which a chosen file changes only the keys that it sets differently from the group's default."""

NO_RUN = ("resume=", "resume=null")
"""Words that resume nothing."""

NEW_RUNS = ("sweep", "debug")
"""Groups whose files describe new runs."""


def key_of(word: str) -> str:
    """The key or group that a word sets."""
    return shell.override_key(word).partition("@")[0]


def is_value(word: str, groups: set[str]) -> bool:
    """Whether a word sets a value of the run's config, as opposed to choosing a file or configuring Hydra."""
    key = key_of(word)
    chooses = "/" in key or key in groups
    sets = "=" in word or word.startswith("~")
    return sets and not chooses and key not in OWN and not key.startswith("hydra.")


def set_aside(config_dir: Path) -> list[str] | None:
    """Removes the words that set values of a run from `sys.argv`, because Hydra would look them up in its defaults.

    Returns:
        All overrides of the command line if it resumes a run, else None.
    """
    given = arguments()
    shows = given.multirun or given.cfg or given.info or given.help or given.hydra_help
    if shows or not any(word.startswith("resume=") and word not in NO_RUN for word in given.overrides):
        return None
    groups = group_names(config_dir)
    values = {word for word in given.overrides if is_value(word, groups)}
    sys.argv[1:] = [word for word in sys.argv[1:] if word not in values]
    return given.overrides


def request(composed: dict[str, Any], words: list[str], config_dir: Path, config_name: str) -> dict[str, Any]:
    """The request with which `run.train` resumes a run.

    Args:
        composed: The config that Hydra composed from the other words.
        words: Of the command line.
        config_dir: The folder of the yaml files.
        config_name: The primary config in it.

    Returns:
        `resume`, `resume_force`, `trusted_packages`, `overrides` (the words), and `changes`: values by dotted key.

    Raises:
        ConfigError: A word adds, deletes or sweeps a key, or chooses a file that describes another experiment.
    """
    run = composed["resume"]
    if not isinstance(run, str):
        raise ConfigError(f"`resume` is {run!r} ({type(run).__name__}); allowed: string")
    groups = group_names(config_dir)
    overrides = OverridesParser.create().parse_overrides(words)
    changes: dict[str, Any] = {}
    for item in overrides:
        if item.is_delete():
            raise _no_value(item)
        if "/" not in item.key_or_group and item.key_or_group in groups:
            changes |= chosen(item, composed, config_name)
    for item in overrides:
        if is_value(str(item.input_line), groups):
            changes |= set_value(item)
    changes |= {key: expanded(changes[key]) for key in PATHS if isinstance(changes.get(key), str)}
    return {key: composed[key] for key in OWN} | {"overrides": words, "changes": changes}


def group_names(config_dir: Path) -> set[str]:
    """The groups of the config."""
    return {folder.name for folder in config_dir.iterdir() if folder.is_dir()}


def chosen(item: Override, composed: dict[str, Any], config_name: str) -> dict[str, Any]:
    """The changes that a file of a group makes to the run."""
    group = item.key_or_group
    if group in NEW_RUNS:
        raise ConfigError(f"`{item.input_line}` describes new runs, but resume= continues one; leave one of them out")
    if group not in SECTIONS:
        return {group: composed[group]}
    default = OmegaConf.to_container(compose(config_name)[group], resolve=True)
    values = flat(composed[group], f"{group}.")
    differing = [change.key for change in differences({group: default}, {group: composed[group]})]
    if not differing:  # the default itself: resets everything that is free
        return {key: value for key, value in values.items() if within(key, FREE)}
    return {key: value for key, value in values.items() if within(key, differing)}


def set_value(item: Override) -> dict[str, Any]:
    """The resolved value that a word sets; a dictionary is split into its keys."""
    if item.is_sweep_override() or (item.is_add() and not item.is_force_add()):
        raise _no_value(item)
    try:
        value = cast("Any", OmegaConf.to_container(OmegaConf.create({"value": item.value()}), resolve=True))["value"]
    except OmegaConfBaseException as error:
        problem = one_line(error.msg or error).split(" full_key:")[0]
        raise ConfigError(f"`{item.input_line}`: {problem}; with resume= a value cannot refer to other keys") from error
    return flat(value, f"{item.key_or_group}.") if isinstance(value, dict) and value else {item.key_or_group: value}


def _no_value(item: Override) -> ConfigError:
    return ConfigError(f"`{item.input_line}`: with resume= a word sets one key of the run to one value: key=value")
