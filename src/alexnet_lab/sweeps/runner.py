"""Runs a sweep from its plan to its end: passes the remaining jobs to a launcher until none is left."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from alexnet_lab.base import shell
from alexnet_lab.base.errors import Interrupted, JobsCancelledError, RunError, one_line
from alexnet_lab.base.formats import counted
from alexnet_lab.base.log import start_log
from alexnet_lab.sweeps import job_states
from alexnet_lab.sweeps.definition import Job
from alexnet_lab.sweeps.preflight import Plan
from alexnet_lab.sweeps.shutdown import POLL_SECONDS, stoppable
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

Launch = Callable[[Sequence[list[str]]], object]

RELAUNCH_SECONDS = 5.0
"""The pause after a launch that started no job, such as one that SLURM did not answer."""

log = logging.getLogger(__name__)


class BegunMeanwhileError(RunError):
    """The directory was free when the sweep was planned, but no longer is."""


def drive(plan: Plan, launch: Launch) -> None:
    """Runs the remaining jobs of a sweep.

    Args:
        plan: The checked sweep.
        launch: Runs jobs, given by their overrides, and returns when all have ended. It may raise; jobs without a
            new line in the ledger are then launched again.

    Raises:
        BegunMeanwhileError: Another process has started another sweep in the same directory.
        RunError: Another process runs the sweep, or jobs failed; the message names them.
        Interrupted: After Ctrl-C or SIGTERM; resume with the same command.
    """
    start_log()
    sweep = plan.sweep
    if plan.there is None and not sweep.begin(plan.definition) and sweep.read() != plan.definition:
        raise BegunMeanwhileError(f"another process has started a sweep in {sweep.path}; repeat the command")
    with sweep.claimed(), stoppable(sweep.stop, lambda: busy(sweep, plan.jobs)):
        if sweep.read() not in (plan.there, plan.definition):
            raise RunError(f"another process has changed the sweep {sweep.path} meanwhile; repeat the command")
        log.info("sweep directory: %s", sweep.path)
        run_left(plan, launch)
        _finish(plan)


def run_left(plan: Plan, launch: Launch) -> None:
    """Runs the jobs of a plan that are not done, in a locked sweep; raises Interrupted like `drive`."""
    sweep = plan.sweep
    sweep.write(plan.definition)
    if running := [job.label for job in plan.jobs if sweep.run(job).in_use()]:
        log.info("waiting until these jobs end, which another process runs: %s", ", ".join(running))
    _wait(sweep, plan.jobs)
    job_states.adopt(sweep, plan.definition.jobs)
    states = job_states.states(sweep, plan.jobs)
    log.info(job_states.count_line(states.values()))
    lines = _lines(sweep)
    left = [job for job in plan.jobs if states[job.name] != "done"]
    try:
        _run(plan, left, lines, launch)
    except KeyboardInterrupt as error:
        _record_killed(sweep, left, lines)
        counts = job_states.count_line(job_states.states(sweep, plan.jobs).values())
        raise Interrupted(
            f"{one_line(error) or 'interrupted'}; {counts}; resume with the same command: {shell.typed()}"
        ) from error


def _run(plan: Plan, left: list[Job], lines: Counter[str], launch: Launch) -> None:
    """Launches jobs, and launches those that ended without a record (killed) again, up to `retries` times.

    The workers of joblib end together if one is killed. So jobs that ended together get their last attempt alone: a job
    that always dies fails, and its neighbours do not.
    """
    sweep, retries = plan.sweep, plan.launcher.retries
    vanished: Counter[str] = Counter()
    together: set[str] = set()
    in_vain = 0  # launches in a row that started no job
    while left:
        alone = [job for job in left if job.name in together and vanished[job.name] == retries][:1]
        ended, started, failure = _launched(plan, alone or left, lines, launch)
        in_vain = in_vain + 1 if failure and len(ended) == len(alone or left) and not started else 0
        if in_vain > retries:
            raise RunError(f"no job could be started ({failure}); repeat the command: {shell.typed()}")
        if in_vain:
            log.warning("no job could be started (%s); trying again (%d of %d)", failure, in_vain, retries)
            time.sleep(RELAUNCH_SECONDS)
            continue
        if failure and len(started) > 1:
            together.update(job.name for job in started)
        error = "its process ended without a record" + (f" ({failure})" if failure else "")
        for job in started or ended:
            vanished[job.name] += 1
            log.warning("job %s: %s (%d of %d)", job.label, error, vanished[job.name], retries + 1)
            if vanished[job.name] > retries:
                sweep.append(job_states.entry(sweep, job, {}, status="failed", error=error))
        left = [job for job in _unrecorded(sweep, left, lines) if vanished[job.name] <= retries]


class Launched(NamedTuple):
    """What became of the jobs of a launch."""

    ended: list[Job]  # without a record
    started: list[Job]  # of these
    failure: str | None  # the launcher's error


def _launched(plan: Plan, jobs: list[Job], lines: Counter[str], launch: Launch) -> Launched:
    """Launches jobs and waits until they have ended; records those that were cancelled in a queue as interrupted."""
    sweep, failure = plan.sweep, None
    before = {job.name: _traces(sweep, job) for job in jobs}
    try:
        launch([plan.words[job.name] for job in jobs])
    except JobsCancelledError as caught:
        _wait(sweep, jobs)
        for job in _unrecorded(sweep, jobs, lines):
            sweep.append(job_states.entry(sweep, job, {}, status="interrupted", error=one_line(caught)))
    except Exception as caught:  # a launcher may fail in any way; the jobs' records decide
        failure = f"{type(caught).__name__}: {one_line(caught)}"
        log.debug("the launcher failed", exc_info=True)
    _wait(sweep, jobs)
    ended = _unrecorded(sweep, jobs, lines)
    return Launched(ended, [job for job in ended if _traces(sweep, job) != before[job.name]], failure)


def _traces(sweep: SweepDirectory, job: Job) -> list[int]:
    """What a job changes when it starts."""
    run = sweep.run(job)
    return [path.stat().st_mtime_ns for path in (run.config, run.log) if path.exists()]


def _lines(sweep: SweepDirectory) -> Counter[str]:
    """The number of lines that each job has in the ledger."""
    return Counter(line["job"] for line in sweep.entries())


def _unrecorded(sweep: SweepDirectory, jobs: list[Job], lines: Counter[str]) -> list[Job]:
    """The jobs without a new line in the ledger since `lines` were counted."""
    now = _lines(sweep)
    return [job for job in jobs if now[job.name] == lines[job.name]]


def busy(sweep: SweepDirectory, jobs: Iterable[Job]) -> bool:
    """Whether a process works on one of the jobs."""
    return any(sweep.run(job).in_use() for job in jobs)


def _wait(sweep: SweepDirectory, jobs: Iterable[Job]) -> None:
    """Waits until no process works on the jobs: a killed launcher or sweep may leave some running."""
    while busy(sweep, jobs):
        time.sleep(POLL_SECONDS)


def _record_killed(sweep: SweepDirectory, left: list[Job], lines: Counter[str]) -> None:
    """Records jobs that the launcher killed on an interrupt before they could do so themselves."""
    _wait(sweep, left)
    for job in _unrecorded(sweep, left, lines):
        if job_states.states(sweep, [job])[job.name] == "interrupted":
            error = "killed when the sweep was interrupted"
            sweep.append(job_states.entry(sweep, job, {}, status="interrupted", error=error))


def _finish(plan: Plan) -> None:
    """Reports how the sweep ended; raises RunError if jobs failed."""
    from alexnet_lab.sweeps import results  # noqa: PLC0415 - slow to import

    sweep = plan.sweep
    results.show(results.update_summary(sweep, plan.definition))
    latest, total = sweep.latest(), counted(len(plan.jobs), "job")
    failed = [latest[job.name] for job in plan.jobs if latest[job.name]["status"] == "failed"]
    for line in failed:
        log.error("%s", "\n  ".join([f"{line['job']}: {line['error']}", *(line["log"] or [])]))
    log.info("%s in %s", job_states.count_line(job_states.states(sweep, plan.jobs).values()), sweep.path)
    results.refuse_other_images(plan.definition, latest, allowed=plan.settings.other_images)
    if failed:
        names = ", ".join(line["job"] for line in failed)
        problem = f"{len(failed)} of {total} failed: {names}"
        raise RunError(f"{problem}; to try them again, repeat the command: {shell.typed()}")
    cut = [job.name for job in plan.jobs if latest[job.name]["status"] != "completed"]
    if cut:  # only these were stopped
        names = ", ".join(cut)
        raise RunError(f"{len(cut)} of {total} did not end: {names}; resume with the same command: {shell.typed()}")
