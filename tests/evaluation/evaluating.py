"""eval.py from Python."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from alexnet_lab.config import check_evaluate
from alexnet_lab.evaluation import evaluate as evaluation
from alexnet_lab.run.run_directory import RunDirectory


def run_eval(run: Path | list[str], **fields: Any) -> dict[str, Any]:
    """What eval.py makes of a run, or of several."""
    where = str(run) if isinstance(run, Path) else run
    return evaluation.evaluate(check_evaluate({"run": where, "num_threads": 1} | fields))


def seal(run: Path) -> None:
    """Makes what was changed in a finished run count as what the run left."""
    directory = RunDirectory(run)
    directory.write_result(directory.read_result() or {})


def another_run(run: Path, copy: Path) -> Path:
    """A copy of a finished run with other weights: no run is averaged with itself."""
    shutil.copytree(run, copy)
    best = RunDirectory(copy).best
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["state_dict"]["net.classifier.output.bias"] += 1.0
    torch.save(checkpoint, best)
    seal(copy)
    return copy
