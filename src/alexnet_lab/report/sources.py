"""Builds a study from the directory of a sweep, or from any runs."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from alexnet_lab.base import shell
from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.base.flatten import flat
from alexnet_lab.config.default_paths import is_outward
from alexnet_lab.data.identity import ASIDE, HASHES, SHOWN, Result, check_comparable, difference
from alexnet_lab.report.comparison import PRUNED, RUNNING, UNREADABLE, Run, Study, displayable, read_run
from alexnet_lab.run.pruning import pruned_jobs
from alexnet_lab.run.run_directory import is_run, run_names
from alexnet_lab.run.run_files import computed_on, copies
from alexnet_lab.sweeps.columns import Columns, columns
from alexnet_lab.sweeps.definition import SEED, Job, identity
from alexnet_lab.sweeps.merging import other_content
from alexnet_lab.sweeps.subject import subject
from alexnet_lab.sweeps.summary import base_level
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

log = logging.getLogger(__name__)

DEFAULT_METRIC = "test/top1_error"


def from_sweep(folder: Path, *, other_images: bool = False) -> Study:
    """The study of a sweep's definition, with the jobs that have ended so far.

    Args:
        folder: The directory of a sweep, with `sweep.json`; its runs are in it.
        other_images: Compare jobs even if their data set has changed in between.

    Raises:
        RunError: It is no sweep's directory, or its definition is damaged.
        DataError: Jobs with the same data config used different images.
    """
    directory = SweepDirectory(folder)
    if not folder.is_dir():
        raise RunError(f"there is no sweep directory {folder}")
    definition = directory.read()
    if definition is None:
        runs = shell.join([shell.override("runs", folder)]) if is_run(folder) else f"runs='{folder}/*'"
        raise RunError(f"{folder} is no sweep: it has no sweep.json; for single runs: {runs}")
    if not definition.jobs:
        raise RunError(f"{directory.definition} lists no jobs")
    ended = directory.latest()
    about = definition.about | {"command": definition.command} | subject(definition)
    settings = columns(definition)
    about |= _comparison(directory.definition, about, settings)
    runs = _pruned(
        _job(directory.run(job).path, job, values, about["factor"], ended.get(job.name))
        for job, values in zip(definition.jobs, settings, strict=True)
    )
    known = copies((str(run.path), run.result) for run in runs)
    runs = [
        _unusable(run, f"it is a copy of {known[str(run.path)]}") if str(run.path) in known else run for run in runs
    ]
    _check_images(runs, allowed=other_images or bool(about.get("other_images")))
    return _study(about["name"], about["metric"] or DEFAULT_METRIC, runs, about)


def _pruned(runs: Iterable[Run]) -> list[Run]:
    """The runs; trials that a search ended early count as such."""
    runs = list(runs)
    early = {folder: pruned_jobs(folder) for folder in {run.path.parent for run in runs}}
    return [
        replace(run, status=PRUNED) if run.status == "completed" and run.path.name in early[run.path.parent] else run
        for run in runs
    ]


def _comparison(path: Path, about: Mapping[str, Any], settings: Sequence[Columns]) -> dict[str, Any]:
    """Empty; or, with a warning, a comparison of nothing if sweep.json names a level or key that no job has."""
    try:
        base_level(about, settings)
    except ConfigError as error:
        log.warning("%s: %s; the report compares no levels", path, error)
        return {"factor": [], "base": None, "tuned": []}
    return {}


def _check_images(runs: Iterable[Run], *, allowed: bool) -> None:
    results = [Result(str(run.path), flat(dict(run.config.get("data") or {})), run.result) for run in runs]
    check_comparable(results, switch="other_images", allowed=allowed)


def _study(title: str, metric: str, runs: Sequence[Run], definition: Mapping[str, Any]) -> Study:
    """Sorts the runs by level and then by seed."""
    levels = tuple(dict.fromkeys(run.level for run in runs))
    ordered = sorted(runs, key=lambda run: (levels.index(run.level), run.seed or 0))
    return Study(title, metric, tuple(ordered), levels, definition).of_metric(metric)


def _job(path: Path, job: Job, values: Columns, factor: Sequence[str], ended: Mapping[str, Any] | None) -> Run:
    """A job's run. Unless its directory contains a complete run or one in progress, the ledger says how it ended."""
    run = read_run(path, name=job.name, settings=values)
    others = other_content(job, run.config) if run.config else []
    if others:
        run = _unusable(run, f"its folder contains another run: {'; '.join(others[:3])}")
    seed = run.settings.get("seed", "")
    if run.seed is None and seed.isdigit():
        run = replace(run, seed=int(seed))
    if ended is not None and ended["status"] != "completed" and run.status not in ("completed", RUNNING):
        run = replace(run, status=ended["status"], error=ended["error"] or run.error)
    return replace(run, level=level_name(run.settings, factor))


def _unusable(run: Run, reason: str) -> Run:
    """A run that is listed with a reason and counts nowhere."""
    return replace(run, status=UNREADABLE, error=displayable(reason), curves={}, metrics={}, result={})


def level_name(values: Mapping[str, str], factor: Sequence[str]) -> str:
    """A level as displayed: the factor's value, with everything else that is swept except the seed.

    Example:
        >>> level_name({"model.norm": "lrn", "seed": "0"}, ["model.norm"])
        'lrn'
        >>> level_name({"model.norm": "lrn", "model.width": "0.5", "seed": "0"}, ["model.norm"])
        'lrn width=0.5'
    """
    named = {key: f"{key.rpartition('.')[2]}={value}" for key, value in values.items() if key != "seed"}
    if len(factor) == 1 and factor[0] in named:
        named[factor[0]] = values[factor[0]]
    return " ".join(named.values()) or "all"


