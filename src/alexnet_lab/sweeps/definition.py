"""The definition of a sweep: its jobs, what each computes, and what is compared. It is stored in `sweep.json`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from alexnet_lab.base.files import for_json
from alexnet_lab.base.flatten import flat, within
from alexnet_lab.config.default_paths import VARIANT, is_outward, job_name, short_hash
from alexnet_lab.config.schema import listed
from alexnet_lab.sweeps.sweep_files import SWEEP_VERSION

RECORDS = ("resume", "overrides", "tags", "experiment", "trusted_packages")
"""Top-level keys that do not affect a job's result."""


SEED = "seed"
"""The key in which repetitions of a level differ."""


@dataclass(frozen=True)
class Job:
    """One job of a sweep. Its content identifies it; its name is only a label."""

    name: str  # of its folder in the sweep's directory
    overrides: tuple[str, ...]  # its differences from the others: ("model.norm=lrn", "seed=0")
    config: dict[str, Any] = field(default_factory=dict)  # what it computes, flat: {"model.norm": "lrn", ...}

    @cached_property
    def content(self) -> str:
        """What it computes, as text: equal for equal jobs. 1, 1.0 and true are different values."""
        return json.dumps(self.config, sort_keys=True)

    @property
    def key(self) -> str:
        """A hash of the content."""
        return short_hash([self.content])

    @property
    def label(self) -> str:
        """The job's overrides in one line."""
        return " ".join(self.overrides) or self.name


@dataclass(frozen=True)
class Definition:
    """A whole sweep.

    Attributes:
        about: name, factor and base (as lists), metric, claim, paper: the config's `sweep` node.
        command: The command that started it.
        overrides: Common to all jobs.
        jobs: In the order in which they run.
    """

    about: dict[str, Any]
    command: str
    overrides: tuple[str, ...]
    jobs: tuple[Job, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of sweep.json, in which the common part of all jobs' configs appears once."""
        common = _common([job.config for job in self.jobs])
        jobs = [
            {
                "job": job.name,
                "run_dir": job.name,
                "overrides": list(job.overrides),
                "config": {key: value for key, value in job.config.items() if key not in common},
            }
            for job in self.jobs
        ]
        return {
            "version": SWEEP_VERSION, **self.about, "command": self.command, "overrides": list(self.overrides),
            "config": common, "jobs": jobs,
        }  # fmt: skip

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Definition:
        """The definition in a sweep.json."""
        about = {key: value for key, value in content.items() if key not in ("version", *OWN_KEYS)}
        compared = {key for item in content["jobs"] for key in split(item["overrides"])}
        jobs = [
            Job(item["job"], tuple(item["overrides"]), _deciding(content["config"] | item.get("config", {}), compared))
            for item in content["jobs"]
        ]
        return cls(about, content["command"], tuple(content["overrides"]), tuple(jobs))


OWN_KEYS = ("command", "overrides", "config", "jobs")
"""The keys of sweep.json besides the description."""


def _common(configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The items that all configs have."""
    first, *others = configs or [{}]
    return {
        key: value
        for key, value in first.items()
        if all(key in o and json.dumps(o[key]) == json.dumps(value) for o in others)
    }


def identity(config: Mapping[str, Any], compared: Collection[str] = ()) -> dict[str, Any]:
    """The part of a checked config that affects a job's result, flat.

    Args:
        config: Checked, so that it contains every default.
        compared: Keys to include in any case, because a sweep compares their values: `trainer.devices=1,2`.
    """
    items = for_json(flat(dict(config))).items()  # as it will be read from sweep.json
    return _deciding({key: value for key, value in items if key not in RECORDS}, compared)


def _deciding(config: Mapping[str, Any], compared: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not is_outward(key) or within(key, {*compared} - {VARIANT})}


def describe(node: Mapping[str, Any], swept: Iterable[str]) -> dict[str, Any]:
    """The `sweep` node in the form of sweep.json: factors, bases and tuned keys as lists.

    Args:
        node: name, factor, base, metric, ...; keys that only control the run (dry_run, extend, dir) are left out.
        swept: The swept keys. If the node names no factors, these are all of them but the seed and the tuned keys.
    """
    about = {key: value for key, value in node.items() if key not in ("dry_run", "extend", "dir", "variant")}
    lists = {name: listed(node.get(name)) for name in ("factor", "base", "tuned")}
    if node["factor"] is None:
        lists["factor"] = [key for key in swept if key not in (SEED, *lists["tuned"])]
    return about | lists


def named(overrides: Sequence[Sequence[str]]) -> list[tuple[str, tuple[str, ...]]]:
    """Each job's name and overrides; a job that is listed twice counts once.

    Names that would be equal (`a=x/y`, `a=x y`) get a hash.
    """
    unique = list(dict.fromkeys(tuple(words) for words in overrides))
    names = [job_name(words) for words in unique]
    return [
        (name if names.count(name) == 1 else f"{name}-{short_hash(words)}", words)
        for name, words in zip(names, unique, strict=True)
    ]


def split(overrides: Iterable[str]) -> dict[str, str]:
    """Splits overrides into keys and values.

    Example:
        >>> split(["+model.norm=lrn", "seed=0"])
        {'model.norm': 'lrn', 'seed': '0'}
    """
    return {key.lstrip("+~"): value for key, _, value in (word.partition("=") for word in overrides)}
