"""Merges two definitions of a sweep, that in its directory and the requested one, if they form one table."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.files import for_json
from alexnet_lab.base.flatten import flat, nested, within
from alexnet_lab.config import check_saved, continuing
from alexnet_lab.config.schema import Train
from alexnet_lab.sweeps.columns import columns, compared_keys
from alexnet_lab.sweeps.definition import SEED, Definition, Job, describe, identity, split
from alexnet_lab.sweeps.summary import base_level


def agreed(
    path: Path, there: Definition | None, asked: Definition, node: Mapping[str, Any], words: Sequence[str]
) -> Definition:
    """The definition of a sweep: the requested one, or that in the directory with added jobs.

    Args:
        path: Of the sweep's directory.
        there: The definition in the directory.
        asked: The requested definition, without its description.
        node: The config's `sweep` node, which describes it.
        words: The overrides of all jobs.

    Raises:
        ConfigError: The directory contains another sweep, or the jobs form no table.
    """
    found = differences(there, asked) if there else []
    keys = compared_keys(asked.jobs)
    remedy = "choose another hydra.sweep.dir; sweep.extend=true adds jobs to it"
    if there and node["extend"]:
        remedy = "choose another hydra.sweep.dir"
        node = _inherited(there, node, split(words))
        if found:
            keys = list(dict.fromkeys([*compared_keys(there.jobs), *keys]))
            found = confounded(there, asked)
            asked = extended(there, asked)
    if found:
        raise ConfigError(f"{path} contains another sweep: {'; '.join(found)}; {remedy}")
    about = describe(node, keys)
    about["name"] = about["name"] or path.name
    definition = replace(  # as it will be read from sweep.json
        asked, about=for_json(about), command=for_json(asked.command), overrides=tuple(for_json(asked.overrides))
    )
    base_level(about, columns(definition))  # raises if there is nothing to compare
    return definition


def _inherited(there: Definition, node: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    """The description of an extended sweep: the command's settings, otherwise those of the existing sweep.

    Raises:
        ConfigError: The two have different claims.
    """
    before = dict(there.about)
    claims = [item.get("claim") for item in (before, node)]
    if all(claims) and claims[0] != claims[1]:
        raise ConfigError(f"the existing sweep has another claim: {claims[0]}; choose another hydra.sweep.dir")
    tuned = before.get("tuned") or []
    if set(before.get("factor") or ()) == set(compared_keys(there.jobs)) - {SEED, *tuned}:
        before["factor"] = None  # all swept keys, which may have become more
    own = {key: value for key, value in node.items() if value not in (None, [])}
    if not (own.keys() & {"name", "claim", "factor"} or "sweep.metric" in words):
        own.pop("metric", None)
    return {**node, **before, **own}


def can_be_one(old: Definition, new: Definition) -> bool:
    """Whether two definitions are of one sweep, or could be: they share jobs, or jobs can be added."""
    if {job.content for job in old.jobs} & {job.content for job in new.jobs}:
        return True
    try:
        return not confounded(old, new)
    except ConfigError:  # a column lacks a value
        return False


def differences(old: Definition, new: Definition) -> list[str]:
    """Describes how the jobs of two definitions differ; empty if both compute the same.

    Jobs with equal content are the same job, whatever their names. For other jobs with the same overrides, the changed
    keys are listed.
    """
    before, after = _others(old, new), _others(new, old)
    pairs = [(before[words].config, after[words].config) for words in before if words in after]
    lines = list(dict.fromkeys(line for pair in pairs for line in _changes(*pair, _differing(*pair))))
    for title, one, other in (("no longer asked for", before, after), ("new", after, before)):
        names = sorted(job.name for words, job in one.items() if words not in other)
        lines += [f"{title}: {_few(names)}"] if names else []
    return lines


def _others(one: Definition, other: Definition) -> dict[frozenset[str], Job]:
    """The jobs of `one` that `other` lacks, by their overrides."""
    shared = {job.content for job in other.jobs}
    return {frozenset(job.overrides): job for job in one.jobs if job.content not in shared}


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    return [f"{key} was {before.get(key, 'not set')}, is {after.get(key, 'not set')}" for key in keys]


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys in which two configs differ; 1, 1.0 and true are different values."""
    return [item.key for item in continuing.differences(before, after)]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def extended(old: Definition, new: Definition) -> Definition:
    """Joins the jobs of both, those of `old` first and in their folders; everything else comes from `new`.

    If both commands are needed to create these jobs, `command` is one after the other.
    """
    asked = {job.content: job for job in new.jobs}
    kin = {_without_seed(job): job for job in reversed(new.jobs)}
    swept = {key for job in (*old.jobs, *new.jobs) for key in split(job.overrides)}
    kept = []
    for job in old.jobs:
        like = asked.get(job.content) or _kin(job, kin.get(_without_seed(job)))
        kept.append(replace(job, overrides=like.overrides if like else _all_words(job, swept, old, new)))
    there = {job.content for job in old.jobs}
    added = [job for job in new.jobs if job.content not in there]
    command = new.command
    if not there <= asked.keys():
        is_known = not added or new.command in old.command.split(" && ")  # a search adds jobs with one command
        command = old.command if is_known else f"{old.command} && {new.command}"
    return replace(new, jobs=(*kept, *added), command=command)


