"""Leases of GPUs: nobody shares by accident, nobody holds a part of what it needs, and a killed process gives back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from alexnet_lab.base import leases
from alexnet_lab.base.errors import RunError

if TYPE_CHECKING:
    from pathlib import Path

EIGHT = tuple(f"GPU-{number}" for number in range(8))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    return tmp_path / "locks"


def test_a_gpu_belongs_to_one_job_until_its_lease_ends(folder):
    first = leases.take(EIGHT[:2], 1, folder=folder)
    second = leases.take(EIGHT[:2], 1, folder=folder)
    assert first is not None
    assert second is not None
    assert (first.gpus, second.gpus) == (("GPU-0",), ("GPU-1",))
    assert leases.take(EIGHT[:2], 1, folder=folder) is None
    first.release()
    third = leases.take(EIGHT[:2], 1, folder=folder)
    assert third is not None
    assert third.gpus == ("GPU-0",)


def test_a_job_that_gets_too_few_gpus_takes_none(folder):
    held = leases.take(EIGHT[:3], 2, folder=folder)
    assert held is not None
    assert leases.take(EIGHT[:3], 2, folder=folder) is None
    assert leases.take(EIGHT[:3], 1, folder=folder) is not None


def test_jobs_that_share_are_spread_over_the_gpus(folder):
    taken = [leases.take(EIGHT[:2], 1, per_gpu=2, folder=folder) for _ in range(5)]
    assert [lease and lease.gpus[0] for lease in taken] == ["GPU-0", "GPU-1", "GPU-0", "GPU-1", None]


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1), (2, 3)])
def test_jobs_share_a_gpu_only_with_jobs_that_allow_as_many(first, second, folder):
    assert leases.take(EIGHT[:1], 1, per_gpu=first, folder=folder) is not None
    assert leases.take(EIGHT[:1], 1, per_gpu=second, folder=folder) is None


HOLD = """\
import os, sys, time
from pathlib import Path
from alexnet_lab.base import leases
lease = leases.take(["GPU-0"], 1, folder=Path(sys.argv[1]))
print(lease.locks[0], flush=True)
time.sleep(60)
"""

SHARE = """\
import time
from alexnet_lab.base import leases
leases.share()
print("shared", flush=True)
time.sleep(60)
"""


def started(code: str, *words: str, **variables: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], env=os.environ | variables, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_lease_lasts_until_the_last_of_its_processes_is_killed(folder):
    job, lock = started(HOLD, str(folder))
    worker, said = started(SHARE, **{leases.SHARED: lock})
    assert said == "shared"
    with job, worker:
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
        assert leases.take(["GPU-0"], 1, folder=folder) is None  # the worker is still on the GPU
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    assert leases.take(["GPU-0"], 1, folder=folder) is not None


JOB = """\
import os, random, sys, time
from pathlib import Path
from alexnet_lab.base import leases
folder, log, number, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
while (lease := leases.take([f"GPU-{i}" for i in range(8)], count, folder=folder)) is None:
    time.sleep(0.05)
line = lambda word: os.write(file, f"{word} {number} {' '.join(lease.gpus)}\\n".encode())
file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
line("begin")
time.sleep(0.1)
if number % 5 == 0:
    line("end")
    os.kill(os.getpid(), 9)
line("end")
"""


@pytest.mark.parametrize("count", [1, 3])
def test_sixteen_jobs_on_eight_gpus_some_of_them_killed(count, folder, tmp_path):
    log = tmp_path / "log"
    jobs = [
        subprocess.Popen([sys.executable, "-c", JOB, str(folder), str(log), str(number), str(count)])
        for number in range(16)
    ]
    for job in jobs:
        job.wait(timeout=120)
    used: set[str] = set()
    for line in log.read_text().splitlines():
        word, _, *gpus = line.split()
        assert len(gpus) == count
        assert used.isdisjoint(gpus) if word == "begin" else used.issuperset(gpus)
        used = used | {*gpus} if word == "begin" else used - {*gpus}
    assert log.read_text().count("begin") == 16
    assert not used


def test_locks_in_a_folder_that_cannot_be_made_are_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"the locks of the GPUs, .*file/locks, cannot be written: Not a directory"):
        leases.take(EIGHT, 1, folder=tmp_path / "file" / "locks")


def test_locks_through_another_ones_link_are_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "locks").symlink_to(tmp_path / "real")
    with pytest.raises(RunError, match="belongs to another user; set TMPDIR to a folder of yours"):
        leases.take(EIGHT, 1, folder=tmp_path / "locks")


def test_a_lease_takes_milliseconds(folder):
    start = time.process_time()
    for _ in range(20):
        lease = leases.take(EIGHT, 8, folder=folder)
        assert lease is not None
        lease.release()
    assert (time.process_time() - start) / 20 < 0.1
