"""From the command line to the first answer: --help, the error of an invalid config, one batch of each stage."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from compare import Row, at_most, script_main
from runs import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator


class Command(NamedTuple):
    """A command."""

    words: tuple[str, ...]
    code: int  # its exit code
    goal: float  # seconds


COMMANDS = (
    Command(("--help",), 0, 0.8),
    Command(("model.nrom=lrn",), 2, 0.8),
    Command(("debug=fast",), 0, 8.0),
)


def seconds(command: Command) -> float:
    """Returns the seconds of a command in its own folder."""
    with TemporaryDirectory() as folder:
        places = [f"run_dir={folder}/run"] if command.code == 0 and command.words != ("--help",) else []
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "train.py", *command.words, *places], cwd=REPOSITORY, capture_output=True, check=False
        )
        taken = time.perf_counter() - start
    if done.returncode != command.code:
        raise RuntimeError(f"{command.words} ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
    return taken


def rows() -> Iterator[Row]:
    """Yields a row for each command; commands alternate."""
    times = [[seconds(command) for command in COMMANDS] for _ in range(4)][1:]  # the first fills caches
    for number, command in enumerate(COMMANDS):
        median = statistics.median(taken[number] for taken in times)
        yield at_most(f"python train.py {' '.join(command.words)}", median, "s", command.goal)


if __name__ == "__main__":
    script_main(rows, {})
