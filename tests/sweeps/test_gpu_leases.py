"""How a sweep shares out its GPUs: how many jobs run at once, what each may see, and what is refused."""

from __future__ import annotations

import os

import pytest
from commands import call
from sweeping import planned

from alexnet_lab.base import leases
from alexnet_lab.base.gpus import Gpu, Gpus
from alexnet_lab.config import check_train
from alexnet_lab.config.schema import Trainer
from alexnet_lab.sweeps import gpu_leases
from alexnet_lab.sweeps.gpu_leases import leased, offering

FOUR = tuple(f"GPU-{number}" for number in range(4))
GRID = ("seed=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "logger=csv")


@pytest.fixture(autouse=True)
def _four_gpus(monkeypatch, tmp_path):
    """Four GPUs, whose locks lie in a folder of the test."""
    found = Gpus(tuple(Gpu(uuid, "H100") for uuid in FOUR), 13000)
    monkeypatch.setattr(gpu_leases, "visible_gpus", lambda: found)
    monkeypatch.setattr(leases, "default_folder", lambda: tmp_path / "locks")
    monkeypatch.setattr(gpu_leases, "POLL_SECONDS", 0.01)
    for name in (gpu_leases.OFFERED, leases.SHARED, gpu_leases.VISIBLE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("launcher=joblib", "trainer=gpu"), 4),
        (("launcher=joblib",), 4),  # accelerator=auto
        (("launcher=submitit_local", "trainer=gpu"), 4),
        (("launcher=joblib", "trainer=gpu", "trainer.devices=2"), 2),
        (("launcher=joblib", "trainer=gpu", "trainer.devices=3"), 1),
        (("launcher=joblib", "trainer=gpu", "trainer.devices=auto"), 1),
        (("launcher=joblib", "trainer=gpu", "launcher.jobs_per_gpu=3"), 12),
        (("launcher=joblib", "trainer=gpu", "launcher.jobs_side_by_side=3"), 3),
        (("launcher=joblib", "trainer=cpu"), 2),
        (("launcher=local", "trainer=gpu"), 1),
    ],
)
def test_as_many_jobs_run_at_once_as_the_gpus_allow(words, expected, tmp_path):
    plan = planned(*GRID, *words, "data.batch_size=12", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert {config.launcher.jobs_side_by_side for config in plan.configs.values()} == {expected}
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("accelerator", ["gpu", "auto"])
def test_job_that_needs_more_gpus_than_there_are_is_refused_before_anything_starts(accelerator, tmp_path):
    words = ("-m", *GRID, "launcher=joblib", f"trainer.accelerator={accelerator}", "trainer.devices=5")
    outcome = call(check_train, "train", *words, f"hydra.sweep.dir={tmp_path / 'sweep'}", "data.batch_size=50")
    assert outcome.code == 2
    assert "`trainer.devices` is 5, but the sweep sees 4 GPUs; set trainer.devices=4" in outcome.err
    assert not (tmp_path / "sweep").exists()


def gpu(devices: int | str = 1, accelerator: str = "gpu") -> Trainer:
    return Trainer.model_validate({"accelerator": accelerator, "devices": devices})


def test_a_job_sees_its_own_gpus_whatever_mask_its_launcher_set(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as submitit does it
    with offering(FOUR):
        with leased(gpu(2), 1), leased(gpu(1, "auto"), 1):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-2"
            assert len(os.environ[leases.SHARED].split(os.pathsep)) == 1
        with leased(gpu("auto"), 1):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1,GPU-2,GPU-3"
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
        with leased(gpu(accelerator="cpu"), 1):
            assert leases.SHARED not in os.environ


def test_a_job_waits_until_a_gpu_is_free(monkeypatch, caplog):
    held = [leases.take(FOUR, 1) for _ in FOUR]
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3 and held[1] is not None:
            held[1].release()

    monkeypatch.setattr(gpu_leases.time, "sleep", nap)
    with caplog.at_level("INFO", "alexnet_lab"), offering(FOUR), leased(gpu(), 1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert len(naps) == 3
    assert [record.message for record in caplog.records] == ["waiting for 1 of 4 GPUs: other jobs use them"]


def test_a_job_on_another_machine_or_in_a_slurm_job_takes_no_offer(monkeypatch):
    with offering(FOUR):
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        with leased(gpu(), 1):
            assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize("words", [("launcher=in_process",), ("trainer=cpu",)])
def test_nothing_is_offered_where_no_job_leases(words, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_leases, "visible_gpus", lambda: pytest.fail("the driver was asked"))
    planned(*GRID, *words, f"hydra.sweep.dir={tmp_path / 'sweep'}")


@pytest.mark.parametrize(("words", "jobs"), [((), 12), (("launcher.workers=false",), 3), (("trainer=cpu",), 2)])
def test_jobs_side_by_side_follow_the_gpus_that_jobs_can_take(words, jobs, tmp_path):
    """Without worker processes all jobs use the first GPU."""
    common = ("launcher=joblib", "launcher.jobs_per_gpu=3", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    plan = planned(*GRID, *common, *words)
    assert plan.launcher.jobs_side_by_side == jobs
