"""Before a sweep starts: composes and checks every job's config, and finds the state of each job."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from alexnet_lab.base import cluster
from alexnet_lab.base.errors import ConfigError, did_you_mean
from alexnet_lab.base.files import for_json
from alexnet_lab.base.shell import quoted
from alexnet_lab.config.default_paths import VARIANT
from alexnet_lab.config.schema import Launcher, Sweep, Train
from alexnet_lab.sweeps.columns import compared_keys
from alexnet_lab.sweeps.definition import Definition, Job, identity, named, split
from alexnet_lab.sweeps.merging import agreed, as_recorded, can_be_one
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

Compose = Callable[[Sequence[str]], Train]

log = logging.getLogger(__name__)

NOT_IN_A_SWEEP = {
    "run_dir": "is the directory of one run; that of a sweep is hydra.sweep.dir=FOLDER",
    "resume": "continues one run; to resume a sweep, repeat its command",
    "sweep.dir": "is set by the sweep; choose its directory with hydra.sweep.dir=FOLDER",
}
"""Keys that a sweep sets for its jobs."""


@dataclass(frozen=True)
class Request:
    """The request of a command line."""

    place: str  # the sweep's directory
    common: tuple[str, ...]  # overrides of all jobs
    grid: tuple[tuple[str, ...], ...]  # those of each job
    command: str
    is_default: bool = False  # whether `place` is the default
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the overrides of each variant


@dataclass(frozen=True)
class Plan:
    """A checked sweep."""

    sweep: SweepDirectory
    there: Definition | None  # the definition in the directory
    definition: Definition
    jobs: tuple[Job, ...]  # those requested now; an extended definition has more
    words: dict[str, list[str]]  # all overrides of a job, by its name
    configs: dict[str, Train]  # checked, by the job's name
    asked: dict[tuple[str, ...], Job]  # by the words of the grid; several may mean one job

    @property
    def settings(self) -> Sweep:
        """The `sweep` node, the same for all jobs."""
        return self.configs[self.jobs[0].name].sweep

    @property
    def launcher(self) -> Launcher:
        """The `launcher` node, the same for all jobs."""
        return self.configs[self.jobs[0].name].launcher


def plan(request: Request, compose: Compose) -> Plan:
    """Composes and checks every job, and finds the sweep and folders that already contain them.

    Args:
        request: The sweep.
        compose: Returns the checked config for a job's overrides; raises ConfigError.

    Raises:
        ConfigError: A job's config is wrong, or the directory contains a sweep that computes something else.
    """
    keys = list(split(request.grid[0]))
    _check_keys([*keys, *split(request.common)])
    _check_variants(request, keys)
    drafts = [_draft(request, own, name, compose) for name, own in named(request.grid)]
    _check_nodes([draft.config for draft in drafts])
    node = drafts[0].config.sweep
    _check_paper_points(node)
    sweep, there, drafts = _find(request, keys, drafts)
    if there is None and node.extend and any(word.startswith("sweep.extend=") for word in request.common):
        log.warning(
            "sweep.extend=true adds jobs to a sweep, but %s contains none, so this starts a new one; name the other "
            "one's directory with hydra.sweep.dir=...", sweep.path,
        )  # fmt: skip
    settled = [_moved(draft, replace(request, place=str(sweep.path)), compose, there) for draft in _warned_once(drafts)]
    unique = {draft.job.content: draft.job for draft in settled}
    definition = agreed(sweep.path, there, _asked(request, unique.values()), node.model_dump(), request.common)
    if there is not None and there.about.get("metric") != definition.about["metric"]:
        _check_measured(sweep, definition)
    for job in unique.values():
        sweep.check_run(job)
    sweep.check_copies(unique.values())
    return Plan(
        sweep, there, definition, tuple(unique.values()),
        words={draft.job.name: draft.words for draft in settled},
        configs={draft.job.name: draft.config for draft in settled},
        asked={draft.own: unique[draft.job.content] for draft in drafts},
    )  # fmt: skip


class _Draft(NamedTuple):
    """A job as the command line requests it."""

    own: tuple[str, ...]  # its words of the grid
    words: list[str]  # all of them
    config: Train
    job: Job


def _draft(request: Request, own: tuple[str, ...], name: str, compose: Compose) -> _Draft:
    words = _words(request, own, name)
    try:
        config = compose(words)
    except Exception as error:  # whatever it is, it is raised again with the job's name
        if len(request.grid) > 1:
            error.add_note(f"(job {name})")
        raise
    return _Draft(own, words, config, Job(name, tuple(for_json(own))))


def _words(request: Request, own: Sequence[str], name: str) -> list[str]:
    """All overrides of a job. A variant's settings take precedence over common ones; the job's own come first.

    Raises:
        ConfigError: There is no such variant.
    """
    chosen = split([*request.common, *own]).get(VARIANT)
    if chosen is not None and chosen not in request.variants:
        hint = did_you_mean(chosen, request.variants) if request.variants else "there are no variants; leave it out"
        raise ConfigError(f"`{VARIANT}` is {chosen}; {hint}")
    variant = () if chosen is None else request.variants[chosen]
    common = [word for word in request.common if not split([word]).keys() & split(variant).keys()]
    return [*common, *variant, *own, *_added(request.place, name)]


def _find(
    request: Request, keys: Collection[str], drafts: Sequence[_Draft]
) -> tuple[SweepDirectory, Definition | None, list[_Draft]]:
    """Finds the directory of the sweep, its definition, and the jobs with their content.

    A default directory is used if it is free, contains this sweep, or contains one that this sweep extends. Otherwise
    the next number is tried.
    """
    for number in itertools.count(1):
        sweep = SweepDirectory(request.place if number == 1 else f"{request.place}_{number}")
        there = sweep.read()
        compared = {*keys, *compared_keys(there.jobs if there else ())}
        found = [draft._replace(job=_identified(draft, compared, there)) for draft in drafts]
        jobs = [draft.job for draft in found]
        if not request.is_default or there is None or can_be_one(there, _asked(request, jobs)):
            return sweep, there, found
        log.info("%s contains another sweep", sweep.path)
    raise AssertionError("unreachable")


def _identified(draft: _Draft, compared: Collection[str], there: Definition | None) -> Job:
    """A draft's job with its content, as the sweep in the directory would record it."""
    job = replace(draft.job, config=identity(draft.config.model_dump(), compared))
    return as_recorded(job, there, draft.config)


