"""README.md of a published sweep: claim, what was run and on what, table, verdicts, commands.

Every number comes from the sweep's directory, so the same directory gives the same text on any machine.
"""

from __future__ import annotations

import logging
import re
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from alexnet_lab.base import shell
from alexnet_lab.base.checked_files import read_text
from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.base.files import write_text
from alexnet_lab.base.formats import counted, duration
from alexnet_lab.base.places import PUBLISHED
from alexnet_lab.base.printable import printable
from alexnet_lab.report.comparison import Run, Study
from alexnet_lab.report.text_tables import state_line, summary_of
from alexnet_lab.run.run_files import computed_on
from alexnet_lab.sweeps.definition import SEED
from alexnet_lab.sweeps.summary import Summary
from alexnet_lab.sweeps.summary_tables import cells, effect_lines, family, markdown_table, reading, verdict

log = logging.getLogger(__name__)

NAME = "README.md"

MARK = "<!-- `report.py readme=true` writes this page from the sweep's files: edit those, and run it again. -->"
"""The first line of each page; it distinguishes the page from a hand-written README."""

MOST_ROWS = 18
"""The most rows of the table, which keeps the page below 40 lines; summary.md has all rows."""


def check_readme(folder: Path) -> None:
    """Raises ConfigError if the folder contains a README.md that report.py did not write."""
    path = folder / NAME
    try:
        ours = read_text(path, errors="replace").startswith(MARK)
    except FileNotFoundError:
        return
    except RunError:
        ours = False
    if not ours:
        raise ConfigError(
            f"{path} is not a page of report.py, which would overwrite it; move it away, or leave readme out"
        )


def write_readme(study: Study, folder: Path) -> None:
    """Writes the page, and warns if files that are published with it name this machine."""
    write_text(folder / NAME, readme(study, folder))
    if found := local_names(folder):
        more = f" and {counted(len(found) - 1, 'more file')}" if len(found) > 1 else ""
        path, name = next(iter(found.items()))
        log.warning(
            "%s names a place of this machine, %s%s; before you publish the sweep, run it from the repository with "
            "hydra.sweep.dir=%s/NAME, and ALEXNET_LAB_DATA in place of data.dir", path, name, more, PUBLISHED,
        )  # fmt: skip


def readme(study: Study, folder: Path) -> str:
    """The page of a sweep, at most 40 lines.

    Args:
        study: The sweep.
        folder: Of the sweep.
    """
    summary = summary_of(study, study.metric)
    compared = any(row.against_base for row in summary.rows)
    rerun, extend = commands(study, folder)
    facts = {
        "Claim": _claim(study) if compared else "",
        "Run": _what_was_run(study),
        "Images": _images(study),
        "Computed on": _computed_on(study.completed),
        "Run it again": f"`{rerun}` (on a clone too; it skips complete runs)",
        "Add seeds": f"`{extend}`",
    }
    notes = {
        "Differs from the paper": " ".join(study.definition.get("differs") or []),
        "How to read": _reading(summary),
        "Verdicts": _verdicts(summary),
        "Selection": _selection(study),
        "Files": "[summary.csv](summary.csv) (all numbers), [ledger.jsonl](ledger.jsonl) (a line for each run), "
        "`manifest.json` of each run (commit, versions, hardware).",
    }
    figure = "differences" if compared else "levels"
    parts = [
        f"{MARK}\n# {printable(study.title)}: {study.metric}",
        _bullets(facts),
        f"![{figure}](figures/{figure}.svg)",
        _table(summary),
        _bullets(notes),
    ]
    return "\n\n".join(parts) + "\n"


def _bullets(texts: dict[str, str]) -> str:
    return "\n".join(f"- **{name}.** {printable(text)}" for name, text in texts.items() if text)


def _table(summary: Summary) -> str:
    """The summary's table with a column of verdicts; long tables are cut."""
    head, rows = cells(summary)
    if "verdict" not in head and any(row.against_base for row in summary.rows):
        head = [*head, "verdict"]
        gaps = [row.against_base for row in summary.rows]
        expected = summary.about.get("expects")
        rows = [[*row, verdict(gap, expected) if gap else ""] for row, gap in zip(rows, gaps, strict=True)]
    more = len(rows) - MOST_ROWS
    cut = f"\n\n{counted(more, 'more level')}: [summary.md](summary.md)" if more > 0 else ""
    return markdown_table(summary, head, rows[:MOST_ROWS]) + cut


