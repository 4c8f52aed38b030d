"""What report.py does: from a sweep or runs to tables, figures, one HTML page and, if asked for, a W&B report."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_lab.base.errors import ConfigError, did_you_mean
from alexnet_lab.base.files import write_text
from alexnet_lab.base.log import start_log
from alexnet_lab.report.page import page
from alexnet_lab.report.sources import from_runs, from_sweep
from alexnet_lab.report.tables import state_line, summary_of
from alexnet_lab.sweeps.tables import csv_text, markdown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alexnet_lab.report.study import Study

log = logging.getLogger(__name__)


def make_report(config: Mapping[str, Any]) -> Path:
    """Writes `report.html`, `summary.md`, `summary.csv` and `figures/`, and says where.

    Args:
        config: A checked config of report.py.

    Returns:
        The path of report.html.

    Raises:
        ConfigError: The metric is none that the runs have.
        RunError: There is no such sweep, or no run is found.
    """
    start_log()
    study, folder = _study(config)
    _check_metric(study)
    summary = summary_of(study, study.metric)
    name = _summary_name(study)
    write_text(folder / f"{name}.csv", csv_text(summary))
    write_text(folder / f"{name}.md", markdown(summary))
    path = folder / "report.html"
    write_text(path, page(study, folder))
    _draw(study, folder / "figures")
    log.info("%s; report: %s", state_line(study), path)
    if config["wandb"]:
        from alexnet_lab.report.dashboard import publish  # noqa: PLC0415 - pydantic models by the hundred

        publish(study, folder, entity=config["entity"], project=config["project"])
    return path


def _study(config: Mapping[str, Any]) -> tuple[Study, Path]:
    """The study, and the folder that its report goes to."""
    if config["sweep"] is not None:
        study = from_sweep(Path(config["sweep"]), other_images=config["other_images"])
        default = config["sweep"]
    else:
        runs = config["runs"]
        study = from_runs([runs] if isinstance(runs, str) else runs, other_images=config["other_images"])
        default = f"logs/reports/{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    if config["metric"] is not None:
        study = study.of_metric(config["metric"])
    return study, Path(config["out"] or default)


def _summary_name(study: Study) -> str:
    """A sweep's own summary stays what it is where another metric is asked for."""
    own = study.definition.get("metric")
    return "summary" if own in (None, study.metric) else f"summary_{study.metric.replace('/', '_')}"


def _check_metric(study: Study) -> None:
    known = study.metric_names()
    if known and study.metric not in known:
        raise ConfigError(f"no run has the metric `{study.metric}`; {did_you_mean(study.metric, known)}")


def _draw(study: Study, folder: Path) -> None:
    """Writes each figure as PNG and SVG."""
    from alexnet_lab.evaluation.figures.style import save  # noqa: PLC0415 - matplotlib takes half a second
    from alexnet_lab.report.figures import figures  # noqa: PLC0415

    for name, figure in figures(study).items():
        save(figure, folder, name)
