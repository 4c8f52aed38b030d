"""The real code on GPUs that compute nothing: devices that meet, operations that torch refuses, who uses which GPU."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from commands import CONFIGS, QUICK, REPOSITORY, call, command, evaluated, finished
from filelock import FileLock
from on_null_gpu import PRECISIONS, SHORT, plan

from alexnet_lab import train
from alexnet_lab.config import check_report
from alexnet_lab.report import make_report
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

if TYPE_CHECKING:
    import subprocess

    from null_gpu import NullGpu

HERE = Path(__file__).parent
GPU = "GPU-00000000-0000-0000-0000-{:012x}".format


class Found(NamedTuple):
    """What a process with a null GPU found, and where its runs lie."""

    said: dict[str, Any]
    runs: Path


def ran(null_gpu: NullGpu, place: Path, data: Path, *names: str, timeout: float = 280.0) -> dict[str, Any]:
    """What `on_null_gpu.py` prints; with `names` it makes only these whole runs."""
    variables = null_gpu.variables(1)
    variables["PYTHONPATH"] += f"{os.pathsep}{HERE}{os.pathsep}{HERE.parent}"
    script = str((HERE / "on_null_gpu.py").relative_to(HERE.parents[1]))
    outcome = finished(command(script, str(place), str(data), *names, cwd=place, **variables), timeout)
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out.splitlines()[-1])


@pytest.fixture(scope="session", name="found")
def _found(null_gpu: NullGpu, digits_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Of one process for all workers of pytest-xdist, whose temporary folders have one parent."""
    own = tmp_path_factory.getbasetemp()
    place = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "null_gpu_runs"
    said = place / "said.json"
    with FileLock(f"{place}.lock"):
        if not said.exists():
            place.mkdir(exist_ok=True)
            said.write_text(json.dumps(ran(null_gpu, place, digits_dir)))
    return Found(json.loads(said.read_text()), place)


WHOLE = "completed: interrupted in step 3 of 6, test, train, val"


