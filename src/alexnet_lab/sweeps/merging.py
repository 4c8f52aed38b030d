"""Two definitions of one sweep, the one that its directory holds and the one asked for: can they be one table?"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.sweeps.columns import columns, compared_keys
from alexnet_lab.sweeps.definition import SEED, Definition, Job, describe, identity, split
from alexnet_lab.sweeps.former_defaults import are_defaults
from alexnet_lab.sweeps.summary import base_level

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path


def agreed(
    path: Path, there: Definition | None, asked: Definition, node: Mapping[str, Any], words: Sequence[str]
) -> Definition:
    """The definition of a sweep: the one asked for, or the one that its directory holds with jobs added.

    Args:
        path: Of the sweep's directory.
        there: What it holds.
        asked: Not described yet.
        node: The config's `sweep` node, which describes it.
        words: The overrides of all jobs.

    Raises:
        ConfigError: The directory holds another sweep, or the jobs make no table.
    """
    found = differences(there, asked) if there else []
    keys = compared_keys(asked.jobs)
    if there and found:
        keys = list(dict.fromkeys([*compared_keys(there.jobs), *keys]))
        if node["extend"]:
            found = confounded(there, asked)
            asked, node = extended(there, asked), _inherited(there, node, split(words))
        if found or not node["extend"]:
            remedy = "choose another hydra.sweep.dir" + (
                "" if node["extend"] else "; sweep.extend=true adds jobs to it"
            )
            raise ConfigError(f"{path} holds another sweep: {'; '.join(found)}; {remedy}")
    about = describe(node, keys)
    about["name"] = about["name"] or path.name
    definition = replace(asked, about=about)
    base_level(about, columns(definition))  # whether there is something to compare
    return definition


def _inherited(there: Definition, node: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    """The description of a sweep that is extended: what the command does not say, the sweep's own one does.

    Raises:
        ConfigError: They are about different claims.
    """
    before = dict(there.about)
    claims = [item.get("claim") for item in (before, node)]
    if all(claims) and claims[0] != claims[1]:
        raise ConfigError(f"the sweep there is about another claim: {claims[0]}; choose another hydra.sweep.dir")
    tuned = before.get("tuned") or []
    if set(before.get("factor") or ()) == set(compared_keys(there.jobs)) - {SEED, *tuned}:
        before["factor"] = None  # all that is swept, which may have become more
    own = {key: value for key, value in node.items() if value not in (None, [])}
    if not (own.keys() & {"name", "claim", "factor"} or "sweep.metric" in words):
        own.pop("metric", None)
    return {**node, **before, **own}


def can_be_one(old: Definition, new: Definition) -> bool:
    """Whether two definitions are of one sweep, or could be: jobs in common, or jobs that can be added."""
    if {job.content for job in old.jobs} & {job.content for job in new.jobs}:
        return True
    try:
        return not confounded(old, new)
    except ConfigError:  # without a value for a column
        return False


def differences(old: Definition, new: Definition) -> list[str]:
    """How the jobs of two definitions differ, in words; empty if both compute the same.

    Jobs are the same if their content is, whatever they are called. Of others that are asked for in the same words, the
    keys that changed are listed.
    """
    before, after = _others(old, new), _others(new, old)
    pairs = [(before[words].config, after[words].config) for words in before if words in after]
    lines = list(dict.fromkeys(line for pair in pairs for line in _changes(*pair, _differing(*pair))))
    for title, one, other in (("no longer asked for", before, after), ("new", after, before)):
        names = sorted(job.name for words, job in one.items() if words not in other)
        lines += [f"{title}: {_few(names)}"] if names else []
    return lines


def _others(one: Definition, other: Definition) -> dict[frozenset[str], Job]:
    """The jobs of `one` that `other` has not, by the words that ask for them."""
    shared = {job.content for job in other.jobs}
    return {frozenset(job.overrides): job for job in one.jobs if job.content not in shared}


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    return [f"{key} was {before.get(key, 'not set')}, is {after.get(key, 'not set')}" for key in keys]


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys in which two configs differ; 1, 1.0 and true are three values."""
    missing = object()

    def text(config: Mapping[str, Any], key: str) -> Any:
        return json.dumps(config[key], sort_keys=True) if key in config else missing

    return [key for key in dict.fromkeys([*before, *after]) if text(before, key) != text(after, key)]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def extended(old: Definition, new: Definition) -> Definition:
    """The jobs of both, those of `old` first and in their folders; `new` says the rest, and how jobs are described.

    Where it takes both commands to make these jobs, `command` is one after the other.
    """
    asked = {job.content: job for job in new.jobs}
    kin = {_without_seed(job): job for job in reversed(new.jobs)}
    kept = []
    for job in old.jobs:
        like = asked.get(job.content) or _kin(job, kin.get(_without_seed(job)))
        kept.append(replace(job, overrides=like.overrides if like else _all_words(job, old, new)))
    there = {job.content for job in old.jobs}
    added = [job for job in new.jobs if job.content not in there]
    command = new.command
    if not there <= asked.keys():
        command = f"{old.command} && {new.command}" if added else old.command
    return replace(new, jobs=(*kept, *added), command=command)


