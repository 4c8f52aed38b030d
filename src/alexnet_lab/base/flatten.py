"""Nested dictionaries as flat ones, with dotted keys as on the command line."""

from __future__ import annotations

from collections.abc import Iterable
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
    config: dict[str, Any] = {}
    for key, value in items.items():
        *groups, name = key.split(".")
        node = config
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = value
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
