"""Texts of a report: the table of levels, the progress of the study, the origin of its runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from alexnet_lab.base.formats import counted, duration
from alexnet_lab.report.comparison import PENDING, PRUNED, RUNNING, UNFINISHED, UNREADABLE, Run, Study
from alexnet_lab.report.forest import forest_svg
from alexnet_lab.run.run_files import computed_on
from alexnet_lab.sweeps.definition import SEED
from alexnet_lab.sweeps.summary import LEFT_OUT, Outcome, Row, Summary, summarise
from alexnet_lab.sweeps.summary_tables import cells, effect_lines, reading, verdict_lines


class LevelTable(NamedTuple):
    """The levels' means of one metric, as text."""

    metric: str
    factor: str  # the column of the level's name
    head: list[str]
    rows: list[list[str]]
    lines: list[str]  # the verdicts
    note: str
    forest: str  # the forest plot as markup; empty if nothing is compared


def summary_of(study: Study, metric: str) -> Summary:
    """Summarises the levels in one metric. Runs without a sweep are compared within the same images."""
    about = {**study.definition, **study.subject, "metric": metric}
    chosen_by = study.definition.get("metric") or study.metric  # whatever metric the report is about
    if metric != chosen_by:
        about |= {"paper_points": None, "expects": None}  # the claim is about the sweep's own metric
    if not study.definition.get("loose"):
        return _summary(study.runs, about, metric, chosen_by)
    several = len(study.subject_names("data")) > 1 or len(study.subject_names("model")) > 1
    rows = [
        row
        for runs in study.groups.values()
        for row in _of_group(runs, _summary(runs, about, metric, chosen_by).rows, several=several)
    ]
    return Summary(about, rows)


def _summary(runs: Sequence[Run], about: Mapping[str, Any], metric: str, chosen_by: str) -> Summary:
    """A single level has no factor."""
    single = len({run.level for run in runs}) == 1
    chosen_by = chosen_by.replace("test/", "val/")  # nothing is chosen on the test set
    also = about.get("also") or ()
    outcomes = [
        Outcome(_seed_alone(run) if single else dict(run.settings), LEFT_OUT_AS.get(run.status, run.status),
                _value(run, metric), _value(run, chosen_by), tuple(_value(run, name) for name in also),
                computed_on(run.manifest)) for run in runs
    ]  # fmt: skip
    return summarise({**about, "factor": [], "base": [], "tuned": []} if single else about, outcomes)


def _of_group(runs: Sequence[Run], rows: Sequence[Row], *, several: bool) -> list[Row]:
    """The rows of runs on the same images, named by level, and by data and model if the table has several."""
    first = {run.settings["level"]: run for run in reversed(runs)}
    found = []
    for row in rows:
        level = dict(row.cell.level).get("level", runs[0].settings["level"])
        group = (("data", first[level].data), ("model", first[level].model)) if several else ()
        found.append(replace(row, cell=row.cell._replace(level=(("level", level),)), group=group))
    return found


def _value(run: Run, metric: str) -> float | None:
    return run.measuring(metric).metrics.get(metric) if run.status == "completed" else None


LEFT_OUT_AS = {RUNNING: PENDING, UNFINISHED: PENDING}
"""The status under which the table of levels counts a run without a result."""


def _seed_alone(run: Run) -> dict[str, str]:
    return {key: value for key, value in run.settings.items() if key == SEED}


def level_table(study: Study, metric: str) -> LevelTable:
    """The table of levels for one metric."""
    summary = summary_of(study, metric)
    head, rows = cells(summary)
    lines = [line.removeprefix("- ") for line in (*verdict_lines(summary), *effect_lines(summary))]
    place = len(summary.rows[0].group)
    head[place] = head[place] or "level"
    return LevelTable(metric, head[place], head, rows, lines, reading(summary), forest_svg(summary))


def state_line(study: Study) -> str:
    """The number of runs by status.

    Example: `14 of 15 runs completed, 1 failed`.
    """
    counts = {status: sum(run.status == status for run in study.runs) for status in INCOMPLETE}
    others = [f"{count} {status_words(status)}" for status, count in counts.items() if count]
    done = f"{len(study.completed)} of {counted(len(study.runs), 'run')} completed"
    return ", ".join([done, *others])


INCOMPLETE = ("failed", "interrupted", UNREADABLE, UNFINISHED, PRUNED, RUNNING, PENDING)
"""The statuses of runs that are not completed, in the order of the line."""


def status_words(status: str) -> str:
    """A status as displayed."""
    return LEFT_OUT.get(status, status)


def origin(study: Study) -> list[tuple[str, str]]:
    """Commit, versions and hardware of the runs; if they differ, all of them."""
    manifests = [run.manifest for run in study.runs if run.manifest]
    facts = {
        "commit": _distinct(_commit(manifest["git"] or {}) for manifest in manifests),
        "versions": _distinct(_versions(manifest) for manifest in manifests),
        "hardware": _distinct(_hardware(manifest["hardware"] or {}) for manifest in manifests),
        "system": _distinct(manifest["system"] for manifest in manifests),
        "time": _spent(study.runs),
    }
    return [(name, text) for name, text in facts.items() if text]


def _distinct(texts: Iterable[str]) -> str:
    return "; or ".join(dict.fromkeys(text for text in texts if text))


def _commit(git: Mapping[str, Any]) -> str:
    return f"{git['commit']}{' with changes that are in no commit' if git['dirty'] else ''}" if git else ""


def _versions(manifest: Mapping[str, Any]) -> str:
    python = manifest["python"]
    packages = [f"{name} {version}" for name, version in manifest["packages"].items()]
    return ", ".join([f"Python {python}", *packages] if python else packages)


def _hardware(found: Mapping[str, Any]) -> str:
    cores, memory = found.get("cores"), found.get("memory_gib")
    processor = ", ".join(str(word) for name in ("processor", "instructions") if (word := found.get(name)))
    host = [" of ".join(filter(None, [cores and f"{cores} cores", processor])), memory and f"{memory} GiB"]
    gpus = found.get("gpus") or (["no GPU"] if any(host) else [])
    return ", ".join(filter(None, [*host, *gpus]))


def _spent(runs: Iterable[Run]) -> str:
    """The total time of all runs."""
    seconds = [run.result["wall_seconds"] for run in runs if run.result.get("wall_seconds")]
    return f"{duration(sum(seconds))} for {counted(len(seconds), 'run')}" if seconds else ""


def amount(metric: str, value: float | None) -> str:
    """A metric's value as text; errors in per cent.

    Example:
        >>> amount("test/top1_error", 0.0123), amount("test/loss", 0.51234), amount("to_error/epochs", 12.0)
        ('1.23 %', '0.5123', '12')
    """
    if value is None:
        return ""
    return f"{value:.2%}".replace("%", " %") if metric.endswith("_error") else f"{value:.4g}"
