"""A progress bar on a terminal; elsewhere a line in the log every minute."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from alexnet_lab.base.formats import duration
from alexnet_lab.base.log import shows_bars

log = logging.getLogger(__name__)

LOG_SECONDS = 60
"""Without a terminal, a line is logged this often."""


@contextlib.contextmanager
def progress_bar(title: str, total: int | None, *, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Shows a bar on standard error within the block, or logs a line every minute without a terminal.

    Args:
        title: What is in progress.
        total: Steps in all; None: unknown.
        done: Steps that an earlier process has done.

    Yields:
        A function that advances the bar by a number of steps.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    begun = logged = time.monotonic()
    now_done = done

    def advance(count: int) -> None:
        nonlocal logged, now_done
        now_done += count
        progress.update(task, advance=count)
        if progress.disable and time.monotonic() - logged >= LOG_SECONDS:
            logged = time.monotonic()
            speed = (now_done - done) / (logged - begun)
            rest = duration((total - now_done) / speed) if total and speed else "unknown time"
            log.info("%s: %d of %s, %d/s, %s left", title, now_done, total or "?", round(speed), rest)

    with Progress(*columns, console=console, disable=not shows_bars(), transient=True) as progress:
        task = progress.add_task(title, total=total, completed=done)
        yield advance


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")
