"""What a report is about: runs, each with the level of the factor that it has, its seed, its curves, how it ended."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from alexnet_lab.base.errors import RunError
from alexnet_lab.run.directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PENDING = "to_go"
"""The status of a job that has not ended yet; the others are those of result.json."""


@dataclass(frozen=True)
class Run:
    """One run, as its directory tells it."""

    name: str
    path: Path
    level: str  # as it is shown
    seed: int | None
    status: str  # completed, failed, interrupted, to_go
    settings: Mapping[str, str] = field(default_factory=dict)  # what tells it from the others: overrides
    error: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, list[float | None]] = field(default_factory=dict)  # the columns of metrics.csv
    result: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """Runs that are compared.

    Attributes:
        title: Of the report.
        metric: The one that the claim is about.
        runs: In the order of the levels.
        levels: Their names, in the order of the definition.
        definition: What sweep.json says, or its like for runs that are no sweep: name, factor, base, claim, paper,
            command.
    """

    title: str
    metric: str
    runs: tuple[Run, ...]
    levels: tuple[str, ...]
    definition: Mapping[str, Any]

    @property
    def claim(self) -> str:
        """What the source says, in words; empty where the runs are no sweep of a claim."""
        return self.definition.get("claim") or ""

    @property
    def paper(self) -> str:
        """The source's number, and where it stands."""
        return self.definition.get("paper") or ""

    @property
    def command(self) -> str:
        """What makes these runs."""
        return self.definition.get("command") or ""

    @property
    def target(self) -> float | None:
        """The training error that runs were timed to reach (figure 1 of the paper), if they were."""
        return next((run.result["to_error"]["error"] for run in self.runs if run.result.get("to_error")), None)

    @property
    def completed(self) -> tuple[Run, ...]:
        """The runs that have reached their end."""
        return tuple(run for run in self.runs if run.status == "completed")

    @property
    def failures(self) -> tuple[Run, ...]:
        """The runs that ended before their end."""
        return tuple(run for run in self.runs if run.status not in ("completed", PENDING))

    def of_metric(self, metric: str) -> Study:
        """The same runs, looked at by another metric."""
        return replace(self, metric=metric)

    def metric_names(self) -> list[str]:
        """The metrics that completed runs have, the study's own first, then test/ before val/ before train/."""
        names = {name for run in self.completed for name in run.metrics}
        stages = ("test", "val", "train", "to_error")
        rest = sorted(names - {self.metric}, key=lambda name: (stages.index(name.split("/")[0]), name))
        return [self.metric, *rest] if self.metric in names else rest

    def curve_names(self) -> list[str]:
        """The columns of metrics.csv that can be drawn over the epochs, errors and losses first."""
        names = dict.fromkeys(name for run in self.runs for name in run.curves if name not in ("epoch", "step"))
        return sorted(names, key=_curve_place)


def _curve_place(name: str) -> tuple[int, str]:
    first = ("val/top1_error", "train/top1_error", "val/loss", "train/loss", "val/top5_error", "train/top5_error")
    return (first.index(name), "") if name in first else (len(first), name)


def read_run(path: Path, *, name: str, settings: Mapping[str, str] | None = None) -> Run:
    """A run from its directory alone; a damaged file makes it a failed one, with the reason.

    Args:
        path: The run's directory; where it is not there yet, the run is one to go.
        name: As it is shown.
        settings: What tells it from the others, e.g. the overrides of its job.
    """
    directory = RunDirectory(path)
    blank = Run(name, path, "", None, PENDING, settings=settings or {})
    if not path.is_dir():
        return blank
    try:
        return _read_run(blank, directory)
    except (RunError, OSError, ValueError) as error:
        return replace(blank, status="failed", error=str(error))


def _read_run(blank: Run, directory: RunDirectory) -> Run:
    result = directory.read_result()
    config = directory.read_config()
    directory.check_file(directory.config)
    curves = columns(directory.read_metrics())
    found = replace(blank, config=config, manifest=directory.read_manifest(), seed=config.get("seed"), curves=curves)
    if result is None:
        return found
    reached = {f"to_error/{name}": value for name, value in (result.get("to_error") or {}).items() if name != "error"}
    numbers = result["metrics"] | reached
    metrics = {name: float(value) for name, value in numbers.items() if value is not None}
    return replace(found, status=result["status"], error=result.get("error"), metrics=metrics, result=result)


def columns(rows: Sequence[Mapping[str, str]]) -> dict[str, list[float | None]]:
    """The rows of metrics.csv as columns; a cell without a finite number is None.

    Example:
        >>> columns([{"epoch": "0", "val/loss": "2.5"}, {"epoch": "1", "val/loss": ""}])
        {'epoch': [0.0, 1.0], 'val/loss': [2.5, None]}
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_number(row.get(name)) for row in rows] for name in names}


def _number(cell: str | None) -> float | None:
    """A cell's number; None for an empty one and for what is no finite number."""
    value = float(cell) if cell else math.nan
    return value if math.isfinite(value) else None
