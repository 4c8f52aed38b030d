"""Predictions on disk: made once, and again when the checkpoint or the images change.

Each is one file `eval/predictions/<name>.npz` in the run directory. It contains arrays named like the fields of
`Predictions`, and `meta`, JSON with the other fields and the key. numpy.load(file) opens it.
"""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet_lab.base.checked_files import parse_json
from alexnet_lab.base.errors import RunError
from alexnet_lab.base.files import atomic_path
from alexnet_lab.evaluation.custom_images import OwnImages
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.evaluation.predict import Predictions, Views, predict

log = logging.getLogger(__name__)

FORMAT_VERSION = 4

ARRAYS = ("logits", "features", "labels", "indices", "center_ranks")
REST = ("names", "class_names", "metrics", "center_metrics")
"""The fields of `Predictions`, by where they are kept."""


def predict_once(run: FinishedRun, split: str, *, views: Views = "center", own: OwnImages | None = None) -> Predictions:
    """Reads a run's predictions from its directory if they are up to date; otherwise predicts and keeps the result.

    Args:
        run: The finished run.
        split: "test", "val" or "train".
        views: The views of each image.
        own: The user's own images, in place of the split.

    Raises:
        RunError: The run directory cannot be written.
    """
    name = f"own_{own.name}" if own else split
    path = run.directory.path / "eval" / "predictions" / f"{name}_{views}.npz"
    key = key_of(run, split, views, own)
    found = read_predictions(path, key)
    if found is not None:
        return found
    if own is None:
        made = predict(run, split, views=views)
    else:
        with own.rows(run.data) as (rows, names):
            made = predict(run, "test", views=views, rows=rows, names=names)
    write_predictions(path, key, made)
    return made


def key_of(run: FinishedRun, split: str, views: Views, own: OwnImages | None) -> dict[str, Any]:
    """Everything that predictions depend on: weights, images, their selection and their preprocessing."""
    config = run.settings
    return {
        "format": FORMAT_VERSION,
        "checkpoint": run.checkpoint_hash,
        "images": own.fingerprint if own else f"{run.data.store_hash} {run.data.shares.file_name}",
        "split": "own" if own else split,
        "views": views,
        "model": config.model,
        "shown": [
            config.data.get("normalization"),
            config.trainer.precision,
            run.data.transform.geometry(training=True),
            views == "ten" and run.data.transform.mirrors,
        ],
    }


def write_predictions(path: Path, key: dict[str, Any], predictions: Predictions) -> None:
    """Writes the file atomically.

    Raises:
        RunError: It cannot be written.
    """
    meta = json.dumps({"key": key} | {name: getattr(predictions, name) for name in REST})
    arrays = {name: getattr(predictions, name).numpy() for name in ARRAYS}
    try:
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez(file, meta=np.array(meta), **arrays)
    except OSError as error:
        raise RunError(f"cannot write {path} ({error.strerror or error}); eval.py keeps predictions there") from error


def read_predictions(path: Path, key: dict[str, Any]) -> Predictions | None:
    """Reads the file; None if it is missing or damaged, or has another key."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            meta = parse_json(str(archive["meta"]))
            if meta["key"] != json.loads(json.dumps(key)):
                log.debug("%s belongs to other weights or images", path)
                return None
            arrays = {name: torch.from_numpy(archive[name]) for name in ARRAYS}
            return Predictions(**arrays, **{name: meta[name] for name in REST})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged (%s): predicting again", path, error)
        return None