def _asked(request: Request, jobs: Iterable[Job]) -> Definition:
    """The requested definition without its description; jobs with equal content count once."""
    unique: dict[str, Job] = {}
    for job in jobs:
        unique.setdefault(job.content, job)
    recorded = tuple(word for word in request.common if not word.startswith(("sweep.dry_run=", "sweep.extend=")))
    return Definition({}, request.command, recorded, tuple(unique.values()))


def _warned_once(drafts: Iterable[_Draft]) -> list[_Draft]:
    """The first of each set of jobs that compute the same; warns about the others."""
    found: dict[str, _Draft] = {}
    for draft in drafts:
        first = found.setdefault(draft.job.content, draft)
        if first is not draft:
            log.warning("%s computes the same as %s and counts once", draft.job.label, first.job.label)
    return list(found.values())


def _moved(draft: _Draft, request: Request, compose: Compose, there: Definition | None) -> _Draft:
    """Moves a job to the folder of the job with the same content, or else to its own."""
    known = {job.content: job.name for job in there.jobs} if there else {}
    name = known.get(draft.job.content, draft.job.name)
    if draft.job.content not in known and name in known.values():
        name = f"{name}-{draft.job.key}"
    words = _words(request, draft.own, name)
    if words == draft.words:
        return draft
    again = _draft(request, draft.own, name, compose)
    return again._replace(job=replace(draft.job, name=name))


def _check_keys(keys: Sequence[str]) -> None:
    for key in keys:
        if key in NOT_IN_A_SWEEP:
            raise ConfigError(f"`{key}` {NOT_IN_A_SWEEP[key]}")


def _check_variants(request: Request, swept: Sequence[str]) -> None:
    """Refuses keys that no variant may set, and warns about settings that a swept key replaces."""
    chosen = {split([*request.common, *own]).get(VARIANT) for own in request.grid}
    keys = {name: split(words) for name, words in request.variants.items() if name in chosen}
    _check_keys(list(itertools.chain.from_iterable(keys.values())))
    for key in swept:
        if names := [name for name, its in keys.items() if key in its]:
            log.warning("`%s` is swept, so its value in %s is not used", key, " and ".join(names))


def _check_paper_points(node: Sweep) -> None:
    for name in node.paper_points or {}:
        if node.variants and name not in node.variants:
            raise ConfigError(
                f"`sweep.paper_points` names {name}, which is no variant; {did_you_mean(name, node.variants)}"
            )


def _check_measured(sweep: SweepDirectory, definition: Definition) -> None:
    """Refuses another metric than before if all finished jobs lack it: they are not trained again."""
    from alexnet_lab.sweeps.results import measured  # noqa: PLC0415 - slow to import

    metric, latest = definition.about["metric"], sweep.latest()
    lines = [(job, latest.get(job.name, {})) for job in definition.jobs]
    done = [(job, line) for job, line in lines if line.get("status") == "completed"]
    if done and all(measured(sweep.run(job), line, metric) is None for job, line in done):
        raise ConfigError(
            f"`sweep.metric` is {metric}, which none of the {len(done)} finished jobs in {sweep.path} measured; leave "
            f"it out, or choose another hydra.sweep.dir"
        )


def _check_nodes(configs: Sequence[Train]) -> None:
    """Refuses a sweep in several processes, and jobs on several nodes without SLURM."""
    here = cluster.place()
    if here.starter:
        raise ConfigError(
            f"a sweep starts its jobs itself, but {here.size} processes were started to run this one; start it once"
        )
    nodes = {config.trainer.num_nodes for config in configs}
    if nodes != {1} and not all(config.launcher.slurm for config in configs):
        raise ConfigError(f"`trainer.num_nodes` is {max(nodes)}, which a sweep can only start with launcher=slurm")
    if len(nodes) > 1:
        raise ConfigError("`trainer.num_nodes` must be the same for all jobs of a sweep; start one sweep per value")


def _added(sweep: str, name: str) -> list[str]:
    """The overrides that set a job's directories."""
    path = Path(sweep)
    return [
        f"run_dir={quoted(str(path / name))}",
        *(f"{key}={quoted(str(path))}" for key in ("sweep.dir", "hydra.sweep.dir")),
    ]
