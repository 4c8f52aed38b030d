"""The log: short lines on standard error, full ones in a file that all processes of a run share."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from logging.handlers import BufferingHandler
from pathlib import Path

from alexnet_lab.base.printable import printable_lines

LABEL = "ALEXNET_LAB_JOB"
"""The variable with a label for each console line, when several jobs share the console; no bars are drawn then."""

FILE_FORMAT = "%(asctime)s rank %(rank)s %(levelname)s %(name)s: %(message)s"


class Console(logging.Handler):
    """Writes to the current `sys.stderr`, so that lines appear above a progress bar."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line, with its level if above INFO."""
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        label = f"[{os.environ[LABEL]}] " if os.environ.get(LABEL) else ""
        lines = printable_lines(f"{level}{record.getMessage()}").splitlines()
        text = "".join(f"{label}{line}\n" for line in lines)
        print(text, end="", file=sys.stderr, flush=True)  # in one piece: other processes write too


class FileLines(logging.Formatter):
    """Full lines without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and those of a traceback."""
        return printable_lines(super().format(record))


class LogFile(logging.FileHandler):
    """A log file that is abandoned if it cannot be written (a full disk): the run reports its own error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Does nothing; logging would print a traceback for each line."""


def start_log(rank: int = 0) -> None:
    """Shows our messages from INFO on, and Lightning's from WARNING on; only rank 0 writes to the console."""
    ours = logging.getLogger("alexnet_lab")
    ours.setLevel(logging.DEBUG)  # tracebacks, which go only to the file
    ours.handlers = [Console()] if rank == 0 else []
    ours.propagate = False
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def log_to_file(path: Path, rank: int = 0) -> logging.Handler:
    """Adds a file to the log; each line is appended in one write, so that processes do not mix theirs."""
    handler = LogFile(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(FileLines(FILE_FORMAT, defaults={"rank": rank}))
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    return handler


def close_file(handler: logging.Handler) -> None:
    """Removes a handler of `log_to_file` from the log and closes its file."""
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)
    with contextlib.suppress(OSError):  # a full disk: see LogFile
        handler.close()


def shows_bars() -> bool:
    """Whether to show progress bars: on a terminal that is neither CI's log nor shared with other jobs."""
    return sys.stderr.isatty() and not os.environ.get("CI") and not os.environ.get(LABEL)


@contextlib.contextmanager
def quiet(name: str, level: int = logging.WARNING) -> Iterator[None]:
    """Suppresses a logger's messages below `level` within the block."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def collected(name: str) -> Iterator[list[logging.LogRecord]]:
    """Within the block collects a logger's messages instead of showing them; see `replay`."""
    logger, collector = logging.getLogger(name), BufferingHandler(sys.maxsize)
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield collector.buffer
    finally:
        logger.removeHandler(collector)
        logger.propagate = True


def replay(messages: list[logging.LogRecord]) -> None:
    """Logs collected messages."""
    for message in messages:
        logging.getLogger(message.name).handle(message)


LOGGERS = ("alexnet_lab", "lightning.pytorch", "py.warnings")
"""The loggers whose messages go into the file."""
