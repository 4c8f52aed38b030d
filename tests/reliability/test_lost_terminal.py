"""A run finishes although its terminal, pipe or disk for the output is lost; nothing that it prints can stop it."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import QUICK, REPOSITORY, finished, forked, wait_for

pytestmark = pytest.mark.timeout(900)  # several commands in a row, each of which imports torch

SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=12", *QUICK)

LONG = ("trainer.max_epochs=500", *QUICK)

PROCESSES = {"in one process": (), "in two workers": ("trainer.devices=2",)}

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has this device")


def shell(line: str, script: str, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `line` in bash, in which "$@" is the command; the exit code is the command's, whatever reads its output."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}", "bash", sys.executable, str(REPOSITORY / script), *words],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def result_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def check_completed(run: Path, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert result_of(run)["status"] == "completed", result_of(run)
    assert "epoch 2/2" in (run / "train.log").read_text()
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('"$@" 2>&1 | head -1', ()),
        pytest.param('"$@" 2>&1 | head -1', ("trainer.devices=2",), marks=pytest.mark.slow),
        pytest.param('"$@" 2> /dev/full', ("trainer.devices=2",), marks=FULL),
        pytest.param('PYTHONUNBUFFERED=1 "$@" > /dev/full 2>&1', (), marks=FULL),
        ('"$@" <&- >&- 2>&-', ()),
    ],
)
def test_a_run_outlives_what_reads_its_output(tmp_path, digits_dir, line, words):
    run = tmp_path / "run"
    check_completed(
        run, shell(line, "train.py", f"data.dir={digits_dir}", f"run_dir={run}", *SHORT, *words, cwd=tmp_path)
    )


def test_a_pipe_that_does_not_block_loses_nothing(tmp_path):
    read, write = os.pipe()
    os.set_blocking(write, False)
    script = "from alexnet_lab.base.terminal import outlive_terminal; outlive_terminal(); print('x' * 300_000)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=write, cwd=tmp_path)
    while select.select([], [write], [], 0)[1] and process.poll() is None:  # until the pipe is full
        time.sleep(0.01)
    os.close(write)
    assert process.poll() is None
    with os.fdopen(read, "rb") as file:
        assert len(file.read()) == 300_001
    assert process.wait(60) == 0


def test_a_sweep_its_report_and_an_evaluation_outlive_it_too(tmp_path, digits_dir):
    line = '"$@" 2>&1 | head -1'
    words = ("-m", "seed=0,1", "hydra.sweep.dir=sweep", f"data.dir={digits_dir}", *SHORT)
    done = shell(line, "train.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    jobs = sorted((tmp_path / "sweep").glob("*/result.json"))
    assert [result_of(job.parent)["status"] for job in jobs] == ["completed"] * 2
    assert shell(line, "report.py", "sweep=sweep", cwd=tmp_path).returncode == 0
    assert (tmp_path / "sweep/report.html").is_file()
    assert shell(line, "eval.py", f"run={jobs[0].parent}", cwd=tmp_path).returncode == 0
    assert list(jobs[0].parent.glob("eval/*.json"))


@pytest.mark.parametrize(
    ("script", "words"), [("train.py", ("--help",)), ("train.py", ("--cfg", "job")), ("report.py", ("--help",))]
)
def test_help_is_cut_short_without_a_word(tmp_path, script, words):
    done = shell('"$@" | head -1', script, *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def on_a_terminal(words: tuple[str, ...], cwd: Path) -> tuple[int, int]:
    """Starts train.py with a terminal of its own; returns its process and the terminal's other end."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(cwd)
        os.environ |= {"OMP_NUM_THREADS": "1"}
        os.environ.pop("CI", None)
        os.execv(sys.executable, [sys.executable, str(REPOSITORY / "train.py"), *words])
    return process, terminal


@pytest.mark.parametrize("processes", PROCESSES)
def test_a_run_continues_when_its_terminal_is_closed(tmp_path, digits_dir, processes):
    run = tmp_path / "run"
    words = (f"data.dir={digits_dir}", f"run_dir={run}", "logger=csv", "trainer.max_epochs=4", *PROCESSES[processes])
    process, terminal = on_a_terminal(words, tmp_path)
    end, shown = time.monotonic() + 120, b""
    while b"epoch 2" not in shown and time.monotonic() < end:  # the bar of the second epoch
        shown = shown[-100:] + os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert result_of(run)["status"] == "completed"


@pytest.mark.parametrize("processes", PROCESSES)
def test_a_hangup_that_somebody_sends_is_an_interrupt(tmp_path, digits_dir, processes):
    run = tmp_path / "run"
    words = (f"data.dir={digits_dir}", f"run_dir={run}", *LONG, *PROCESSES[processes])
    process = forked("train.py", *words, cwd=tmp_path, group=True)  # a session without a terminal
    wait_for(run / "checkpoints/last.ckpt", process)
    process.send_signal(signal.SIGHUP)
    assert finished(process).code == 130
    assert result_of(run)["status"] == "interrupted"


def test_nohup_ignores_hangups(tmp_path, digits_dir):
    run = tmp_path / "run"
    words = (f"data.dir={digits_dir}", f"run_dir={run}", *SHORT)
    signals = "sleep 1; while kill -HUP $child 2> /dev/null; do sleep 0.2; done"
    line = f'nohup "$@" > out.txt 2>&1 & child=$!; {signals}; wait $child'
    check_completed(run, shell(line, "train.py", *words, cwd=tmp_path))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict"])
def test_characters_that_the_terminal_lacks_are_escaped(tmp_path, encoding):
    for words in ((f"data.dir={tmp_path / '数据'}", "model=lenet"), ("model=数据",)):
        done = shell('"$@"', "train.py", *words, cwd=tmp_path, PYTHONIOENCODING=encoding)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    assert r"\u6570\u636e" in done.stderr