def test_whole_run_is_interrupted_and_goes_on(found):
    assert found.said["whole"] == dict.fromkeys(SHORT, WHOLE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_whole_runs_of_each_network_and_of_each_optimiser_in_each_precision(null_gpu, tmp_path, digits_dir):
    names = [*plan()]
    assert {name.split()[0] for name in names} == {path.stem for path in (CONFIGS / "model").glob("*.yaml")}
    optimizers = {path.stem for path in (CONFIGS / "optimizer").glob("*.yaml")}
    assert {tuple(name.split()[1:]) for name in names} == {*itertools.product(optimizers, PRECISIONS)}
    found = ran(null_gpu, tmp_path, digits_dir, *names, timeout=1700)["whole"]
    assert found == dict.fromkeys(names, WHOLE)


def test_runs_of_a_gpu_are_reported_without_one(found):
    assert not torch.cuda.is_available()
    assert found.said["sweep"] == 0
    configs = REPOSITORY / "src" / "alexnet_lab" / "report" / "config"
    runs = ",".join(str(found.runs / name) for name in ("auto", "fp16", "tf32"))
    for count, word in ((2, f"sweep={found.runs / 'sweep'}"), (3, f"runs=[{runs}]")):
        out = found.runs / f"report_{count}"
        words = (word, f"out={out}")
        outcome = call(lambda config: make_report(check_report(config)), "report", *words, configs=configs)
        assert outcome.code == 0, outcome.err
        assert f"{count} of {count} runs completed; report: {out}" in outcome.err
        assert "Null GPU" in (out / "report.html").read_text()


def test_every_network_trains_with_deterministic_operations_in_each_precision(found):
    assert found.said["steps"] == {}


def test_runs_end_in_each_precision(found):
    assert set(found.said["runs"].values()) == {"completed"}
    assert set(found.said["runs"]) == {"bf16", "fp16", "tf32", "auto"}


def test_training_never_waits_for_the_gpu(found):
    waits = found.said["waits"]
    assert "called a synchronizing CUDA operation" in waits.pop("rmsprop")  # which cannot skip a step on the device
    assert waits == dict.fromkeys(("sgd", "resident", "copied", "clipped", "accumulated"), "completed")


def test_metrics_of_a_checkpoint_join_those_of_the_gpu(found):
    assert len(found.said["counts"]) == 4


def test_run_on_a_gpu_is_interrupted_within_an_epoch_and_resumes(found):
    assert found.said["interrupted"] == {
        "said": "interrupted by SIGTERM in epoch 1", "step": 3, "steps": 6, "status": "completed", "gpus": [GPU(0)],
    }  # fmt: skip


def test_tf32_is_for_convolutions_and_products_alike(found):
    assert found.said["precision"] == {"tf32": [True, True, False], "highest": [False, False, False]}


def test_manifest_names_what_computed(found):
    manifest = json.loads((found.runs / "tf32" / "manifest.json").read_text())
    assert manifest["precision"] == {"precision": "32-true", "float32": "tf32"}
    assert manifest["hardware"]["device"] == "Null GPU"
    assert manifest["hardware"]["gpu_uuids"] == [GPU(0)]
    assert set(manifest["hardware"]["cuda"]) == {"runtime", "cudnn", "nccl"}  # and `driver`, where NVIDIA's is


def test_run_of_a_gpu_is_evaluated_and_resumed_without_one(found, digits_dir):
    run = found.runs / "bf16"
    outcome = evaluated(f"run={run}")
    assert outcome.code == 0, outcome.err
    assert "bf16 was trained with trainer.accelerator=gpu, which this machine lacks" in outcome.err
    outcome = call(train, "train", f"resume={run}", "trainer.max_epochs=2")
    assert outcome.code == 2
    assert "`trainer.accelerator` is gpu, but there is none here; take trainer.accelerator=cpu" in outcome.err
    changes = {"trainer.accelerator": "cpu", "trainer.max_epochs": 2}
    assert train({"resume": str(run), "changes": changes})["epochs"] == 2


def test_driver_that_is_too_old_is_one_line(null_gpu, tmp_path, digits_dir):
    variables = null_gpu.variables(1, NULL_GPUS_DRIVER="12040")
    words = (*QUICK, "trainer=gpu", f"data.dir={digits_dir}", f"run_dir={tmp_path / 'run'}")
    outcome = finished(command("train.py", *words, cwd=tmp_path, **variables))
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert "the NVIDIA driver supports CUDA 12.4, and torch" in line
    assert "install NVIDIA's driver 580 or newer, or a torch for CUDA 12: pip install torch" in line
    assert not (tmp_path / "run").exists()


def users(log: Path) -> dict[int, set[int]]:
    """The living processes on each GPU."""
    found: dict[int, set[int]] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        gpu, pid = map(int, line.split())
        if is_alive(pid):
            found.setdefault(gpu, set()).add(pid)
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def watched(process: subprocess.Popen[str], log: Path, kills: int) -> list[set[int]]:
    """The GPUs in use, again and again, until a sweep has ended; kills the worker that is seen first, so many times."""
    seen: list[set[int]] = []
    killed: set[int] = set()
    while process.poll() is None:
        used = users(log)
        assert all(len(pids) == 1 for pids in used.values()), f"shared: {used}"
        seen.append({*used})
        others = {pid for pids in used.values() for pid in pids} - killed
        if others and len(killed) < kills:
            killed.add(min(others))
            os.kill(min(others), signal.SIGKILL)
        time.sleep(0.05)
    return seen


@pytest.mark.slow
@pytest.mark.timeout(900)  # each of its processes imports torch
@pytest.mark.parametrize(("launcher", "gpus"), [("joblib", 3), ("submitit_local", 2)])
def test_jobs_share_no_gpu_and_leave_none_idle(launcher, gpus, null_gpu, tmp_path, digits_dir):
    jobs = 2 * gpus
    place, log = tmp_path / "sweep", tmp_path / "log"
    words = (
        "-m", "trainer=gpu", f"launcher={launcher}", f"seed=range({jobs})", *QUICK, "trainer.max_epochs=3",
        "trainer.limit_train_batches=20", f"data.dir={digits_dir}", f"hydra.sweep.dir={place}",
    )  # fmt: skip
    variables = null_gpu.variables(gpus + 1, NULL_GPUS_LOG=str(log))
    visible: dict[str, Any] = {"CUDA_VISIBLE_DEVICES": ",".join(str(number) for number in range(1, gpus + 1))}
    process = command("train.py", *words, cwd=tmp_path, **variables, **visible)
    try:
        seen = watched(process, log, kills=2)
    finally:
        ended = finished(process, timeout=1)
    assert ended.code == 0, ended.err
    assert set().union(*seen) == {*range(1, gpus + 1)}  # not the one that was masked
    lines = SweepDirectory(place).latest().values()
    ends = [datetime.fromisoformat(line["ended"]).timestamp() for line in lines]
    starts = [end - line["wall_seconds"] for end, line in zip(ends, lines, strict=True)]
    assert sorted(starts)[1] < min(ends)  # side by side
    assert [line["status"] for line in lines] == ["completed"] * jobs
    assert all(len(line["gpus"]) == 1 for line in lines)
    assert {line["gpus"][0] for line in lines} == {GPU(number) for number in range(1, gpus + 1)}
