"""Sweeps as commands, and the processes below them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import QUICK, call, command, finished, forked

from alexnet_lab.config import check_train
from alexnet_lab.sweeps import runner

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable

    from alexnet_lab.sweeps.preflight import Plan

SHORT = (*QUICK, "trainer.accelerator=cpu", "trainer.max_epochs=3", "trainer.limit_train_batches=10")
"""Jobs of 30 steps on the digits."""


def planned(*words: str) -> Plan:
    """Calls `train.py -m words` up to the moment where jobs would start, and returns the plan."""
    plans: list[Plan] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "drive", lambda plan, launch: plans.append(plan))
        outcome = call(check_train, "train", "-m", *words)
    assert outcome.code == 0, outcome.err
    return plans[0]


def sweep(words: tuple[str, ...], place: Path, data: Path, without: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Starts `train.py -m words` with short jobs."""
    return command("train.py", *_all(words, place, data, without), cwd=place.parent, group=True)


def swept(words: tuple[str, ...], place: Path, data: Path) -> tuple[int, str]:
    """Runs `train.py -m words` with short jobs, in a forked process; its exit code and its standard error."""
    outcome = finished(forked("train.py", *_all(words, place, data), cwd=place.parent))
    return outcome.code, outcome.err


def _all(words: tuple[str, ...], place: Path, data: Path, without: tuple[str, ...] = ()) -> list[str]:
    short = [word for word in SHORT if word not in without]
    return ["-m", *words, *short, f"data.dir={data}", f"hydra.sweep.dir={place}"]


def finish(process: subprocess.Popen[str], timeout: float = 200.0) -> tuple[int, str]:
    """Waits for it; its exit code and what it wrote to standard error."""
    try:
        _, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, err


def descendants(pid: int) -> dict[int, int]:
    """The processes below `pid`, and the parent of each."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(text.rpartition(")")[2].split()[1])
    found: dict[int, int] = {}
    waiting = [pid]
    while waiting:
        above = waiting.pop()
        below = [number for number, parent in parents.items() if parent == above]
        found |= dict.fromkeys(below, above)
        waiting += below
    return found


def workers(pid: int) -> list[int]:
    """The worker processes below a sweep: children of its fork server."""
    tree = descendants(pid)
    return [number for number, parent in tree.items() if parent != pid and parent in tree]


def wait_until_gone(pids: Iterable[int], seconds: float = 60.0) -> None:
    """Fails if one of the processes is still there after a while."""
    end = time.monotonic() + seconds
    while left := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < end, f"still there: {left}"
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended; one that nobody waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
