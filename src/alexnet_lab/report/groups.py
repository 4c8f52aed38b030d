"""Groups runs by their images: only runs on the same images are compared."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from alexnet_lab.base.flatten import flat
from alexnet_lab.data.identity import ASIDE, HASHES, SHOWN, difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alexnet_lab.report.comparison import Run


class Group(NamedTuple):
    """Runs on the same images."""

    choice: dict[str, str]  # the keys of `data` that choose the images
    runs: list[Run]


def by_images(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups the runs by their images, with a name of the data that distinguishes the groups.

    Runs with one data config belong together, since `alexnet_lab.data.identity` has compared their hashes. Runs with
    different data configs belong together if their recorded images are the same.
    """
    groups: list[Group] = []
    for run in sorted(runs, key=lambda run: not _record(run)):  # runs with recorded images first
        choice = _choice(run)
        group = next((group for group in groups if group.choice == choice or _same(group.runs[0], run)), None)
        if group is None:
            groups.append(Group(choice, [run]))
        else:
            group.runs.append(run)
    place = {id(run): number for number, run in enumerate(runs)}
    groups.sort(key=lambda group: min(place[id(run)] for run in group.runs))
    return [
        [replace(run, data=name) for run in sorted(group.runs, key=lambda run: place[id(run)])]
        for group, name in zip(groups, _names(groups), strict=True)
    ]


def _choice(run: Run) -> dict[str, str]:
    data = flat(dict(run.config.get("data") or {}))
    return {key: json.dumps(value, default=str) for key, value in data.items() if key not in ASIDE}


def _record(run: Run) -> dict[str, str]:
    return {key: run.result[key] for key in HASHES if run.result.get(key)}


def _same(one: Run, other: Run) -> bool:
    recorded = _record(one)
    return bool(recorded) and set(recorded) == set(_record(other)) and difference(one.result, other.result) is None


def _names(groups: Sequence[Group]) -> list[str]:
    """The data set of each group; if two have the same, also the keys that differ, or the hash of the images."""
    plain = [group.runs[0].data for group in groups]
    names = []
    for group, name in zip(groups, plain, strict=True):
        alike = [other for other, its in zip(groups, plain, strict=True) if its == name and other is not group]
        keys = [key for key in group.choice if any(other.choice.get(key) != group.choice[key] for other in alike)]
        names.append(" ".join([name, *(f"{key}={group.choice[key]}" for key in keys)]).strip())
    counts = Counter(names)
    return [
        name if counts[name] == 1 else f"{name} {_record(group.runs[0]).get('store_hash', 'unknown')[:SHOWN]}"
        for group, name in zip(groups, names, strict=True)
    ]
