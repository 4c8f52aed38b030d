"""The differences between the jobs of a sweep as columns of a table: one value of each swept key per job.

The values come from the jobs' configs, not from the words of a command. So `0.1` and `1e-1` are one level, and a job
that does not set a key still has its value.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.flatten import within
from alexnet_lab.sweeps.definition import SEED, Definition, Job, split

Columns = dict[str, str]
"""A job's swept keys and their values."""


def compared_keys(jobs: Sequence[Job]) -> list[str]:
    """The keys that the overrides of any job set, in order; also the seed if jobs differ in it."""
    keys = dict.fromkeys(key for job in jobs for key in split(job.overrides))
    seeds = {job.config.get(SEED) for job in jobs}
    return [*keys, SEED] if len(seeds) > 1 and SEED not in keys else list(keys)


def columns(definition: Definition) -> list[Columns]:
    """The columns of each job; every job has a value for every key.

    Raises:
        ConfigError: A job does not say which file of a compared group it uses.
    """
    keys = compared_keys(definition.jobs)
    named = [{**split(definition.overrides), **split(job.overrides)} for job in definition.jobs]
    labels: dict[tuple[str, str], str] = {}  # a name for each content
    for job, words in zip(definition.jobs, named, strict=True):
        for key in keys:
            if key in words:
                labels.setdefault((key, _content(job, key)), _label(job, key, words[key]))
    return [
        {key: _value(job, key, words, labels) for key in keys}
        for job, words in zip(definition.jobs, named, strict=True)
    ]


def _value(job: Job, key: str, words: Columns, labels: dict[tuple[str, str], str]) -> str:
    if key in words:
        return _label(job, key, words[key])
    content = _content(job, key)
    if content and (key, content) in labels:
        return labels[key, content]
    if key in job.config:
        return literal(job.config[key])
    raise ConfigError(
        f"the sweep compares values of `{key}`, and job {job.name} does not say which one it has; "
        f"add its value ({key}=A,B), or choose another hydra.sweep.dir"
    )


def _label(job: Job, key: str, word: str) -> str:
    """The name of a value: as in the config, or that of a group's file."""
    return literal(job.config[key]) if key in job.config and _means(word, job.config[key]) else word


def _means(word: str, value: Any) -> bool:
    """Whether a word of the command line stands for a value; an interpolation may stand for any."""
    return word == str(value) or "${" in word or parsed(word) == value


@cache
def parsed(word: str) -> Any:
    """The value of a word in Hydra's grammar, such as 0.0005 for 5e-4; the word itself if it has none."""
    try:
        return OverridesParser.create().parse_override(f"key={word}").value()
    except HydraException:
        return word


def _content(job: Job, group: str) -> str:
    """The part of a job's config at a key and below, as text; empty if there is none."""
    found = {key: value for key, value in job.config.items() if within(key, [group])}
    return json.dumps(found, sort_keys=True) if found else ""


def literal(value: Any) -> str:
    """Formats a value of a config for the command line.

    Example:
        >>> literal(1e-1), literal(None), literal(True), literal([1, "a"])
        ('0.1', 'null', 'true', '[1,a]')
    """
    if isinstance(value, list):
        return f"[{','.join(map(literal, value))}]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)
