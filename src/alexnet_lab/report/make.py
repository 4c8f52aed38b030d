"""The steps of report.py: from a sweep or runs to tables, figures, one HTML page and an optional W&B report."""

from __future__ import annotations

import itertools
import logging
import os
import time
from pathlib import Path

from alexnet_lab.base.errors import ConfigError, RunError, did_you_mean
from alexnet_lab.base.files import require_folder, try_folder, write_text
from alexnet_lab.base.formats import counted
from alexnet_lab.base.log import start_log
from alexnet_lab.config.schema import Report, listed
from alexnet_lab.report.comparison import PENDING, UNREADABLE, Study
from alexnet_lab.report.page import page
from alexnet_lab.report.readme import check_readme, write_readme
from alexnet_lab.report.sources import from_runs, from_sweep
from alexnet_lab.report.text_tables import state_line, summary_of
from alexnet_lab.sweeps.summary_tables import csv_text, markdown

log = logging.getLogger(__name__)


def make_report(config: Report) -> Path:
    """Writes `report.html`, `summary.md`, `summary.csv` and `figures/`, and logs the path.

    Args:
        config: A checked config of report.py.

    Returns:
        The path of report.html.

    Raises:
        ConfigError: The runs do not have the metric, or the report cannot be written there.
        RunError: There is no such sweep, no run is found, or none can be read.

    Example:
        >>> from alexnet_lab.config import check_report
        >>> make_report(check_report({"runs": "logs/runs/first", "out": "report"})).name
        'report.html'
    """
    start_log()
    folder = report_folder(config)
    if config.readme:
        check_readme(folder)
    study = _study(config)
    _check_metric(study, chosen=config.metric is not None or config.sweep is None)
    _warn_unreadable(study)
    try:
        _write(study, folder, readme=config.readme)
    except OSError as error:
        place = error.filename or folder
        raise RunError(f"the report cannot be written: {place}: {error.strerror or error}") from error
    path = folder / PAGE
    log.info("%s; report: %s", state_line(study), path)
    if config.wandb:
        from alexnet_lab.report.dashboard import publish  # noqa: PLC0415 - hundreds of pydantic models

        publish(study, folder, entity=config.entity, project=config.project)
    return path


def _study(config: Report) -> Study:
    """The study of the runs that the config names."""
    if config.sweep is not None:
        study = from_sweep(Path(config.sweep), other_images=config.other_images)
    else:
        study = from_runs(listed(config.runs), other_images=config.other_images)
    return study if config.metric is None else study.of_metric(config.metric)


def _warn_unreadable(study: Study) -> None:
    """Warns about unreadable runs; raises RunError if no other run has started."""
    bad = [run for run in study.runs if run.status == UNREADABLE]
    if not bad:
        return
    more = f"; and {len(bad) - MOST_NAMED} more, which the report lists" if len(bad) > MOST_NAMED else ""
    reasons = "; ".join(f"{run.name}: {run.error}" for run in bad[:MOST_NAMED]) + more
    message = f"{len(bad)} of {counted(len(study.runs), 'run')} cannot be read: {reasons}"
    if all(run.status in (UNREADABLE, PENDING) for run in study.runs):
        raise RunError(message)
    log.warning("%s", message)


MOST_NAMED = 3
"""The most runs that a warning names."""


def _write(study: Study, folder: Path, *, readme: bool) -> None:
    """Writes the page first: it marks the folder as that of a report."""
    write_text(folder / PAGE, page(study, folder))
    summary = summary_of(study, study.metric)
    write_text(folder / f"summary{study.suffix}.csv", csv_text(summary))
    write_text(folder / f"summary{study.suffix}.md", markdown(summary))
    _draw(study, folder / f"figures{study.suffix}")
    if readme:
        write_readme(study, folder)


def _check_metric(study: Study, *, chosen: bool) -> None:
    """Refuses a chosen metric that no run has. A sweep's own may have no value yet: no run has reached its goal."""
    known = study.metric_names()
    if not known or study.metric in known:
        return
    if chosen:
        raise ConfigError(f"no run has the metric `{study.metric}`; {did_you_mean(study.metric, known)}")
    log.warning("no run has a value of %s yet; metric=%s shows another metric", study.metric, known[0])


def _draw(study: Study, folder: Path) -> None:
    """Writes each figure as PNG and SVG."""
    from alexnet_lab.evaluation.figures.style import save  # noqa: PLC0415 - matplotlib takes half a second
    from alexnet_lab.report.figures import figures  # noqa: PLC0415

    for name, figure in figures(study).items():
        save(figure, folder, name)


PAGE = "report.html"

MARK = '<meta name="generator" content="alexnet-lab report">'
"""Marks each page, and so distinguishes a report from other folders."""

OTHERS = ("sweep.json", "config.yaml", "result.json")
"""Files of a sweep or a run; their folder is no place for a report on something else."""


def report_folder(config: Report) -> Path:
    """The folder in `out`, or the default, checked before any run is read.

    Raises:
        ConfigError: It cannot be written, or contains something other than a report.
    """
    sweep = None if config.sweep is None else Path(config.sweep)
    folder = Path(config.out) if config.out is not None else sweep or _free_folder()
    try:
        _check(folder, sweep)
    except OSError as error:
        raise ConfigError(f"the report cannot go to {folder}: {error.strerror or error}; choose {OUT}") from error
    return folder


OUT = "another folder: out=DIR"


def _free_folder() -> Path:
    """`logs/reports/<date>_<time>`, with a number if two reports start in one second."""
    name = f"logs/reports/{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return next(path for path in map(Path, itertools.chain([name], numbered)) if not os.path.lexists(path))


def _check(folder: Path, sweep: Path | None) -> None:
    require_folder(folder, "report", "out")
    own = sweep is not None and sweep.is_dir() and folder.is_dir() and folder.samefile(sweep)
    if folder.is_dir() and not own and any(folder.iterdir()) and not is_report(folder):
        raise ConfigError(f"the report cannot go to {folder}: the folder contains other files; choose {OUT}")
    try_folder(folder)


def is_report(folder: Path) -> bool:
    """Whether a folder contains a report and nothing that a report would overwrite."""
    page = folder / PAGE
    if not page.is_file() or any((folder / name).exists() for name in OTHERS):
        return False
    with page.open("rb") as file:
        return MARK.encode() in file.read(2000)
