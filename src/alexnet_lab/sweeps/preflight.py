"""Before a sweep starts: every job's config is composed and checked, and what became of it so far is looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alexnet_lab.base import cluster
from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.shell import quoted
from alexnet_lab.sweeps.definition import Definition, Job, changes, describe, differences, extended, identity, named
from alexnet_lab.sweeps.directory import SweepDirectory
from alexnet_lab.sweeps.summary import base_level, split

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Compose = Callable[[Sequence[str]], dict[str, Any]]

NOT_IN_A_SWEEP = {
    "run_dir": "is the place of one run; a sweep's is hydra.sweep.dir=FOLDER",
    "resume": "goes on with one run; a sweep goes on when its command is given again",
    "sweep.dir": "is set by the sweep; choose its place by hydra.sweep.dir=FOLDER",
}
"""Keys that a sweep gives its jobs itself."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    place: str  # the sweep's directory
    common: tuple[str, ...]  # overrides of all jobs
    grid: tuple[tuple[str, ...], ...]  # those of each job
    command: str


@dataclass(frozen=True)
class Plan:
    """A checked sweep."""

    sweep: SweepDirectory
    definition: Definition
    jobs: tuple[Job, ...]  # those asked for now; a definition that was extended has more
    words: dict[str, list[str]]  # all overrides of a job, by its name
    configs: dict[str, dict[str, Any]]  # checked, by the job's name

    @property
    def settings(self) -> dict[str, Any]:
        """The `sweep` node: the same for all jobs."""
        return self.configs[self.jobs[0].name]["sweep"]

    @property
    def launcher(self) -> dict[str, Any]:
        """The `launcher` node: the same for all jobs."""
        return self.configs[self.jobs[0].name]["launcher"]


def plan(request: Request, compose: Compose) -> Plan:
    """Composes and checks every job.

    Args:
        request: The sweep.
        compose: Takes a job's overrides and returns its checked config; raises ConfigError.

    Raises:
        ConfigError: A job's config is wrong, or the directory holds a sweep that computes something else.
    """
    sweep = SweepDirectory(request.place)
    pairs = named(request.grid)
    keys = [word.partition("=")[0].lstrip("+~") for word in request.grid[0]]
    _check_keys([*keys, *(word.partition("=")[0].lstrip("+~") for word in request.common)])
    words = {name: [*request.common, *own, *_added(sweep, name)] for name, own in pairs}
    configs = {name: _composed(compose, name, words[name], several=len(pairs) > 1) for name, _ in pairs}
    jobs = tuple(Job(name, own, identity(configs[name])) for name, own in pairs)
    _check_nodes(configs)
    about = describe(configs[jobs[0].name]["sweep"], keys)
    about["name"] = about["name"] or sweep.path.name
    base_level(about, [split(own) for _, own in pairs])  # whether there is something to compare
    recorded = tuple(word for word in request.common if not word.startswith(("sweep.dry_run=", "sweep.extend=")))
    asked = Definition(about, request.command, recorded, jobs)
    extend = configs[jobs[0].name]["sweep"]["extend"]
    return Plan(sweep, _agreed(sweep, asked, extend=extend), jobs, words, configs)


def _check_keys(keys: Sequence[str]) -> None:
    for key in keys:
        if key in NOT_IN_A_SWEEP:
            raise ConfigError(f"`{key}` {NOT_IN_A_SWEEP[key]}")


def _check_nodes(configs: dict[str, dict[str, Any]]) -> None:
    """A sweep runs once, and jobs of several nodes need somebody who starts them there."""
    here = cluster.place()
    if here is not None:
        raise ConfigError(
            f"a sweep starts its jobs itself, but {here.size} processes were started to run this one; start it once"
        )
    nodes = {config["trainer"]["num_nodes"] for config in configs.values()}
    if nodes != {1} and not all(config["launcher"]["slurm"] for config in configs.values()):
        raise ConfigError(f"`trainer.num_nodes` is {max(nodes)}, which a sweep can start with launcher=slurm alone")
    if len(nodes) > 1:
        raise ConfigError("`trainer.num_nodes` is the same for all jobs of a sweep; start one sweep for each number")


def _added(sweep: SweepDirectory, name: str) -> list[str]:
    """The overrides that tell a job its place."""
    place = quoted(str(sweep.path))
    return [f"run_dir={quoted(str(sweep.path / name))}", f"sweep.dir={place}", f"hydra.sweep.dir={place}"]


def _composed(compose: Compose, name: str, words: Sequence[str], *, several: bool) -> dict[str, Any]:
    try:
        return compose(words)
    except ConfigError as error:
        raise ConfigError(f"{error} (job {name})" if several else str(error)) from error


def _agreed(sweep: SweepDirectory, asked: Definition, *, extend: bool) -> Definition:
    """The sweep's definition: the one asked for, or the one that is there with jobs added."""
    there = sweep.read()
    if there is None:
        return asked
    found = differences(there, asked)
    if not found:
        return asked
    if extend and not changes(there, asked):
        return extended(there, asked)
    mend = "choose another hydra.sweep.dir" + ("" if extend else "; sweep.extend=true adds jobs to it")
    raise ConfigError(f"{sweep.path} holds another sweep: {'; '.join(found)}; {mend}")