def _claim(study: Study) -> str:
    if not study.claim:
        return ""
    where = "its numbers are in the table" if study.definition.get("paper_points") else ""
    source = "; ".join(filter(None, [study.paper, where]))
    return f"{study.claim} ({source})." if source else f"{study.claim}."


def _what_was_run(study: Study) -> str:
    subject = " on ".join(study.subject.values())
    epochs = _span({run.result["epochs"] for run in study.completed if run.result.get("epochs")})
    seeds = sorted({run.seed for run in study.runs if run.seed is not None})
    facts = [
        subject,
        "1 epoch" if epochs == "1" else f"{epochs} epochs" if epochs else "",
        f"{len(seeds)} seeds ({_span(seeds)})" if len(seeds) > 1 else f"seed {_span(seeds)}" if seeds else "",
        counted(len(study.levels), "level"),
        state_line(study),
    ]
    return ", ".join(filter(None, facts)) + "."


def _span(numbers: Iterable[int]) -> str:
    """Abbreviates whole numbers.

    Example:
        >>> _span([0, 1, 2, 3]), _span([3, 9]), _span([12])
        ('0 to 3', '3, 9', '12')
    """
    ordered = sorted(set(numbers))
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered))


def _images(study: Study) -> str:
    """The number of images for training, validation and test, and their hash."""
    kinds = Counter(
        (*(run.result.get(f"num_{part}") for part in ("train", "val", "test")), run.result.get("store_hash"))
        for run in study.completed
    )
    counts = [
        f"{train:,} to train on, {val or 0:,} to validate, {test or 0:,} to test (`store_hash` {(store or '?')[:12]})"
        for train, val, test, store in kinds
        if train is not None
    ]
    return f"{'; or '.join(counts)}. The test images are used once a run, at its end." if counts else ""


def _computed_on(runs: Sequence[Run]) -> str:
    """Kinds of hardware, commits, versions and time of the completed runs."""
    if not runs:
        return ""
    hardware = Counter(computed_on(run.manifest) or "unknown hardware" for run in runs)
    commits = Counter((run.manifest.get("git") or {}).get("commit", "")[:10] or "unknown" for run in runs)
    dirty = sum((run.manifest.get("git") or {}).get("dirty", False) for run in runs)
    torch = sorted({run.manifest.get("packages", {}).get("torch", "") for run in runs} - {""})
    seconds = sum(run.result.get("wall_seconds") or 0 for run in runs)
    facts = [
        ", ".join(f"{counted(count, 'run')} on {name}" for name, count in hardware.most_common()),
        ", ".join(f"{counted(count, 'run')} at commit {name}" for name, count in commits.most_common()),
        f"{counted(dirty, 'run')} with changes that are in no commit" if dirty else "no uncommitted change of the code",
        f"torch {', '.join(torch)}" if torch else "",
        f"{duration(seconds)} of training in all",
    ]
    return "; ".join(filter(None, facts)) + "."


def _reading(summary: Summary) -> str:
    """Pairing, correction and seeds; with several factors also the effect of each."""
    intervals = any(row.against_base and row.against_base.low is not None for row in summary.rows)
    single = intervals and family(summary) == 1
    corrected = "There is one comparison, so nothing is corrected for." if single else ""
    effects = "; ".join(line.removeprefix("- ") for line in effect_lines(summary))
    return " ".join(filter(None, [reading(summary), corrected, effects]))


def _verdicts(summary: Summary) -> str:
    """The meaning of the words in the column of verdicts."""
    if not any(row.against_base for row in summary.rows):
        return ""
    expected = summary.about.get("expects")
    if expected is None:
        found = "*higher* or *lower*: the whole interval is on that side of 0"
    else:
        found = (
            f"*supported*: the whole interval says {expected}, as the claim does; *contradicted*: it says the opposite"
        )
    return f"{found}; *undecided*: it contains 0, or there is none, so these seeds show no difference."


def _selection(study: Study) -> str:
    """What was chosen, and on which images."""
    tuned = ", ".join(study.definition.get("tuned") or [])
    validated = [bool(run.result.get("num_val")) for run in study.completed]
    epoch = "best epoch on the validation part" if any(validated) else "last epoch"
    if any(validated) and not all(validated):
        epoch += ", or of its last epoch if it has no such part"
    rate = f"; {tuned}: each level's best value on the validation part" if tuned else ""
    return f"Each run is tested with the weights of its {epoch}{rate}. Nothing is chosen on the test set."


