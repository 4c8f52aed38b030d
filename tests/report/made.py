"""Directories of runs and sweeps as they lie on disk, made without training."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import yaml
from commands import REPOSITORY, Outcome, call

from alexnet_lab.base.csv_tables import csv_text
from alexnet_lab.base.files import sealed
from alexnet_lab.config import check_report
from alexnet_lab.config.default_paths import job_name
from alexnet_lab.report import make_report
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.sweeps.definition import Definition, Job, describe, identity
from alexnet_lab.sweeps.job_states import entry
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

METRIC = "test/top1_error"

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


def make_large_sweep(folder: Path, run: Path, levels: int, seeds: int) -> Path:
    """A sweep over `optimizer.weight_decay` whose jobs are copies of a real run, each with an error of its own."""
    template = RunDirectory(run)
    config, result, metrics = template.read_config(), template.read_result() or {}, template.metrics.read_bytes()
    manifest, jobs = template.manifest.read_bytes(), []
    sweep = SweepDirectory(folder)
    for level in range(levels):
        for seed in range(seeds):
            words = (f"optimizer.weight_decay={level / 1000}", f"seed={seed}")
            name = job_name(words)
            job = RunDirectory(folder / name)
            job.checkpoints.mkdir(parents=True)
            own = config | {"seed": seed, "run_dir": str(job.path), "overrides": list(words)}
            own["optimizer"] = config["optimizer"] | {"weight_decay": level / 1000}
            job.config.write_text(yaml.dump(own, Dumper=yaml.CSafeDumper, sort_keys=False))
            job.metrics.write_bytes(metrics)
            job.manifest.write_bytes(manifest)
            job.best.write_text(name)
            error = (10 + level + 3 * math.sin(seed)) / 100
            job.write_result(result | {"overrides": list(words), "metrics": result["metrics"] | {METRIC: error}})
            jobs.append(Job(name, words, identity(own)))
    about = describe(config["sweep"] | {"metric": METRIC, "name": "large"}, ["optimizer.weight_decay", "seed"])
    sweep.write(Definition(about, "python train.py -m", (), tuple(jobs)))
    lines = (entry(sweep, job, sweep.run(job).read_result() or {}, status="completed", error=None) for job in jobs)
    sweep.ledger.write_text("".join(json.dumps(sealed(line)) + "\n" for line in lines))
    return folder
