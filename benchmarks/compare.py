"""Times two ways of doing one thing in turns, so that what else the machine does falls on both alike."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Comparison(NamedTuple):
    """Medians in seconds, and the goal for how many times faster ours shall be."""

    what: str
    ours: float
    theirs: float
    goal: float

    def row(self) -> str:
        """One line of the table."""
        ratio = self.theirs / self.ours
        met = "met" if ratio >= self.goal else "missed"
        times = f"{self.ours * 1e3:>9.1f} {self.theirs * 1e3:>9.1f}"
        return f"{self.what:<48} {times} {ratio:>6.2f} {self.goal:>6.2f} {met}"


HEADER = f"{'what':<48} {'ours, ms':>9} {'theirs':>9} {'ratio':>6} {'goal':>6}"


def interleaved(
    what: str, ours: Callable[[], object], theirs: Callable[[], object], *, goal: float, rounds: int = 7
) -> Comparison:
    """Medians over `rounds` rounds, each of which times both, after one untimed call of each."""
    ours()
    theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for kept, call in zip(times, (ours, theirs), strict=True):
            start = time.perf_counter()
            call()
            kept.append(time.perf_counter() - start)
    return Comparison(what, statistics.median(times[0]), statistics.median(times[1]), goal)