def from_runs(patterns: Sequence[str], *, other_images: bool = False) -> Study:
    """Finds runs by name; runs that differ only in the seed form one level.

    A level is named by the overrides that not all runs share, or by the config keys that differ.

    Args:
        patterns: Run directories, or patterns such as `logs/runs/*`.
        other_images: Compare runs even if their data set has changed in between.

    Raises:
        RunError: No run is found, or a named directory is no run.
        DataError: Runs with the same data config used different images.
    """
    found = _without_copies(_pruned(read_run(path, name=path.name) for path in _run_directories(patterns)))
    _check_images(found, allowed=other_images)
    for run in found:
        if (run.config.get("trainer") or {}).get("fast_dev_run"):
            log.warning("%s is a trial (trainer.fast_dev_run): its numbers are of a few batches", run.path)
    known = by_images([run for run in found if run.config])
    runs = [run for group in known for run in _levels(group, alone=len(known) == 1)]
    unknown = [replace(run, level=UNREADABLE, settings={"level": UNREADABLE}) for run in found if not run.config]
    title = found[0].name if len(found) == 1 else f"{len(found)} runs"
    return _study(title, DEFAULT_METRIC, [*runs, *unknown], {"name": title, "factor": ["level"], "loose": True})


def _levels(group: Sequence[Run], *, alone: bool) -> list[Run]:
    """Runs on the same images with their levels; if other images exist, a level's name begins with the data."""
    identities = [_identity(run.config) for run in group]
    names = _names(group, identities)
    first: dict[tuple[str, int | None, str], Run] = {}
    runs = []
    for run, what in zip(group, identities, strict=True):
        level = names[what] if alone or len(names) > 1 else run.model or names[what]
        if run.status == "completed":
            original = first.setdefault((level, run.seed, computed_on(run.manifest)), run)
            if original is not run:  # a seed is one sample, however often it is trained
                log.warning("%s has the config and the seed of %s and is left out", run.path, original.path)
                continue
        shown = level if alone else f"{run.data}: {level}"
        runs.append(replace(run, level=shown, settings={"level": level, "seed": f"{run.seed}"}))
    return runs


def _run_directories(patterns: Sequence[str]) -> list[Path]:
    """The run directories, each once, even if it is given by several names."""
    found: dict[str, Path] = {}
    for path in map(Path, run_names(patterns, "runs")):
        if not is_run(path):
            raise RunError(_no_run(path))
        found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _no_run(path: Path) -> str:
    if (path / "sweep.json").exists():
        return f"{path} is a sweep: sweep={path}"
    missing = "it has no config.yaml" if path.is_dir() else "there is no such directory"
    return f"{path} is no run: {missing}"


def _without_copies(runs: Sequence[Run]) -> list[Run]:
    """The runs, each once: a copied directory has the same weights and would count twice."""
    known = copies((str(run.path), run.result) for run in runs)
    for path, original in known.items():
        log.warning("%s is a copy of %s and is left out", path, original)
    return [run for run in runs if str(run.path) not in known]


Identity = tuple[tuple[str, str], ...]
"""What identifies an experiment: its config without seed, directories and loggers."""


def _identity(config: Mapping[str, Any]) -> Identity:
    return tuple((key, str(value)) for key, value in identity(config).items() if key != SEED)


def _names(runs: Sequence[Run], identities: Sequence[Identity]) -> dict[Identity, str]:
    """A name for each identity: overrides that not all runs share; if two are equal, the keys that differ."""
    own: dict[Identity, set[str]] = {}  # what all runs of an identity say: some may spell out a default
    for run, what in zip(runs, identities, strict=True):
        words = _words(run)
        own[what] = own.get(what, words) & words
    if not own:
        return {}
    shared = set.intersection(*own.values())
    names = {what: " ".join(sorted(words - shared)) for what, words in own.items()}
    common = set.intersection(*(set(what) for what in own))
    taken: set[str] = set()
    for what, name in names.items():
        differing = (f"{key}={value}" for key, value in what if (key, value) not in common)
        label = " ".join(differing) if name in taken else name
        taken.add(label)
        names[what] = label or ("all" if len(names) == 1 else "as configured")
    return names


def _words(run: Run) -> set[str]:
    """The run's overrides that affect the experiment; of one key the last, which counts."""
    last = {shell.override_key(word): word for word in run.config.get("overrides", [])}
    return {word for key, word in last.items() if not is_outward(key) and key != SEED}


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
        for group, name in zip(groups, _data_names(groups), strict=True)
    ]


def _choice(run: Run) -> dict[str, str]:
    data = flat(dict(run.config.get("data") or {}))
    return {key: json.dumps(value, default=str) for key, value in data.items() if key not in ASIDE}


def _record(run: Run) -> dict[str, str]:
    return {key: run.result[key] for key in HASHES if run.result.get(key)}


def _same(one: Run, other: Run) -> bool:
    recorded = _record(one)
    return bool(recorded) and set(recorded) == set(_record(other)) and difference(one.result, other.result) is None


def _data_names(groups: Sequence[Group]) -> list[str]:
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
