"""How many threads a run gets, and when it says that others use the cores."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from commands import QUICK, call, finished, forked, train_config

from alexnet_lab.base import cores
from alexnet_lab.base.cores import cgroup_quota, waited_seconds
from alexnet_lab.base.errors import ConfigError
from alexnet_lab.config.main import _Job
from alexnet_lab.config.schema import Train
from alexnet_lab.run import threads, train
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.run.threads import CrowdedCores, chosen_threads, lost_by_load

if TYPE_CHECKING:
    from pathlib import Path

LENET5 = 416_520
ALEXNET = 720_351_776
"""Multiply-adds for an image."""


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: 16)
    for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT"):
        monkeypatch.delenv(name, raising=False)


def config(batch_size: int = 64, num_threads: int | None = None, side_by_side: int = 1) -> Train:
    return train_config(
        trainer={"num_threads": num_threads}, data={"batch_size": batch_size},
        launcher={"jobs_side_by_side": side_by_side},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("macs", "batch_size", "processes", "expected"),
    [
        (LENET5, 8, 1, 1),
        (LENET5, 64, 1, 1),
        (LENET5, 512, 1, 4),
        (ALEXNET, 128, 1, 16),
        (ALEXNET, 128, 4, 4),
        (ALEXNET, 128, 32, 1),
        (LENET5, 512, 2, 2),
    ],
)
def test_threads_by_the_work_in_a_step(macs, batch_size, processes, expected):
    assert chosen_threads(config(batch_size), macs, processes) == expected


@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("5,2", 5), ("", 16), ("0", 16)])
def test_variable_comes_before_the_work_and_the_key_before_the_variable(value, expected, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert chosen_threads(config(), ALEXNET, 1) == expected
    assert chosen_threads(config(num_threads=2), ALEXNET, 1) == 2


@pytest.mark.parametrize("num_threads", [None, 4])
def test_no_more_threads_than_openmp_starts(num_threads, monkeypatch):
    """oneDNN would wait for the others for ever."""
    monkeypatch.setenv("OMP_THREAD_LIMIT", "3")
    assert chosen_threads(config(num_threads=num_threads), ALEXNET, 1) == 3
    assert chosen_threads(config(num_threads=2), ALEXNET, 1) == 2


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT"])
def test_variable_that_is_no_number(name, monkeypatch):
    monkeypatch.setenv(name, "all")
    with pytest.raises(ConfigError, match=f"the environment variable {name} is 'all'; it must be a whole num"):
        chosen_threads(config(), ALEXNET, 1)


def test_a_sweep_leaves_the_number_of_threads_to_its_jobs(monkeypatch):
    """joblib gives its processes cores / jobs, where the user has chosen no number."""
    job = _Job(print, traceback_wanted=False)
    state = dict(vars(job))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        monkeypatch.setenv(name, "8")
    job.__setstate__(state)
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    job.__setstate__(vars(_Job(print, traceback_wanted=False)))  # the user's own
    assert os.environ["OMP_NUM_THREADS"] == "8"


def test_run_records_its_threads(compose, tmp_path, monkeypatch):
    """So that a resumed run, perhaps on another machine, adds up in the same order."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    words = ("trainer.num_threads=null", "trainer.max_epochs=1", "trainer.limit_train_batches=2")
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    train(compose(f"run_dir={tmp_path}", *words))
    assert chosen == [3, torch.get_num_threads()]  # and then the caller's again
    assert RunDirectory(str(tmp_path)).read_config()["trainer"]["num_threads"] == 3


def cgroups(folder: Path, files: dict[str, str], own: str) -> float | None:
    for name, text in files.items():
        path = folder / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "own").write_text(own)
    return cgroup_quota(folder / "own", folder / "sys")


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ({}, "0::/\n", None),
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5),  # in a container
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, "0::/a/b\n", 2.0),
        ({"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "50000 100000\n"}, "0::/a/b\n", 0.5),
        ({"cpu.max": "300000 100000\n"}, "0::/../../other\n", 3.0),
        ({"cpu/d/cpu.cfs_quota_us": "250000\n", "cpu/d/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/d\n", 2.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu:/d\n5:memory:/d\n", None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu:/not/here\n", 2.0),
    ],
)
def test_quota_of_the_cgroups(files, own, expected, tmp_path):
    assert cgroups(tmp_path, files, own) == expected


@pytest.mark.parametrize(("quota", "mask", "slurm", "expected"), [
    (None, 8, None, 8), (2.5, 8, None, 2), (0.5, 8, None, 1), (6.0, 3, None, 3), (6.0, 8, "4", 4),
])  # fmt: skip
def test_cores_are_the_fewest_of_mask_quota_and_job(quota, mask, slurm, expected, monkeypatch):
    monkeypatch.setattr(cores, "cgroup_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(mask)))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", slurm or "")
    assert cores.available_cores() == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"), ({"GOMP_SPINCOUNT": "7"}, None)],
)
def test_threads_sleep_while_they_wait_by_default(given, expected, monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, given.get(name, ""))
        if name not in given:
            monkeypatch.delenv(name)
    cores.sleep_while_waiting()
    assert os.environ.get("OMP_WAIT_POLICY") == expected


