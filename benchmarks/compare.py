"""Times two implementations alternately, so that other load on the machine affects both."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class Row(NamedTuple):
    """One line of the table."""

    what: str
    ours: float
    theirs: float | None  # None: the goal applies to `ours` alone
    unit: str  # of both
    ratio: float  # the number that the goal applies to
    goal: float
    least: bool  # the goal is a minimum; else a maximum

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.ratio >= self.goal if self.least else self.ratio <= self.goal

    def cells(self) -> list[str]:
        """Formats the cells of the table."""
        theirs = "" if self.theirs is None else _number(self.theirs)
        goal = f"{'>=' if self.least else '<='} {self.goal:g}"
        return [
            self.what,
            _number(self.ours),
            theirs,
            self.unit,
            f"{self.ratio:.2f}",
            goal,
            "yes" if self.met else "NO",
        ]


HEADER = ["what", "ours", "theirs", "unit", "ratio", "goal", "reached"]


def _number(value: float) -> str:
    """Formats with at least three digits, and no decimals from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def faster(what: str, ours: float, theirs: float, goal: float) -> Row:
    """Compares seconds; the goal is the minimum speed-up of ours."""
    return Row(what, ours * 1e3, theirs * 1e3, "ms", theirs / ours, goal, least=True)


def slower(what: str, ours: float, theirs: float, goal: float) -> Row:
    """Compares seconds; the goal is the maximum of ours / theirs."""
    return Row(what, ours * 1e3, theirs * 1e3, "ms", ours / theirs, goal, least=False)


def more(what: str, ours: float, theirs: float, unit: str, goal: float) -> Row:
    """Compares rates; the goal is the minimum of ours / theirs."""
    return Row(what, ours, theirs, unit, ours / theirs, goal, least=True)


def at_most(what: str, ours: float, unit: str, goal: float) -> Row:
    """Makes a row whose goal applies to the number itself."""
    return Row(what, ours, None, unit, ours, goal, least=False)


def at_least(what: str, ours: float, unit: str, goal: float) -> Row:
    """Makes a row whose goal is a minimum of the number itself."""
    return Row(what, ours, None, unit, ours, goal, least=True)


def medians(calls: Mapping[str, Callable[[], object]], *, rounds: int, warm: int = 1) -> dict[str, float]:
    """Returns the median seconds of each call over `rounds` rounds; a round makes every call once."""
    for _ in range(warm):
        for call in calls.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


class Contestant:
    """A separate process that does its work once per request: see `serve`."""

    def __init__(self, script: str, name: str) -> None:
        command = [sys.executable, script, "--serve", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._pipes = self.process.stdin, self.process.stdout

    def __call__(self) -> float:
        """Requests the work; returns its seconds as measured in the process."""
        stdin, stdout = self._pipes
        assert stdin is not None
        assert stdout is not None
        stdin.write("\n")
        stdin.flush()
        return float(stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self.process.communicate("")


def serve(work: Callable[[], object]) -> None:
    """Does `work` once for each line of standard input, and prints its seconds."""
    for _ in sys.stdin:
        start = time.perf_counter()
        work()
        print(time.perf_counter() - start, flush=True)


def contest(script: str, names: Iterable[str], *, rounds: int, warm: int = 2) -> dict[str, float]:
    """Returns the median seconds of the tasks of `script --serve NAME`, each in its own process, alternately."""
    contestants = {name: Contestant(script, name) for name in names}
    try:
        for _ in range(warm):
            for contestant in contestants.values():
                contestant()
        times = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, contestant in contestants.items():
                times[name].append(contestant())
    finally:
        for contestant in contestants.values():
            contestant.close()
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Returns the exponent p of seconds ~ size^p by least squares: 1 is linear."""
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    return statistics.linear_regression(x, y).slope


def script_main(rows: Callable[[], Iterable[Row]], works: Mapping[str, Callable[[], Callable[[], object]]]) -> None:
    """The command line of each script.

    Args:
        rows: Measures; each row is printed as soon as it is there, and with `--json FILE` kept.
        works: Of the contestants: makes what is to be timed.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", choices=list(works) or None)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(works[arguments.serve]())
        return
    found = []
    for row in rows():
        print(line(row.cells()), flush=True)
        found.append(row._asdict())
    if arguments.json:
        arguments.json.write_text(json.dumps(found))


WIDTHS = (74, 9, 9, 9, 7, 8, 7)


def line(cells: list[str]) -> str:
    """Formats a row for the terminal."""
    first, *others = [
        cell.rjust(width) if number else cell.ljust(width)
        for number, (cell, width) in enumerate(zip(cells, WIDTHS, strict=True))
    ]
    return " ".join([first, *others]).rstrip()
