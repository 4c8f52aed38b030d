"""The subject of a report: runs, each with its level of the factor, its seed, its curves and its status."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from alexnet_lab.base.checked_files import check_record, number
from alexnet_lab.base.errors import RunError, one_line
from alexnet_lab.base.flatten import flat
from alexnet_lab.base.printable import printable
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.run.run_files import Config
from alexnet_lab.sweeps.results import metric_of
from alexnet_lab.sweeps.subject import data_name, model_name

PENDING, RUNNING, UNFINISHED, UNREADABLE = "to_go", "running", "unfinished", "unreadable"
"""The status of a job that has not started; of a run without a result.json, in use by a process or not; and of a run
with unreadable files. Other statuses are those of result.json."""

PRUNED = "pruned"
"""The status of a trial that a search ended early."""

PARTIAL = ("interrupted", UNFINISHED, RUNNING, PRUNED)
"""Statuses of runs whose curves are shown as far as they go; they count towards no mean."""


@dataclass(frozen=True)
class Run:
    """One run, read from its directory."""

    name: str
    path: Path
    level: str  # as displayed
    seed: int | None
    status: str  # completed, failed, interrupted, or one of those above
    settings: Mapping[str, str] = field(default_factory=dict)  # its differences from the others: overrides
    model: str = ""  # as displayed
    data: str = ""  # likewise; differs between runs of different images
    error: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, list[float | None]] = field(default_factory=dict)  # the columns of metrics.csv
    result: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def measuring(self, metric: str) -> Run:
        """The same run, with a number of its result.json that is no metric of its own, such as `epochs`."""
        value = None if metric in self.metrics or self.status != "completed" else metric_of(self.result, metric)
        return self if value is None else replace(self, metrics={**self.metrics, metric: value})


@dataclass(frozen=True)
class Study:
    """Runs to compare.

    Attributes:
        title: Of the report.
        metric: The metric of the claim.
        runs: In the order of the levels.
        levels: Their names, in the order of the definition.
        definition: The content of sweep.json, or the same keys for runs without a sweep: name, factor, base, claim,
            paper, command.
    """

    title: str
    metric: str
    runs: tuple[Run, ...]
    levels: tuple[str, ...]
    definition: Mapping[str, Any]

    @property
    def claim(self) -> str:
        """The source's claim in words; empty if the runs are no sweep with a claim."""
        return self.definition.get("claim") or ""

    @property
    def paper(self) -> str:
        """The source's number, and where it is published."""
        return self.definition.get("paper") or ""

    @property
    def command(self) -> str:
        """The command that computes these runs."""
        return self.definition.get("command") or ""

    @property
    def suffix(self) -> str:
        """Of the files about another metric than the sweep's own, whose summary and figures stay as they are."""
        own = self.definition.get("metric")
        return "" if own in (None, self.metric) else "_" + re.sub(r"[^\w.-]+", "_", self.metric)

    @property
    def target(self) -> float | None:
        """The training error that the runs were timed to reach (figure 1 of the paper), if any."""
        return next((run.result["to_error"]["error"] for run in self.runs if run.result.get("to_error")), None)

    @property
    def completed(self) -> tuple[Run, ...]:
        """The completed runs."""
        return tuple(run for run in self.runs if run.status == "completed")

    @property
    def failures(self) -> tuple[Run, ...]:
        """The runs that ended before completion."""
        return tuple(run for run in self.runs if run.status not in ("completed", PENDING, RUNNING, PRUNED))

    @property
    def groups(self) -> dict[str, list[Run]]:
        """The runs by their data; only runs of one group are compared."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.data, []).append(run)
        return found

    @property
    def subject(self) -> dict[str, str]:
        """Model and data of the runs in words; if they differ, all of them."""
        named = {what: self.definition.get(what) or ", ".join(self.subject_names(what)) for what in ("model", "data")}
        return {what: text for what, text in named.items() if text}

    def subject_names(self, what: Literal["model", "data"]) -> list[str]:
        """The models or data sets of the runs, each once."""
        return list(dict.fromkeys(filter(None, (getattr(run, what) for run in self.runs))))

    def of_metric(self, metric: str) -> Study:
        """The same runs with another metric."""
        return replace(self, metric=metric, runs=tuple(run.measuring(metric) for run in self.runs))

    def metric_names(self) -> list[str]:
        """The metrics of completed runs: the study's own first, then test/ before val/ before train/."""
        names = {name for run in self.completed for name in run.metrics}
        stages = ("test", "val", "train", "to_error", "to_loss")
        rest = sorted(names - {self.metric}, key=lambda name: (_place(name.split("/")[0], stages), name))
        return [self.metric, *rest] if self.metric in names else rest

    def curve_names(self) -> list[str]:
        """The columns of metrics.csv to draw over the epochs: errors, losses, others; last, what most runs lack."""
        counts = Counter(name for run in self.runs for name in run.curves if name not in ("epoch", "step"))
        return sorted(counts, key=lambda name: (2 * counts[name] < len(self.runs), _place(name, FIRST_CURVES), name))


