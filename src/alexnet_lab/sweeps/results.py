"""After each job: reads the sweep's directory, writes `summary.csv` and `summary.md`, and prints the table."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from alexnet_lab.base.errors import DataError, RunError
from alexnet_lab.base.files import write_text
from alexnet_lab.base.flatten import at
from alexnet_lab.data.identity import Result, on_other_images
from alexnet_lab.run.pruning import pruned_jobs
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.run.run_files import computed_on
from alexnet_lab.sweeps.columns import Columns, columns
from alexnet_lab.sweeps.definition import Definition, Job
from alexnet_lab.sweeps.subject import subject
from alexnet_lab.sweeps.summary import Outcome, Summary, summarise
from alexnet_lab.sweeps.summary_tables import csv_text, markdown, terminal_table
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

log = logging.getLogger(__name__)


def update_summary(directory: SweepDirectory, definition: Definition) -> Summary:
    """Rewrites `summary.csv` and `summary.md`, each atomically."""
    with directory.locked():
        about = definition.about | subject(definition)
        summary = summarise(about, outcomes(directory, definition))
        write_text(directory.summary_csv, csv_text(summary))
        write_text(directory.summary_md, markdown(summary))
    return summary


def show(summary: Summary) -> None:
    """Prints the table to standard output; without a terminal it is as wide as it needs."""
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDE).print(terminal_table(summary))


WIDE = 160
"""Columns of a table in a file."""


def outcomes(directory: SweepDirectory, definition: Definition) -> list[Outcome]:
    """The outcome of each job, in the sweep's order."""
    latest = directory.latest()
    found = [
        _outcome(directory.run(job), values, _line(job, latest), definition.about)
        for job, values in zip(definition.jobs, columns(definition), strict=True)
    ]
    aside = dict.fromkeys(pruned_jobs(directory.path), "pruned")
    if not definition.about.get("other_images"):
        aside |= dict.fromkeys(jobs_on_other_images(definition, latest), "other_images")
    return [
        Outcome(outcome.overrides, aside[job.name]) if job.name in aside and outcome.status == "completed" else outcome
        for job, outcome in zip(definition.jobs, found, strict=True)
    ]


def jobs_on_other_images(
    definition: Definition, latest: Mapping[str, Mapping[str, Any]], statuses: Sequence[str] = ("completed",)
) -> dict[str, str]:
    """The jobs whose images differ from those of the others, by name, with the difference.

    Args:
        definition: Of the sweep.
        latest: The last line of the ledger of each job.
        statuses: Of the jobs to compare, reference jobs first.
    """
    return on_other_images(result for status in statuses for result in _ended(definition, latest, status))


def check_images(
    directory: SweepDirectory, definition: Definition, job: Job, found: Mapping[str, Any], *, allowed: bool
) -> None:
    """Refuses to train a job on other images than those of the finished jobs, unless allowed.

    Args:
        directory: Of the sweep.
        definition: Of the sweep.
        job: The job that is about to start.
        found: The record of its images.
        allowed: Warn instead.

    Raises:
        DataError: The images differ; the message contains the difference.
    """
    others = ((other, directory.run(other)) for other in definition.jobs if other.name != job.name)
    done = [(other, run.read_result() or {}) for other, run in others if run.is_completed()]
    results = [Result(other.name, _data_of(other), result) for other, result in done]
    conflict = on_other_images([*results, Result(job.name, _data_of(job), found)]).get(job.name)
    if conflict is None:
        return
    if not allowed:
        raise DataError(f"{conflict}; {REMEDY}")
    log.warning("%s; sweep.other_images=true continues", conflict)


def refuse_other_images(definition: Definition, latest: Mapping[str, Mapping[str, Any]], *, allowed: bool) -> None:
    """Raises RunError if completed jobs used other images than the rest, unless allowed."""
    others = {} if allowed else jobs_on_other_images(definition, latest)
    if others:
        raise RunError(
            f"{next(iter(others.values()))}; the table leaves such jobs out ({len(others)}): delete their "
            f"directories to train them again, or set sweep.other_images=true"
        )


REMEDY = "restore the data set, choose another hydra.sweep.dir, or continue with sweep.other_images=true"


def _ended(definition: Definition, latest: Mapping[str, Mapping[str, Any]], status: str) -> list[Result]:
    """The jobs that ended with a status, with the images that the ledger records."""
    lines = [(job, latest.get(job.name)) for job in definition.jobs]
    return [Result(job.name, _data_of(job), line) for job, line in lines if line and line["status"] == status]


def _data_of(job: Job) -> dict[str, Any]:
    """The `data` node of a job's flat config."""
    return {key.removeprefix("data."): value for key, value in job.config.items() if key.startswith("data.")}


def _line(job: Job, latest: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The ledger's last line about a job; a line about another job with the same name does not count."""
    line = latest.get(job.name)
    return line if line is not None and (line.get("content") or job.key) == job.key else None


def _outcome(
    run: RunDirectory, overrides: Columns, entry: Mapping[str, Any] | None, about: Mapping[str, Any]
) -> Outcome:
    metric = about["metric"]
    if entry is None or entry["status"] != "completed":
        return Outcome(overrides, "to_go" if entry is None else entry["status"])
    chosen_by = metric.replace("test/", "val/")  # nothing is chosen on the test set
    try:
        also = tuple(measured(run, entry, name) for name in about.get("also") or ())
        value, choice = measured(run, entry, metric), measured(run, entry, chosen_by)
        return Outcome(overrides, "completed", value, choice, also, computed_on(run.read_manifest()))
    except RunError as error:
        log.warning("%s", error)
        return Outcome(overrides, "unreadable")


def measured(run: RunDirectory, entry: Mapping[str, Any], metric: str) -> float | None:
    """A metric of a finished job, or a number of its result.json by its path such as `to_error/epochs`, or None."""
    metrics = with_gap(entry["metrics"] or {})
    if metric in metrics:
        return _number(metrics[metric])
    return metric_of(run.read_result() or {}, metric)  # for a ledger that was edited or cut short too


def metric_of(result: Mapping[str, Any], metric: str) -> float | None:
    """A metric of a result.json, or a number in it by its path such as `to_error/epochs`, or None."""
    metrics = with_gap(result.get("metrics") or {})
    return _number(metrics[metric] if metric in metrics else at(result, metric, "/"))


def with_gap(metrics: Mapping[str, float]) -> dict[str, float]:
    """Adds `gap/...` to metrics: the validation metric minus the training metric, if both exist.

    The training metric is that of `train_set/`, otherwise that of `train/`, measured during training (augmented, with
    dropout).
    """
    found = {**metrics}
    for name in ("top1_error", "loss"):
        val = metrics.get(f"val/{name}")
        train = metrics.get(f"train_set/{name}", metrics.get(f"train/{name}"))
        if val is not None and train is not None:
            found[f"gap/{name}"] = val - train
    return found


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
