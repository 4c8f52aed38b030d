"""Directories of runs and sweeps as they lie on disk, made without training."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import yaml
from commands import REPOSITORY, Outcome, call

from alexnet_lab.base.csv_tables import csv_text
from alexnet_lab.config import check_report
from alexnet_lab.report import make_report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MANIFEST = {
    "git": {"commit": "0123abcd", "dirty": False},
    "python": "3.11.7",
    "packages": {"torch": "2.9.0"},
    "hardware": {"processor": "a processor", "cores": 2, "memory_gib": 8.0, "gpus": []},
    "system": "Linux",
}


def report(*words: str) -> Outcome:
    """`python report.py words`, in this process."""
    folder = REPOSITORY / "src" / "alexnet_lab" / "report" / "config"
    return call(lambda config: make_report(check_report(config)), "report", *words, configs=folder)


def make_run(
    path: Path,
    *,
    error: float = 0.1,
    seed: int = 0,
    epochs: int = 3,
    status: str = "completed",
    reason: str | None = None,
    overrides: Sequence[str] = (),
    more: Mapping[str, float] | None = None,
    **model: Any,
) -> Path:
    """A run whose errors fall to `error`; `more` are further columns, `model` its fields of the network."""
    path.mkdir(parents=True)
    config = {
        "seed": seed,
        "run_dir": str(path),
        "model": {"_target_": "alexnet_lab.models.LeNet5", "activation": "relu"} | model,
        "trainer": {"max_epochs": epochs},
        "logger": {"project": "alexnet-lab", "group": None, "entity": None, "name": None},
        "overrides": list(overrides),
    }
    rows = [
        {
            "epoch": epoch + 1,
            "step": 10 * (epoch + 1),
            "val/top1_error": error + math.exp(-epoch),
            "train/top1_error": error / 2 + math.exp(-epoch),
            "val/loss": 2 * error + math.exp(-epoch),
            "train/loss": error + math.exp(-epoch),
            "learning_rate": 0.1 / (epoch + 1),
            "images_per_second": 1000.0 + epoch,
        }
        | dict(more or {})
        for epoch in range(epochs)
    ]
    result = {
        "status": status,
        "metrics": {"test/top1_error": error, "test/loss": 3 * error, "val/top1_error": error} if not reason else {},
        "epochs": epochs,
        "images_per_second": 1001.0,
        "wall_seconds": 12.0,
        "error": reason,
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / "metrics.csv").write_text(csv_text(rows))
    (path / "result.json").write_text(json.dumps(result))
    (path / "manifest.json").write_text(json.dumps(MANIFEST))
    return path


def make_sweep(folder: Path, errors: Mapping[str, Sequence[float | None]], **definition: Any) -> Path:
    """A sweep over `model.activation`: for each level the test error of seeds 0, 1, ...; None is a job to go."""
    jobs, ledger = [], []
    for level, values in errors.items():
        for seed, error in enumerate(values):
            overrides = [f"model.activation={level}", f"seed={seed}"]
            name = f"model.activation-{level}_seed-{seed}"
            job = {"job": name, "run_dir": name, "overrides": overrides, "config": {}}
            jobs.append(job)
            if error is None:
                continue
            reason = "RunError: the training loss is nan" if math.isnan(error) else None
            make_run(
                folder / job["run_dir"], error=error if reason is None else 1.0, seed=seed, reason=reason,
                status="failed" if reason else "completed", activation=level,
            )  # fmt: skip
            ledger.append(job | {"status": "failed" if reason else "completed", "error": reason})
    folder.mkdir(exist_ok=True)
    content = {
        "version": 1, "name": "activation", "factor": ["model.activation"], "base": ["relu"],
        "metric": "test/top1_error", "claim": "ReLUs learn faster", "paper": "25 % after 5 epochs",
        "command": "python train.py -m sweep=activation", "overrides": [], "config": {}, "jobs": jobs,
    }  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps(content | definition))
    (folder / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in ledger))
    return folder
