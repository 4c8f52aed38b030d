"""What a long run takes does not grow: memory and open files, first tenth of the steps against the last."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import pytest
from commands import QUICK, command

if TYPE_CHECKING:
    import subprocess

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")

STEPS_PER_EPOCH = 162
"""1,294 training images by 8."""


class Sample(NamedTuple):
    """What a process takes at some moment."""

    epochs: int  # rows of metrics.csv
    private_kib: int  # memory of its own
    files: int


def private_kib(pid: int) -> int:
    fields = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return sum(int(words[1]) for words in fields if words[0] in ("Private_Clean:", "Private_Dirty:"))


def watch(process: subprocess.Popen[str], metrics: Path, epochs: int) -> list[Sample]:
    """Samples of a training process, from its first epoch's end to its last one's."""
    samples = []
    while process.poll() is None:
        time.sleep(0.05)
        done = metrics.read_text().count("\n") - 1 if metrics.exists() else 0
        if not 0 < done < epochs:
            continue
        try:
            files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
            samples.append(Sample(done, private_kib(process.pid), files))
        except OSError:  # it has ended meanwhile
            break
    return samples


@pytest.mark.parametrize(
    "epochs",
    [pytest.param(9, id="short"), pytest.param(124, id="20000_steps", marks=pytest.mark.slow)],
)
@pytest.mark.timeout(900)
def test_memory_and_open_files_do_not_grow(epochs, digits_dir, tmp_path):
    words = (*QUICK, "data.batch_size=8", f"data.dir={digits_dir}", "run_dir=run", f"trainer.max_epochs={epochs}")
    process = command("train.py", *words, cwd=tmp_path)
    samples = watch(process, tmp_path / "run" / "metrics.csv", epochs)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    part = max(3, epochs // 10)
    first = [sample for sample in samples if sample.epochs <= part]
    last = [sample for sample in samples if sample.epochs >= epochs - part]
    assert min(len(first), len(last)) >= 2
    before, after = (median(sample.private_kib for sample in some) for some in (first, last))
    files = [sorted({sample.files for sample in some}) for some in (first, last)]
    print(f"{epochs * STEPS_PER_EPOCH:,} steps: {before / 1024:.1f} MiB, then {after / 1024:.1f} MiB; files {files}")
    assert after < 1.02 * before
    opened, still = (median(sample.files for sample in some) for some in (first, last))  # some are open for a moment
    assert still <= opened
