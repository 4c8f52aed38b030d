"""What a user of an exported file needs to know, for the file's metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import alexnet_lab
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.evaluation.loaded_weights import LoadedWeights
from alexnet_lab.evaluation.predict import Predictor

FORMAT_VERSION = 1


def described(run: Predictor) -> dict[str, Any]:
    """The description of a run's file: classes, input, normalisation, test metrics, origin."""
    data = run.data
    size, colour = data.stored_size, "RGB" if data.channels == 3 else "grey"
    return {
        "format_version": FORMAT_VERSION,
        "class_names": data.class_names,
        "input": f"pixels: uint8 (batch, {data.channels}, {size}, {size}), {colour}, 0 to 255",
        "preparation": (
            "turn the image upright (EXIF), divide 16-bit values by 256, put it on white where it is transparent, make "
            f"it {colour}, scale the shorter side to {size} pixels (Pillow's BILINEAR, antialiased), crop the "
            f"centre of {size} x {size}"
        ),
        "outputs": "logits and probabilities: float32 (batch, classes)",
        "normalization": f"{data.normalization}, of the centre {data.transform.geometry(training=False).side} pixels",
        "run": name_of(run),
        "model": run.settings.model,
        "metrics": {name: value for name, value in metrics_of(run).items() if name.startswith(("test/", "val/"))},
        "weights_sha256": run.checkpoint_hash,
        "versions": {"alexnet_lab": alexnet_lab.__version__, "torch": torch.__version__.partition("+")[0]},
    }


def name_of(run: Predictor) -> str:
    """The name of a run, or of a weights file without its ending."""
    return run.name if isinstance(run, FinishedRun) else Path(run.path).stem


def metrics_of(run: Predictor) -> dict[str, float]:
    """The metrics of a run, or those that a weights file records."""
    if isinstance(run, LoadedWeights):
        return run.facts.get("metrics") or {}
    return (run.directory.read_result() or {}).get("metrics") or {}


def whole_test_set(run: Predictor) -> int | None:
    """The number of test images, if the test metrics are of all of them; None otherwise, or if it is not known."""
    images = run.facts.get("images") if isinstance(run, LoadedWeights) else {"num_test": run.data.num_test}
    number = images.get("num_test") if isinstance(images, dict) else None
    trainer = run.trained_by.trainer
    limit = trainer.limit_test_batches
    whole = isinstance(limit, float) and limit == 1 and not trainer.fast_dev_run  # an int is a number of batches
    return number if isinstance(number, int) and whole else None