def test_wait_policy_is_set_before_torch_is_imported():
    program = (
        "import os, sys, alexnet_lab.run as r; r.train; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )
    variables = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout == "PASSIVE True\n"


@pytest.mark.parametrize(
    ("share", "load", "own", "expected"),
    [
        (0.3, 18.0, 2, 0.7),
        (0.95, 18.0, 2, 0),  # it gets what it needs
        (0.3, 2.0, 2, 0),  # it waits for the disk, or for another process of the run
        (0.5, 8.0, 8, 0),  # the load is its own
        (0.5, 12.0, 8, 0.5),
    ],
)
def test_crowded_is_little_time_and_much_load_where_waiting_is_not_counted(share, load, own, expected, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert lost_by_load(share, own) == pytest.approx(expected)


def test_waiting_is_the_sum_over_the_threads(tmp_path):
    assert waited_seconds(tmp_path) is None
    for number, text in {"1": "5 2000000000 7\n", "2": "5 500000000 7\n", "3": ""}.items():
        (tmp_path / number).mkdir()
        (tmp_path / number / "schedstat").write_text(text)
    assert waited_seconds(tmp_path) == 2.5


def warnings_of(monkeypatch: pytest.MonkeyPatch, caplog: Any, waits: Any, num_threads: int = 3) -> list[str]:
    """What a watcher logs in 8 windows of 30 s, for waits that `waited_seconds` gives in turns."""
    clock = iter(range(0, 1000, 15))
    monkeypatch.setattr(threads.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(threads.time, "thread_time", lambda: 0.0)
    monkeypatch.setattr(threads, "waited_seconds", lambda: next(waits))
    monkeypatch.setattr(os, "getloadavg", lambda: (18.2, 1.0, 1.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    torch.set_num_threads(num_threads)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer = cast("Any", SimpleNamespace(is_global_zero=True, strategy=strategy, num_devices=2))
    watcher, module = CrowdedCores(), cast("Any", None)
    watcher.on_train_start(trainer, module)
    for number in range(8):
        watcher.on_train_batch_end(trainer, module, None, None, number)
    return [record.getMessage() for record in caplog.records]


def test_crowded_run_warns_once_with_the_setting(monkeypatch, caplog):
    (line,) = warnings_of(monkeypatch, caplog, itertools.count(0.0, 45.0))
    assert line == (
        "training is slow: its threads wait for a core 50% of the time, since other programs use the cores; end them, "
        "or set trainer.num_threads=1 (it is 3)"
    )


def test_run_with_more_threads_than_cores_is_warned_with_the_number_to_set(monkeypatch, caplog):
    monkeypatch.setattr(threads, "available_cores", lambda: 5)
    (line,) = warnings_of(monkeypatch, caplog, itertools.count(0.0, 45.0))
    assert line.endswith("50% of the time, since the run has 6 on 5; set trainer.num_threads=2")


def test_run_that_gets_its_cores_does_not_warn(monkeypatch, caplog):
    assert warnings_of(monkeypatch, caplog, itertools.count(0.0, 9.0)) == []


def test_without_a_count_of_waiting_the_load_decides(monkeypatch, caplog):
    (line,) = warnings_of(monkeypatch, caplog, itertools.repeat(None), num_threads=1)
    assert line.endswith("its threads wait for a core 100% of the time, since other programs use the cores; end them")


@pytest.mark.skipif(waited_seconds() is None or not hasattr(os, "sched_setaffinity"), reason="needs Linux's schedstat")
def test_run_beside_busy_processes_on_its_core_warns(digits_dir, tmp_path, monkeypatch):
    """For real, through the command; only the length of a window is another."""
    before = os.sched_getaffinity(0)
    core = min(before)
    code = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    monkeypatch.setattr(threads, "WINDOW_SECONDS", 0.5)
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    os.sched_setaffinity(0, [core])
    try:
        words = (f"data.dir={digits_dir}", f"run_dir={tmp_path / 'run'}", "trainer.max_epochs=3")
        outcome = call(train, "train", *QUICK, *words)
    finally:
        os.sched_setaffinity(0, before)
        for process in busy:
            process.kill()
            process.wait()
    assert outcome.code == 0, outcome.err
    (line,) = [line for line in outcome.err.splitlines() if "training is slow" in line]
    assert line.startswith("warning: training is slow: its threads wait for a core ")
    assert line.endswith("% of the time, since other programs use the cores; end them")


def test_wrong_variable_ends_a_command_before_anything_is_written(tmp_path, digits_dir):
    words = (*QUICK, "trainer.num_threads=null", f"data.dir={digits_dir}", f"run_dir={tmp_path / 'run'}")
    outcome = finished(forked("train.py", *words, cwd=tmp_path, OMP_NUM_THREADS="all"))
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith("error: the environment variable OMP_NUM_THREADS is 'all'; it must")
    assert list(tmp_path.iterdir()) == []