def _without_seed(job: Job) -> str:
    return json.dumps({key: value for key, value in job.config.items() if key != SEED}, sort_keys=True)


def _kin(job: Job, other: Job | None) -> Job | None:
    """`other` with the seed of `job`, if the two differ only in the seed."""
    if other is None:
        return None
    words = [word for word in other.overrides if SEED not in split([word])]
    return replace(other, overrides=(*words, f"{SEED}={job.config[SEED]}") if SEED in job.config else tuple(words))


def _all_words(job: Job, swept: Collection[str], old: Definition, new: Definition) -> tuple[str, ...]:
    """A job's overrides, with those common to all of `old` in which jobs differ, and a seed that jobs of `new` lack."""
    own = split(job.overrides)
    common = [f"{key}={value}" for key, value in split(old.overrides).items() if key in swept and key not in own]
    other_seeds = any(other.config.get(SEED) != job.config.get(SEED) for other in new.jobs)
    if other_seeds and SEED in job.config and SEED not in own and SEED not in split(common):
        common.append(f"{SEED}={job.config[SEED]}")
    return (*common, *job.overrides)


def confounded(old: Definition, new: Definition) -> list[str]:
    """Describes differences between jobs of `old` and `new` that no column shows; empty if there are none.

    A key may differ if it has a column. It may also differ if jobs of one command differ in it (a group's file sets
    many keys, and others follow from them), unless one of the commands sets it for all of its jobs.
    """
    merged = extended(old, new)
    places = dict(zip((job.content for job in merged.jobs), columns(merged), strict=True))
    fixed = {key for key, _ in split(old.overrides).items() ^ split(new.overrides).items()} - set(
        compared_keys(merged.jobs)
    )
    varying = {key for key in _varying(old.jobs) | _varying(new.jobs) if not within(key, fixed)}
    lines: list[str] = []
    for job in _others(old, new).values():
        differing = {other.content: _differing(places[job.content], places[other.content]) for other in new.jobs}
        near = min(new.jobs, key=lambda other: len(differing[other.content]))
        follows = varying if set(differing[near.content]) - {SEED} else set()
        changed = _differing(job.config, near.config)
        lines += _changes(
            job.config,
            near.config,
            [key for key in changed if key not in follows and not within(key, differing[near.content])],
        )
    return list(dict.fromkeys(lines))


def _varying(jobs: Iterable[Job]) -> set[str]:
    """The keys in which jobs differ."""
    first, *others = jobs
    return {key for other in others for key in _differing(first.config, other.config)}


def other_content(job: Job, config: Mapping[str, Any]) -> list[str]:
    """What a run's config computes differently from a job; empty if it is this job's run, or if nothing is known."""
    expected, found = identity(job.config), identity(config)
    newer = found.keys() - expected.keys()
    if expected and newer and are_defaults(newer, config):
        found = {key: value for key, value in found.items() if key not in newer}
    return _changes(found, expected, _differing(found, expected)) if expected else []


def as_recorded(job: Job, there: Definition | None, config: Train) -> Job:
    """Leaves out keys that the recorded jobs of a sweep lack, if they have their defaults.

    The default of a new key keeps the former behaviour. So a later version can continue a published sweep.

    Args:
        job: As requested now.
        there: The sweep in the directory; None for a new one.
        config: The job's whole config, checked.
    """
    known = {other.content for other in there.jobs} if there else set()
    if there is None or job.content in known:
        return job
    own, whole = job.config.keys(), config.model_dump()
    shapes = dict.fromkeys(
        frozenset(other.config) for other in there.jobs if other.config and other.config.keys() < own
    )
    older = [
        replace(job, config={key: value for key, value in job.config.items() if key in keys})
        for keys in shapes
        if are_defaults(own - keys, whole, config.trusted_packages)
    ]
    return next((form for form in older if form.content in known), next(iter(older), job))


def are_defaults(keys: Collection[str], config: Mapping[str, Any], trusted_packages: Sequence[str] = ()) -> bool:
    """Whether a run's config would be the same without some keys.

    Args:
        keys: Dotted.
        config: Of a run, nested.
        trusted_packages: The packages whose `_target_`s may be read.
    """
    whole = flat(dict(config))
    kept = {key: value for key, value in whole.items() if key not in keys and not key.startswith("sweep.")}
    try:
        filled = flat(check_saved(nested(kept), trusted_packages).model_dump())
    except ConfigError:
        return False
    return all(key in filled and repr(filled[key]) == repr(whole[key]) for key in keys)  # 1, 1.0 and true differ
