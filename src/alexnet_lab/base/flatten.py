"""Nested dictionaries as flat ones, with dotted keys as on the command line."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested dictionaries to one, with dotted keys.

    Example:
        >>> flat({"model": {"norm": "lrn"}, "seed": 0})
        {'model.norm': 'lrn', 'seed': 0}
    """
    items: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            items |= flat(value, f"{prefix}{key}.")
        else:
            items[f"{prefix}{key}"] = value
    return items


def nested(items: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flat`.

    Example:
        >>> nested({"model.norm": "lrn", "model.width": 1.0, "seed": 0})
        {'model': {'norm': 'lrn', 'width': 1.0}, 'seed': 0}
    """
    return changed({}, items)


def changed(config: Mapping[str, Any], items: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a nested config with other values.

    Args:
        config: Stays as it is.
        items: Values by dotted key; a group's value replaces the whole group.

    Example:
        >>> changed({"model": {"norm": "lrn"}, "loss": None}, {"model.norm": "none", "loss.smoothing": 0.1})
        {'model': {'norm': 'none'}, 'loss': {'smoothing': 0.1}}
    """
    config = copy.deepcopy(dict(config))
    for key, value in items.items():
        *groups, name = key.split(".")
        node = config
        for group in groups:
            if not isinstance(node.get(group), dict):
                node[group] = {}
            node = node[group]
        node[name] = copy.deepcopy(value)
    return config


def within(key: str, groups: Iterable[str]) -> bool:
    """Whether a dotted key is one of `groups` or below one.

    Example:
        >>> within("data.dir", ["data"]), within("data", ["data"]), within("database", ["data"])
        (True, True, False)
    """
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def at(config: Any, key: str, separator: str = ".") -> Any:
    """The value at a path of keys; None if there is none.

    Example:
        >>> at({"model": {"norm": "lrn"}}, "model.norm"), at({"model": None}, "model.norm")
        ('lrn', None)
    """
    for part in key.split(separator):
        config = config.get(part) if isinstance(config, dict) else None
    return config
