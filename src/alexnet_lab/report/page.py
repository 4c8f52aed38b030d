"""A study as one self-contained HTML file: tables, charts, and the library that draws them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from markupsafe import Markup

from alexnet_lab.base.formats import duration
from alexnet_lab.base.html import json_in_script, policy
from alexnet_lab.base.printable import printable_lines
from alexnet_lab.report.comparison import PARTIAL, Run, Study
from alexnet_lab.report.text_tables import amount, level_table, origin, state_line, status_words
from alexnet_lab.sweeps.summary_tables import WORDS

CHART_VERSION = "4.6.1"
"""Of Chart.js, which is in `assets/` as npm delivers it, with its licence."""

MOST_NUMBERS = 120_000
"""The most numbers of curves in a page, about 1 MB; longer curves are thinned evenly."""

DIGITS = 5
"""Significant digits of a number in a page; a screen shows no more."""


def page(study: Study, folder: Path) -> str:
    """Renders the page.

    Everything that comes from runs is escaped: texts by the template, data as JSON without `<`. Even if something got
    through, the page's policy runs no script but its own two.

    Args:
        study: The study.
        folder: The folder of the page; links to the runs' directories are relative to it.
    """
    step = epoch_step(study)
    code = {"chart": _without_map(_asset(f"chart-{CHART_VERSION}.umd.min.js")), "script": _asset("page.js")}
    environment = Environment(autoescape=True, finalize=_shown, trim_blocks=True, lstrip_blocks=True)
    tables = [level_table(study, metric) for metric in study.metric_names()]
    heads = {f"#table-{number}": dict(enumerate(table.head, start=1)) for number, table in enumerate(tables)}
    style = _asset("page.css") + card_labels(heads | {"#runs": RUN_COLUMNS | {6: study.metric}})
    return environment.from_string(_asset("page.html")).render(
        study=study,
        state=state_line(study),
        tables=tables,
        words={*WORDS, *(table.factor for table in tables)},
        has_partial=any(run.status in PARTIAL and run.curves for run in study.runs),
        has_curves=any(run.curves for run in study.runs),
        thinned=f" Every {ordinal(step)} epoch is drawn." if step > 1 else "",
        rows=[(run, _row(run, study, folder)) for run in study.runs],
        origin=origin(study),
        data=json_in_script(_data(study, folder, step)),
        chart_version=CHART_VERSION,
        style=style,
        policy=policy(code.values(), style),
        **code,
    )


def _shown(value: Any) -> Any:
    """Filters the values of the template; code, style and data are ours and stay unchanged."""
    return printable_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


RUN_COLUMNS = {3: "level", 4: "seed", 5: "status", 6: "", 7: "epochs", 8: "images/s", 9: "time"}
"""The labels of the table of runs by column number; the checkbox and the name have none."""


def card_labels(heads: Mapping[str, Mapping[int, str]]) -> str:
    """Style rules that show a column's head before each of its cells on narrow screens, where rows are cards.

    Args:
        heads: By the selector of the table: the heads of its columns, by number from 1.
    """
    rules = []
    for table, head in heads.items():
        for number, name in head.items():
            text = re.sub(r"\W", lambda sign: f"\\{ord(sign[0]):x} ", name)  # as CSS escapes: nothing ends the string
            rules.append(f'  {table} td:nth-child({number})::before {{ content: "{text}"; }}')
    return "\n".join(["@media (max-width: 56rem) {", *rules, "}", ""])


def _asset(name: str) -> str:
    return (resources.files("alexnet_lab.report") / "assets" / name).read_text(encoding="utf-8")


def _without_map(script: str) -> str:
    """Removes the line that would make a browser's tools look for another file."""
    return re.sub(r"\n//# sourceMappingURL=.*", "", script)


def _data(study: Study, folder: Path, step: int) -> dict[str, Any]:
    """The data for the page's script."""
    marks = {} if study.target is None else {"train/top1_error": study.target}
    return {"levels": study.levels, "marks": marks, "runs": [_run_data(run, study, folder, step) for run in study.runs]}


def _run_data(run: Run, study: Study, folder: Path, step: int) -> dict[str, Any]:
    epochs = run.curves.get("epoch", [])
    kept = [row for row in range(len(epochs)) if row % step == 0 or row == len(epochs) - 1]
    return {
        "name": run.name,
        "href": link(run, folder),
        "level": study.levels.index(run.level),
        "seed": run.seed,
        "completed": run.status == "completed",
        "partial": run.status in PARTIAL,
        "metrics": {name: _rounded(value) for name, value in run.metrics.items()},
        "epochs": [epochs[row] for row in kept],
        "curves": {
            name: [_rounded(values[row]) for row in kept]
            for name, values in run.curves.items()
            if name not in ("epoch", "step")
        },
    }


def epoch_step(study: Study) -> int:
    """The interval of epochs to draw, so that the page stays small."""
    numbers = sum(len(values) for run in study.runs for values in run.curves.values())
    return -(-numbers // MOST_NUMBERS) or 1


def ordinal(number: int) -> str:
    """Such as 2nd, 3rd, 11th."""
    last = 0 if number % 100 in (11, 12, 13) else number % 10
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(last, 'th') }"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


def link(run: Run, folder: Path) -> str:
    """The run's directory as a URL relative to `folder`; a colon or quotes in a name do not change the URL."""
    path = os.path.relpath(run.path, folder)
    return f"./{quote(os.fsencode(path))}/"


def _row(run: Run, study: Study, folder: Path) -> dict[str, Any]:
    """What the table of runs displays of a run, besides the run's own texts."""
    result = run.result
    return {
        "href": link(run, folder),
        "seed": "" if run.seed is None else run.seed,
        "status": status_words(run.status),
        "kind": "bad" if run in study.failures else "",
        "value": amount(study.metric, run.metrics.get(study.metric)),
        "epochs": result.get("epochs") or len(run.curves.get("epoch", [])) or "",
        "speed": f"{result['images_per_second']:,.0f}" if result.get("images_per_second") else "",
        "time": duration(result.get("wall_seconds")),
    }
