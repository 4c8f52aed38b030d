"""Rewrites the words of a command line for Hydra: flags come before overrides, and paths are quoted where needed."""

from __future__ import annotations

import os
import re
import shlex
from argparse import Action
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from alexnet_lab.base.errors import ConfigError, did_you_mean
from alexnet_lab.base.flatten import at
from alexnet_lab.base.places import DATA_VARIABLE
from alexnet_lab.base.shell import quoted, to_type
from alexnet_lab.config import hydra_adapter

PATHS = (
    "run_dir", "resume", "init_from", "data.dir", "data.root", "data.test_folder", "data.val_folder", "sweep.dir",
    "hydra.sweep.dir", "run", "runs", "sweep", "out",
)  # fmt: skip
"""Keys that hold a path or a list of paths: `~` is the home directory, and quotes are added where needed."""

LOGGERS = re.compile(r"logger=\[([\w, -]*)\]")
"""Several files of the group `logger`."""

PATH_FLAGS = ("config_dir", "config_path")
"""Flags, by argparse's names, that take a path. A shell does not expand `~` after `=`."""


def arranged(words: Iterable[str], own: Mapping[str, str] | None = None) -> list[str]:
    """The same command line with its flags first.

    Args:
        words: Without the name of the script.
        own: Flags that Hydra does not know, and the override for each.

    Raises:
        ConfigError: A flag does not exist or lacks its value.
    """
    flags: list[str] = []
    overrides: list[str] = []
    known = own or {}
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word in known:
            overrides.append(known[word])
        elif word.startswith("-"):
            flags += _flag(word, waiting, known)
        else:
            overrides.append(_with_quoted_path(word))
    return flags + with_several_loggers(overrides)


def with_several_loggers(words: Iterable[str]) -> list[str]:
    """Rewrites `logger=[a,b]` for Hydra: the first as the group, each further one under its own name.

    Example:
        >>> with_several_loggers(["logger=[wandb,csv,tensorboard]", "seed=1"])
        ['logger=wandb', '+logger@logger.tensorboard=tensorboard', 'seed=1']
    """
    arranged_words: list[str] = []
    for word in words:
        listed = LOGGERS.fullmatch(word)
        if listed is None:
            arranged_words.append(word)
            continue
        names = [name for name in map(str.strip, listed[1].split(",")) if name not in ("", "csv")]  # csv adds nothing
        arranged_words.append(f"logger={names[0] if names else 'csv'}")
        arranged_words += [f"+logger@logger.{name}={name}" for name in names[1:]]
    return arranged_words


def _flag(word: str, waiting: list[str], own: Iterable[str]) -> list[str]:
    """A flag with its value, which follows `=` or is the next word."""
    name, equals, given = word.partition("=")
    action = _action(name, own)
    choices = [str(choice) for choice in action.choices or ()]
    if action.nargs == 0:
        if equals:
            raise ConfigError(f"`{name}` takes no value, got {given!r}")
        return [word]
    if action.nargs == "?" and not equals and (not waiting or waiting[0] not in choices):
        return [word, str(action.const)]
    if not equals and not waiting:
        raise ConfigError(f"`{name}` needs a value" + (f": {', '.join(choices)}" if choices else ""))
    value = given if equals else waiting.pop(0)
    if choices and value not in choices:
        raise ConfigError(f"`{name}` is {value!r}; {did_you_mean(value, choices)}")
    value = expanded(value) if action.dest in PATH_FLAGS else value
    return [f"{name}={value}"] if equals else [name, value]


def _action(name: str, own: Iterable[str]) -> Action:
    """The parser action of a flag, which may be abbreviated if it stays unambiguous."""
    flags = hydra_adapter.flags()
    if name in flags:
        return flags[name]
    found = {id(action): action for flag, action in flags.items() if name.startswith("--") and flag.startswith(name)}
    if len(found) != 1:
        raise ConfigError(f"unknown flag `{name}`; {did_you_mean(name, [*own, *flags])}")
    return next(iter(found.values()))


def _with_quoted_path(word: str) -> str:
    """Quotes a path that Hydra's grammar would not accept, e.g. one that starts with `~` or contains `=`."""
    key, equals, value = word.partition("=")
    if equals and not key.strip("+~ "):
        raise ConfigError(explain_unreadable(word))
    if not equals or key.lstrip("+") not in PATHS or can_be_read(word) or value[:1] in ("'", '"'):
        return word
    if value.startswith("[") and value.endswith("]"):
        items = (item.strip() for item in value[1:-1].split(","))
        return f"{key}=[{','.join(item if can_be_read(f'{key}={item}') else quoted(item) for item in items)}]"
    return f"{key}={quoted(value)}"


def can_be_read(word: str) -> bool:
    """Whether Hydra's grammar accepts an override."""
    try:
        OverridesParser.create().parse_overrides([word])
    except HydraException:
        return False
    return True


def explain_unreadable(word: str) -> str:
    """Explains why Hydra's grammar rejects an override, and what to type instead."""
    key, equals, value = word.partition("=")
    problem = f"cannot read `{word}` on the command line"
    if not equals:
        return f"{problem}: an override is key=value, +key=value or ~key"
    if not key.lstrip("+~") or not can_be_read(f"{key}=1"):
        return f"{problem}: `{key}` is no key; an override is key=value"
    if value[:1] in ("[", "{", "(", "'", '"'):
        return f'{problem}: close its brackets and quotes, and quote texts within: \'key=["a","b"]\''
    return f"{problem}: this value needs quotes; type {to_type(key, value)}"


def explain_several(word: str, groups: Iterable[str], *, runs: bool) -> str:
    """Explains what to type instead of an override with several values, in a command without -m.

    Args:
        word: Such as `seed=1,2` or `data.batch_size=range(8,64)`.
        groups: The config groups, which take one file each.
        runs: Whether the command can start several runs.
    """
    key, _, value = word.partition("=")
    ways = ["to start a run for each, add -m"] if runs else []
    if key not in groups and can_be_read(f"{key}=[{value}]") and "(" not in value:
        ways += [f"for a list, type {shlex.quote(f'{key}=[{value}]')}", f"for a text, type {to_type(key, value)}"]
    return f"`{word}` has several values: {'; '.join(ways) or 'give one'}"


def expanded(path: str) -> str:
    """Expands `~` to the home directory; the name of an unknown user stays."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        return path


def expand_paths(config: dict[str, Any]) -> None:
    """Expands `~` in the values of `PATHS`, in place."""
    for key in PATHS:
        group, _, name = key.rpartition(".")
        node, value = at(config, group) if group else config, at(config, key)
        if isinstance(value, str):
            node[name] = expanded(value)
        elif isinstance(value, list):
            node[name] = [expanded(item) if isinstance(item, str) else item for item in value]


def unset_empty_data_variable() -> None:
    """Treats an empty `ALEXNET_LAB_DATA` as not set; it would mean the current directory otherwise."""
    if not os.environ.get(DATA_VARIABLE, "unset"):
        del os.environ[DATA_VARIABLE]
