"""Runs a sweep from its plan to its end: passes the remaining jobs to a launcher until none is left."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from alexnet_lab.base import shell
from alexnet_lab.base.errors import Interrupted, RunError, one_line
from alexnet_lab.base.log import start_log
from alexnet_lab.sweeps import job_states
from alexnet_lab.sweeps.definition import Job
from alexnet_lab.sweeps.preflight import Plan
from alexnet_lab.sweeps.shutdown import POLL_SECONDS, stoppable
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

Launch = Callable[[Sequence[list[str]]], object]

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
    _wait(sweep, plan.jobs)
    job_states.adopt(sweep, plan.jobs)
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
    """Launches jobs, and launches those that ended without a record (killed) again, up to `retries` times."""
    sweep, retries = plan.sweep, plan.launcher["retries"]
    vanished: Counter[str] = Counter()
    while left:
        error = "its process ended without a record"
        try:
            launch([plan.words[job.name] for job in left])
        except Exception as caught:  # a launcher may fail in any way; the jobs' records decide
            error = one_line(f"{error} ({type(caught).__name__}: {caught})")
            log.debug("the launcher failed", exc_info=True)
        _wait(sweep, left)
        left = _unrecorded(sweep, left, lines)
        for job in [job for job in left if sweep.run(job).config.exists()] or left:  # others had not started
            vanished[job.name] += 1
            log.warning("job %s: %s (%d of %d)", job.label, error, vanished[job.name], retries + 1)
            if vanished[job.name] > retries:
                sweep.append(job_states.entry(sweep, job, {}, status="failed", error=error))
        left = [job for job in left if vanished[job.name] <= retries]


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
    latest = sweep.latest()
    failed = [latest[job.name] for job in plan.jobs if latest[job.name]["status"] == "failed"]
    for line in failed:
        log.error("%s", "\n  ".join([f"{line['job']}: {line['error']}", *(line["log"] or [])]))
    log.info("%s in %s", job_states.count_line(job_states.states(sweep, plan.jobs).values()), sweep.path)
    results.refuse_other_images(plan.definition, latest, allowed=plan.settings.get("other_images", False))
    if failed:
        names = ", ".join(line["job"] for line in failed)
        problem = f"{len(failed)} of {len(plan.jobs)} jobs failed: {names}"
        raise RunError(f"{problem}; to try them again, repeat the command: {shell.typed()}")
    cut = [job.name for job in plan.jobs if latest[job.name]["status"] != "completed"]
    if cut:  # only these were stopped
        names = ", ".join(cut)
        raise RunError(
            f"{len(cut)} of {len(plan.jobs)} jobs did not end: {names}; resume with the same command: {shell.typed()}"
        )
