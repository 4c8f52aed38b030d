"""One job of a sweep, under any launcher: runs, resumes or skips it and records the outcome."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, cast

from alexnet_lab.base.cluster import is_first
from alexnet_lab.base.environment import variables
from alexnet_lab.base.errors import AlexNetLabError, RunError, is_interrupt, one_line
from alexnet_lab.base.log import LABEL, start_log
from alexnet_lab.base.signals import deferred, handled, terminable
from alexnet_lab.config.schema import Train
from alexnet_lab.data.identity import RECORDED
from alexnet_lab.run import launcher
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.sweeps import job_states, results
from alexnet_lab.sweeps.definition import Definition, Job, split
from alexnet_lab.sweeps.gpu_leases import leased
from alexnet_lab.sweeps.shutdown import POLL_SECONDS, end_with_sweep
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

log = logging.getLogger(__name__)

ADDED = ("run_dir=", "sweep.", "launcher.jobs_side_by_side=")
"""Prefixes of overrides that a sweep adds to its jobs; they are not part of a job's identity."""


def run_job(config: Train) -> None:
    """Runs a job to its end, unless it is complete. A failure is recorded and logged, and the sweep continues.

    Args:
        config: Checked; `sweep.dir` and `run_dir` identify the job and its sweep.

    Raises:
        KeyboardInterrupt: After Ctrl-C or SIGTERM, which is recorded too.
    """
    start_log()
    os.environ.pop("WANDB_RUN_ID", None)  # otherwise all jobs would be one W&B run
    sweep = SweepDirectory(cast("str", config.sweep.dir))
    end_with_sweep(sweep.stop)
    if sweep.stop.exists():
        raise KeyboardInterrupt("the sweep is stopping")
    definition, job = _find(sweep, config.run_dir)
    while is_first() and sweep.run(job).in_use():  # a job of a killed sweep that is still ending
        time.sleep(POLL_SECONDS)
    if not sweep.is_done(job):
        shared = config.launcher.side_by_side > 1
        with (
            requeued_on_notice(),
            terminable(),
            variables(**{LABEL: short_name(job)}) if shared else contextlib.nullcontext(),
            leased(config.trainer, config.launcher.jobs_per_gpu),
        ):
            _run(sweep, definition, job, as_run(config))


@contextlib.contextmanager
def requeued_on_notice() -> Iterator[None]:
    """Within the block SLURM's notice of the time limit ends the run; then the job goes back into the queue.

    submitit asks SLURM for SIGUSR2 some time before the limit (`hydra.launcher.signal_delay_s`). Its handler would put
    the job back at once, in the middle of a step. Here SIGUSR2 ends the run as SIGTERM does, with a checkpoint, and the
    handler is called after the block. Without such a handler, or outside the main thread, nothing changes. Of a job on
    several nodes the first process acts, and the others end with it.
    """
    requeue = signal.getsignal(signal.SIGUSR2)
    if not callable(requeue):
        yield
        return
    noticed = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal noticed
        if is_first() and not noticed:
            noticed = True
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with handled({signal.SIGUSR2: end}):
            yield
    finally:
        if noticed:
            requeue(signal.SIGUSR2, None)


def short_name(job: Job) -> str:
    """A job's swept keys by their last parts.

    Example:
        >>> from alexnet_lab.sweeps.definition import Job
        >>> short_name(Job("model.norm-lrn_seed-0", ("model.norm=lrn", "seed=0")))
        'norm=lrn seed=0'
    """
    parts = (f"{key.rpartition('.')[2]}={value}" for key, value in split(job.overrides).items())
    return " ".join(parts) or job.name


def _find(sweep: SweepDirectory, run_dir: str) -> tuple[Definition, Job]:
    definition = sweep.read()
    if definition is not None:
        place = os.path.realpath(run_dir)
        for job in definition.jobs:
            if os.path.realpath(sweep.run(job).path) == place:
                return definition, job
    raise RunError(f"{run_dir} is no job of the sweep {sweep.path}")


def _run(sweep: SweepDirectory, definition: Definition, job: Job, config: Train) -> None:
    directory, side_by_side = sweep.run(job), config.launcher.side_by_side
    log.info("job %s%s", job.label, again(directory))
    images: dict[str, Any] = {}

    def inspect(found: Mapping[str, Any]) -> None:
        images.update({key: found.get(key) for key in RECORDED})
        results.check_images(sweep, definition, job, found, allowed=config.sweep.other_images)

    try:
        sweep.check_readable(job)
        result = launcher.run(config, resume=directory.can_be_resumed(), inspect=inspect)
    except BaseException as error:
        interrupted = is_interrupt(error)
        own = interrupted or isinstance(error, AlexNetLabError)
        text = one_line(error if own else f"{type(error).__name__}: {error}") or "interrupted"
        status = "interrupted" if interrupted else "failed"
        so_far = directory.readable_result() | images
        _record(sweep, definition, job_states.entry(sweep, job, so_far, status=status, error=text), side_by_side)
        if interrupted:  # ends the sweep, whose message contains the command to resume
            raise KeyboardInterrupt(re.split("; (?:resume|start) it", text)[0]) from error
        if not isinstance(error, Exception):
            raise
        log.error("job %s failed: %s", job.label, text)
        log.debug("traceback", exc_info=True)
    else:
        _record(sweep, definition, job_states.entry(sweep, job, result, status="completed", error=None), side_by_side)


def again(directory: RunDirectory) -> str:
    """How a job continues, for its log line; empty for a new job."""
    if not directory.config.exists():
        return ""
    return " resumes from its checkpoint" if directory.can_be_resumed() else " has no checkpoint: starts again"


def as_run(config: Train) -> Train:
    """A job's config as a run's: it runs in its own worker process."""
    launched = config.launcher
    changes = {
        "workers": True if launched.workers == "auto" else launched.workers,
        "jobs_side_by_side": 1 if launched.slurm else launched.jobs_side_by_side,  # SLURM gives each job its own cores
        "slurm": False,
    }
    own = {
        "launcher": launched.model_copy(update=changes),
        "sweep": config.sweep.model_copy(update={"dir": None}),  # the saved config is a run's, to be repeated elsewhere
        "overrides": [word for word in config.overrides if not word.startswith(ADDED)],
    }
    return config.model_copy(update=own)


def _record(sweep: SweepDirectory, definition: Definition, entry: dict[str, Any], side_by_side: int) -> None:
    """Appends to the ledger and updates the table; on several nodes only the first one does."""
    if is_first():
        with deferred():
            sweep.append(entry)
            summary = results.update_summary(sweep, definition)
            is_last = len(sweep.latest()) >= len(definition.jobs)  # then the sweep itself shows the table
            if entry["status"] != "interrupted" and not is_last:
                results.show(summary)
                log.info(job_states.bar_line(sweep, definition.jobs, side_by_side))