FIRST_CURVES = ("val/top1_error", "train/top1_error", "val/loss", "train/loss", "val/top5_error", "train/top5_error")


def _place(item: str, order: Sequence[str]) -> int:
    """The position of an item in an order; unknown items come last."""
    return order.index(item) if item in order else len(order)


def read_run(path: Path, *, name: str, settings: Mapping[str, str] | None = None) -> Run:
    """Reads a run from its directory. A run with an unreadable file has the status `unreadable` and the reason.

    Args:
        path: The run's directory; if it does not exist, the run has not started.
        name: As displayed.
        settings: Its differences from the other runs, e.g. the overrides of its job.
    """
    found = Run(displayable(name), path, "", None, PENDING, settings=settings or {})
    directory = RunDirectory(path)
    if not path.is_dir():
        return found
    try:
        config = directory.read_config()
        status = RUNNING if directory.in_use() else UNFINISHED  # unless there is a result.json
        found = replace(found, config=check_record(Config, config, directory.config), status=status)
        result = directory.read_result()
        directory.check_file(directory.config, result or {})
        found = replace(found, seed=found.config["seed"], curves=columns(directory.read_metrics(result or {})))
        known = flat(dict(found.config))
        found = replace(found, model=model_name(known), data=data_name(known), **_ended(result))
        if found.status == "interrupted" and directory.in_use():  # it has been resumed
            found = replace(found, status=RUNNING, error=None)
        return replace(found, manifest=directory.read_manifest())
    except (RunError, OSError) as error:
        return replace(found, status=UNREADABLE, error=displayable(str(error)), curves={}, metrics={}, result={})


GROUPS = {"train": None, "to_error": "error", "to_loss": "loss"}
"""The fields of result.json whose numbers are metrics, each with the one number that is a setting."""


def _ended(result: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields that come from result.json."""
    if result is None:
        return {}
    reached = {
        f"{group}/{name}": value
        for group, goal in GROUPS.items()
        for name, value in (result[group] or {}).items()
        if name != goal
    }
    metrics = {name: value for name, value in (result["metrics"] | reached).items() if value is not None}
    error = None if result["error"] is None else displayable(result["error"])
    return {"status": result["status"], "error": error, "metrics": metrics, "result": result}


def columns(rows: Sequence[Mapping[str, str]]) -> dict[str, list[float | None]]:
    """Turns the rows of metrics.csv into columns; a cell without a finite number is None.

    Example:
        >>> columns([{"epoch": "1", "val/loss": "2.5"}, {"epoch": "2", "val/loss": ""}])
        {'epoch': [1.0, 2.0], 'val/loss': [2.5, None]}
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [number(row.get(name, "")) for row in rows] for name in names}


def displayable(text: str) -> str:
    """Foreign text as one line of limited length, without control characters."""
    line = printable(one_line(text))
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]}..."


LONGEST_TEXT = 1000
"""The most characters of a displayed text."""
