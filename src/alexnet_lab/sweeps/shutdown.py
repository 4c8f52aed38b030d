"""Ends the processes of jobs together with their sweep, under any launcher.

A launcher may run a job in its own process, and kill or abandon it when the sweep is interrupted. The sweep therefore
creates a file in its directory when it stops. The jobs' processes watch this file and the sweep's process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType

from alexnet_lab.base.environment import variables
from alexnet_lab.base.signals import Terminated, handled

VARIABLE = "ALEXNET_LAB_SWEEP"
"""The machine, SLURM job and process number of the sweep, for its jobs' processes."""

POLL_SECONDS = 0.3
PATIENCE_SECONDS = 20.0
"""The time for jobs to stop, of which their workers get 10 s."""


def place() -> str:
    """This machine and, if any, the SLURM job: processes in one place can see each other."""
    return f"{socket.gethostname()}/{os.environ.get('SLURM_JOB_ID', '')}"


QUIET_TRACKER = "ignore:resource_tracker"
"""A filter of `PYTHONWARNINGS`. Killed jobs leave semaphores, which Python's resource tracker removes with a needless
warning."""


@contextlib.contextmanager
def stoppable(stop: Path, busy: Callable[[], bool]) -> Iterator[None]:
    """Within the block Ctrl-C and SIGTERM first stop the jobs and then raise KeyboardInterrupt.

    Args:
        stop: The file that the jobs' processes watch.
        busy: Whether a job is still running.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stopped(number: int, frame: FrameType | None) -> None:
        for again, handler in before.items():
            signal.signal(again, handler)  # the second Ctrl-C ends at once
        stop.touch()
        end = time.monotonic() + PATIENCE_SECONDS
        while busy() and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        raise Terminated(f"interrupted by {name}")

    stop.unlink(missing_ok=True)
    filters = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), QUIET_TRACKER]))
    places = {VARIABLE: f"{place()}/{os.getpid()}", "PYTHONWARNINGS": filters}
    with handled(dict.fromkeys(before, stopped)), variables(**places):
        yield


@cache  # once per process, which may run many jobs
def end_with_sweep(stop: Path) -> None:
    """Sends this process SIGTERM when its sweep stops or is gone; does nothing in the sweep's own process."""
    where, _, number = os.environ.get(VARIABLE, "").rpartition("/")
    if not where or (where == place() and number == str(os.getpid())):
        return
    pid = int(number) if where == place() else None  # on other machines only the file is watched

    def watch() -> None:
        while not stop.exists() and (pid is None or is_alive(pid)):
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE_SECONDS)
        os._exit(113)

    threading.Thread(target=watch, daemon=True).start()


def is_alive(pid: int) -> bool:
    """Whether a process exists and has not ended; a zombie has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except (AttributeError, OSError):  # not Linux, or an old version
        return _answers(pid)
    try:
        return not select.select([handle], [], [], 0)[0]
    finally:
        os.close(handle)


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