def _without_seed(job: Job) -> str:
    return json.dumps({key: value for key, value in job.config.items() if key != SEED}, sort_keys=True)


def _kin(job: Job, other: Job | None) -> Job | None:
    """A job that differs from `job` in the seed alone, with the seed of `job`."""
    if other is None:
        return None
    words = [word for word in other.overrides if SEED not in split([word])]
    return replace(other, overrides=(*words, f"{SEED}={job.config[SEED]}") if SEED in job.config else tuple(words))


def _all_words(job: Job, old: Definition, new: Definition) -> tuple[str, ...]:
    """A job's overrides with those that all jobs of `old` had in common, where jobs of `new` differ in them."""
    own, compared = split(job.overrides), {key for other in new.jobs for key in split(other.overrides)}
    common = (f"{key}={value}" for key, value in split(old.overrides).items() if key in compared and key not in own)
    return (*common, *job.overrides)


def confounded(old: Definition, new: Definition) -> list[str]:
    """What else differs between jobs of `old` and `new` than the columns of their table say; empty if nothing does.

    A key may differ where a column of its own says so, or where jobs of one command differed in it too (a group's file
    sets many keys, and others follow from them), unless one of the commands set it for all of its jobs.
    """
    merged = extended(old, new)
    places = dict(zip((job.content for job in merged.jobs), columns(merged), strict=True))
    fixed = {key for key, _ in split(old.overrides).items() ^ split(new.overrides).items()} - set(
        compared_keys(merged.jobs)
    )
    varying = {key for key in _varying(old.jobs) | _varying(new.jobs) if not _below(key, fixed)}
    lines: list[str] = []
    for job in _others(old, new).values():
        differing = {other.content: _differing(places[job.content], places[other.content]) for other in new.jobs}
        near = min(new.jobs, key=lambda other: len(differing[other.content]))
        follows = varying if set(differing[near.content]) - {SEED} else set()
        changed = _differing(job.config, near.config)
        lines += _changes(
            job.config,
            near.config,
            [key for key in changed if key not in follows and not _below(key, differing[near.content])],
        )
    return list(dict.fromkeys(lines))


def _varying(jobs: Iterable[Job]) -> set[str]:
    """The keys in which jobs differ."""
    first, *others = jobs
    return {key for other in others for key in _differing(first.config, other.config)}


def _below(key: str, groups: Collection[str]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def other_content(job: Job, config: Mapping[str, Any]) -> list[str]:
    """What a run's config computes other than a job does; empty where it is this job's, or nothing is known of that."""
    expected, found = identity(job.config), identity(config)
    newer = found.keys() - expected.keys()
    if expected and newer and are_defaults(newer, config):
        found = {key: value for key, value in found.items() if key not in newer}
    return _changes(found, expected, _differing(found, expected)) if expected else []
