"""The message for a key that does not exist: which key the user probably means."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from alexnet_lab.base.errors import did_you_mean, nearest
from alexnet_lab.base.flatten import within

SHORT_FORMS = {
    "bs": "batch_size", "epochs": "max_epochs", "gpus": "devices", "lr": "learning_rate", "wd": "weight_decay",
}  # fmt: skip
"""Common names of other projects for keys of this one."""

SHOWN = 3
"""The number of keys in other groups that a message names."""

LISTED = 12
"""A message that names keys of other groups also lists the allowed names, if there are no more than these."""

ALIKE = 0.8
"""The least similarity of a key in another group."""

ALIKE_TOO = 0.65
"""The least similarity of a key in the same group, if another group has a key of the very name."""


def unknown_key(key: str, known: Collection[str], config: Mapping[str, Any], wrong: str | None = None) -> str:
    """The message for a key that does not exist.

    It names the keys of other groups with the same last name, and a similar name beside the wrong one. Without either
    it names a similar key of another group, or all names that are allowed.

    Args:
        key: As given, with dots.
        known: The names that are allowed in place of the wrong one.
        config: The whole config, nested.
        wrong: `key` up to its first part that does not exist; default: all of it.

    Example:
        >>> config = {"data": {"batch_size": 64}, "optimizer": {"learning_rate": 0.1}, "seed": 0}
        >>> unknown_key("batch_size", config, config)
        'unknown key `batch_size`; did you mean `data.batch_size`?'
        >>> unknown_key("optimizer.lr", ["learning_rate"], config)
        'unknown key `optimizer.lr`; did you mean `optimizer.learning_rate`?'
        >>> unknown_key("optimizer.larning_rate", ["learning_rate"], config)
        'unknown key `optimizer.larning_rate`; did you mean `learning_rate`?'
    """
    wrong = wrong or key
    group, _, name = wrong.rpartition(".")
    others = [other for other in _keys(config) if not within(other, [wrong])]
    found = _same_name(key, others) or _same_name(wrong, others)
    if not found and not nearest(name, known):
        found = _similar(key, others)
    if not found:
        return f"unknown key `{key}`; {did_you_mean(name, known)}"
    beside = nearest(name, known, ALIKE_TOO) if wrong == key else None
    if beside:
        found.append(f"{group}.{beside}" if group else beside)
    *first, last = [f"`{other}`" for other in dict.fromkeys(found)]
    text = f"unknown key `{key}`; did you mean {', '.join(first)}{' or ' if first else ''}{last}?"
    if not group or not 0 < len(known) <= LISTED or any(other.startswith(f"{group}.") for other in found):
        return text
    return f"{text} allowed in `{group}`: {', '.join(sorted(known))}"


def _same_name(key: str, others: Collection[str]) -> list[str]:
    """The keys with the last name of `key`, the most similar ones first; those of Hydra only for a key of Hydra."""
    name = key.rpartition(".")[2]
    names = {name, SHORT_FORMS.get(name.lower(), name)}
    found = [other for other in others if other.rpartition(".")[2] in names]
    of_hydra = key.startswith("hydra.")
    return get_close_matches(key, [one for one in found if one.startswith("hydra.") == of_hydra], n=SHOWN, cutoff=0)


def _similar(key: str, others: Collection[str]) -> list[str]:
    """The keys whose last name is similar to that of `key`."""
    near = nearest(key.rpartition(".")[2], {other.rpartition(".")[2] for other in others}, ALIKE)
    return _same_name(near, others) if near else []


def _keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """All keys and groups of a config, with dots."""
    for name, value in config.items():
        if not str(name).startswith("_"):
            yield f"{prefix}{name}"
            if isinstance(value, dict):
                yield from _keys(value, f"{prefix}{name}.")