def commands(study: Study, folder: Path) -> tuple[str, str]:
    """The commands that run the sweep again, and that double its seeds.

    Args:
        study: The sweep.
        folder: Of the sweep.

    Raises:
        RunError: The sweep's own command cannot be split into words.
    """
    seeds = sorted({run.seed for run in study.runs if run.seed is not None}) or [0]
    more = [*seeds, *range(seeds[-1] + 1, seeds[-1] + 1 + len(seeds))]
    try:
        given = [_words(part) for part in _parts(study.command)]
    except ValueError as error:
        raise RunError(
            f"{folder / 'sweep.json'}: `command` is {study.command!r}; allowed: a command line for a shell; correct "
            f"its quotation marks ({error})"
        ) from error
    place = shell.override("hydra.sweep.dir", _place(folder))
    if len({tuple(words) for words, _ in given}) == 1:
        given, extend = [(given[0][0], [f"{SEED}={_grid(seeds)}"])], []
    else:
        extend = [EXTEND]
    again = [shell.join([*words, *own, *extend, place]) for words, own in given]
    adding = [shell.join([*words, f"{SEED}={_grid(more)}", EXTEND, place]) for words, _ in given]
    return " && ".join(again), " && ".join(dict.fromkeys(adding))


EXTEND = "sweep.extend=true"


def _parts(line: str) -> list[list[str]]:
    """The commands of a line, as words."""
    parts: list[list[str]] = [[]]
    for word in shell.split(line):
        if word == "&&":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _words(command: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command that affect its result, and its seeds."""
    keys = [(word, shell.override_key(word)) for word in command]
    kept = [word for word, key in keys if key not in NOT_REPEATED and key.split(".")[0] not in ELSEWHERE]
    return kept, [word for word, key in keys if key == SEED]


NOT_REPEATED = (SEED, "data.dir", "hydra.sweep.dir", "sweep.extend", "sweep.dry_run", "--dry-run")
"""Words of a sweep's command that say where it ran, or that the page's commands replace."""

ELSEWHERE = ("launcher", "logger")
"""Groups that fit the machine and the tracker of whoever started the sweep."""


def _grid(seeds: Sequence[int]) -> str:
    """Formats seeds for the command line.

    Example:
        >>> _grid([0, 1, 2]), _grid([0, 5]), _grid([3])
        ('range(0,3)', '0,5', '3')
    """
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"range({seeds[0]},{seeds[-1] + 1})"
    return ",".join(map(str, seeds))


def _place(folder: Path) -> Path:
    """The sweep's directory as seen from the repository if it is published; otherwise as given."""
    absolute = folder.absolute()
    return Path(PUBLISHED, absolute.name) if absolute.parent.name == PUBLISHED else folder


RECORDS = (
    "README.md", "*.json", "ledger.jsonl", "summary.csv", "summary.md", "eval/*.json", "*/eval/*.json",
    "*/config.yaml", "*/result.json", "*/manifest.json", "*/metrics.csv",
)  # fmt: skip
"""Patterns of the text files of a sweep that are published; .gitignore has the same ones."""

ABSOLUTE = re.compile(r"""(?:(?<=["'`=\[(,\s])|^)~?/(?:[\w.@+-]+/)*[\w.@+-]+""", re.ASCII | re.MULTILINE)
"""An absolute path."""


def local_names(folder: Path) -> dict[str, str]:
    """The published files that name an absolute path or this machine, each with the first such name.

    Args:
        folder: Of a sweep.
    """
    paths = sorted(path for pattern in RECORDS for path in folder.glob(pattern))
    found = {path.relative_to(folder).as_posix(): _local_name(path) for path in paths}
    return {path: name for path, name in found.items() if name}


def _local_name(path: Path) -> str:
    try:
        text = read_text(path, errors="replace")
    except (FileNotFoundError, RunError):
        return ""
    host = re.escape(socket.gethostname())
    match = ABSOLUTE.search(text) or re.search(rf"(?<![\w.-]){host}(?![\w.-])", text)
    return match.group() if match else ""
