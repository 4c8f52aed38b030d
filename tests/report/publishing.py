"""What must hold of a folder of published sweeps, `results/`: its pages, tables and records agree."""

from __future__ import annotations

import csv
import math
import runpy
from typing import TYPE_CHECKING, Any

from commands import REPOSITORY

from alexnet_lab.base.errors import AlexNetLabError
from alexnet_lab.report.readme import local_names, readme
from alexnet_lab.report.sources import from_sweep
from alexnet_lab.report.text_tables import summary_of
from alexnet_lab.sweeps.job_states import KEPT
from alexnet_lab.sweeps.summary_tables import csv_text, markdown
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from alexnet_lab.run.run_directory import RunDirectory

CLAIMS = runpy.run_path(str(REPOSITORY / "tools" / "claims.py"))


def faults(results: Path) -> list[str]:
    """What does not agree, a line each; nothing in `results` is changed."""
    found = [fault for path in sorted(results.glob("*/sweep.json")) for fault in _of_sweep(path.parent)]
    found += [f"evaluations/{path} names {name}" for path, name in local_names(results / "evaluations").items()]
    CLAIMS["study_of"].cache_clear()
    if _text(results / "README.md") != CLAIMS["page"](results):
        found.append("README.md is not what tools/claims.py writes")
    return found


def _of_sweep(folder: Path) -> Iterator[str]:
    study = from_sweep(folder)
    summary = summary_of(study, study.metric)
    for name, text in {"README.md": readme(study, folder), "summary.md": markdown(summary)}.items():
        if _text(folder / name) != text:
            yield f"{folder.name}/{name} is not what report.py writes"
    if not _same_numbers(_text(folder / "summary.csv"), csv_text(summary)):
        yield f"{folder.name}/summary.csv is not what report.py writes"
    for path, name in local_names(folder).items():
        yield f"{folder.name}/{path} names {name}"
    directory = SweepDirectory(folder)
    definition, lines = directory.read(), directory.latest()
    assert definition is not None
    for job in definition.jobs:
        line, run = lines.get(job.name), directory.run(job)
        started = line["status"] == "completed" if line else run.path.exists()  # the page counts jobs that are to go
        if started:
            yield from (f"{folder.name}/{job.name}: {fault}" for fault in _of_run(run, line))


def _of_run(run: RunDirectory, line: dict[str, Any] | None) -> Iterator[str]:
    """The record of a run beside its line of the ledger; its files beside their hashes; where it was computed."""
    if line is None:
        yield "no line in the ledger"
        return
    try:
        result, manifest = run.read_result() or {}, run.read_manifest()
        run.check_file(run.config)
        run.check_file(run.metrics)
    except AlexNetLabError as error:
        yield str(error)
        return
    yield from (f"`{key}` is not that of the ledger" for key in KEPT if result.get(key) != line[key])
    git = manifest.get("git") or {}
    if not git.get("commit") or git.get("dirty"):
        yield f"no clean commit: {git}"


def _same_numbers(one: str, other: str) -> bool:
    """Whether two tables agree; other versions of scipy may round the last digit of a p value in another way."""
    tables = [[cell for row in csv.reader(text.splitlines()) for cell in row] for text in (one, other)]
    return len(tables[0]) == len(tables[1]) and all(map(_same_cell, *tables))


def _same_cell(one: str, other: str) -> bool:
    try:
        return math.isclose(float(one), float(other), rel_tol=1e-9, abs_tol=1e-12)
    except ValueError:
        return one == other


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
