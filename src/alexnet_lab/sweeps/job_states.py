"""The progress of a sweep: the state of each job, what is left, and how long that may take."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, Literal

from alexnet_lab.base.formats import counted, duration
from alexnet_lab.data.identity import RECORDED
from alexnet_lab.sweeps.definition import Job
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

State = Literal["done", "failed", "interrupted", "to go"]

LOG_LINES = 5
"""Lines of a failed job's log that the ledger keeps."""

KEPT = ("metrics", "epochs", "steps", "wall_seconds", "attempts", "gpus", *RECORDED)
"""The fields of result.json that the ledger repeats."""


def entry(sweep: SweepDirectory, job: Job, result: dict[str, Any], *, status: str, error: str | None) -> dict[str, Any]:
    """A job's line of the ledger, from its result.json if there is one."""
    log = last_lines(sweep, job) if status == "failed" else None
    return {
        "job": job.name, "run_dir": job.name, "content": job.key, "overrides": list(job.overrides), "status": status,
        **{key: result.get(key) for key in KEPT}, "error": error and without_place(error), "log": log,
    }  # fmt: skip


def last_lines(sweep: SweepDirectory, job: Job) -> list[str]:
    """The end of a job's log."""
    try:
        text = sweep.run(job).log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [without_place(line.rstrip()) for line in text.splitlines() if line.strip()][-LOG_LINES:]


def without_place(line: str) -> str:
    """A line without the folder of a package, of this repository or of the interpreter: ledgers are published.

    Example:
        >>> without_place('  File "/home/ann/lib/python3.11/site-packages/torch/nn/functional.py", line 7, in relu')
        '  File "torch/nn/functional.py", line 7, in relu'
        >>> without_place("interrupted; resume it: /home/ann/.venv/bin/python train.py resume=a")
        'interrupted; resume it: python train.py resume=a'
    """
    line = re.sub(r'File ".*/(?:site-packages|lib/python3\.\d+|src)/', 'File "', line)
    return re.sub(r"(?<= )/\S*/(?=python[\d.]* )", "", line)


def states(sweep: SweepDirectory, jobs: Iterable[Job]) -> dict[str, State]:
    """The state of each job by name. A finished run's own result takes precedence over the ledger."""
    latest = sweep.latest()
    return {job.name: _state(sweep, job, latest.get(job.name)) for job in jobs}


def _state(sweep: SweepDirectory, job: Job, line: dict[str, Any] | None) -> State:
    if sweep.is_done(job):
        return "done"
    if line is not None and line["status"] == "failed":
        return "failed"
    return "interrupted" if sweep.run(job).config.exists() else "to go"


def adopt(sweep: SweepDirectory, jobs: Iterable[Job]) -> None:
    """Adds finished jobs to the ledger that are missing: the sweep was killed in between, or a user resumed the run."""
    latest = sweep.latest()
    for job in jobs:
        if latest.get(job.name, {}).get("status") != "completed" and sweep.is_done(job):
            sweep.append(entry(sweep, job, sweep.run(job).readable_result(), status="completed", error=None))


def count_line(found: Collection[State]) -> str:
    """Formats the counts.

    Example:
        >>> count_line(["done", "done", "failed", "interrupted", "to go"])
        '5 jobs: 2 done, 1 failed, 2 to go (1 interrupted)'
    """
    counts = Counter(found)
    begun = f" ({counts['interrupted']} interrupted)" if counts["interrupted"] else ""
    to_go = counts["to go"] + counts["interrupted"]
    return f"{counted(len(found), 'job')}: {counts['done']} done, {counts['failed']} failed, {to_go} to go{begun}"


BAR = 20
"""The width of the bar in characters."""


def bar_line(sweep: SweepDirectory, jobs: Collection[Job], side_by_side: int) -> str:
    """The progress of a sweep as a bar, a count, and an estimate of the time left."""
    ended = sum(state in ("done", "failed") for state in states(sweep, jobs).values())
    filled = BAR * ended // len(jobs)
    bar = "#" * filled + "-" * (BAR - filled)
    return f"[{bar}] {ended}/{counted(len(jobs), 'job')}; to go: {estimate(sweep, len(jobs) - ended, side_by_side)}"


def estimate(sweep: SweepDirectory, left: int, side_by_side: int) -> str:
    """Estimates the time for the jobs that are left from the completed jobs of this sweep."""
    ended = [line for line in sweep.latest().values() if line["status"] == "completed"]
    walls = [line["wall_seconds"] for line in ended if line["wall_seconds"] is not None]
    if not left:
        return "nothing is left to do"
    if not walls:
        return "unknown, since no job of this sweep is complete yet"
    mean = sum(walls) / len(walls)
    return f"about {duration(mean * left / side_by_side)} (a job took {duration(mean)}, mean of {len(walls)})"
