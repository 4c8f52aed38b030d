"""Errors of devices that a user can do something about, in one line that says what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from commands import train_config

from alexnet_lab.base.errors import RunError
from alexnet_lab.run import failures, launcher, train

if TYPE_CHECKING:
    from pathlib import Path

FULL = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 79 GiB"


SMALLER = "set data.batch_size=64 (with trainer.accumulate_grad_batches={} a step still has as many images), or {}"


@pytest.mark.parametrize(
    ("trainer", "per_gpu", "batch", "remedies"),
    [
        ({}, 1, "128 images in trainer.precision=32-true", SMALLER.format(2, "trainer.precision=bf16-mixed")),
        (
            {"devices": 4, "precision": "bf16-mixed", "accumulate_grad_batches": 3}, 2,
            "128 images, 32 for each of 4 processes in trainer.precision=bf16-mixed",
            SMALLER.format(6, "launcher.jobs_per_gpu=1"),
        ),
    ],
)  # fmt: skip
def test_out_of_memory_says_what_to_change(trainer, per_gpu, batch, remedies):
    given = {"devices": 1, "num_nodes": 1, "precision": "32-true", "accumulate_grad_batches": 1, "accelerator": "gpu"}
    config = train_config(trainer=given | trainer, data={"batch_size": 128}, launcher={"jobs_per_gpu": per_gpu})
    said = f"out of memory with data.batch_size={batch}; {remedies} ({FULL.removeprefix('OutOfMemoryError: ')})"
    assert failures.advice(FULL, config) == said


def test_other_errors_have_no_advice():
    assert failures.advice("ValueError: no", train_config()) is None


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory with data.batch_size=16 images in trainer.prec"),
        (
            RuntimeError("histc_cuda does not have a deterministic implementation, but you set 'torch.use_det"),
            "`trainer.deterministic` is true, but histc_cuda has no deterministic form on this device; set trainer.det",
        ),
        (
            RunError("worker 1 of the run failed: OutOfMemoryError: CUDA out of memory"),
            "out of memory with data.batch_size=16 images in trainer.precision=32-true; set data.batch_size=8",
        ),
    ],
)
def test_run_that_fails_so_says_it_once_and_is_not_retried(error, line, compose, tmp_path: Path, monkeypatch):
    calls: list[int] = []

    def fail(*_: object, **__: object) -> None:
        calls.append(1)
        raise error

    monkeypatch.setattr(launcher, "fit_and_test", fail)
    with pytest.raises(RunError) as raised:
        train(compose(f"run_dir={tmp_path / 'run'}"))
    assert str(raised.value).startswith(line)
    assert len(calls) == 1
