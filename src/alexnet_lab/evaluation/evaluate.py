"""The steps of eval.py: predicts, counts, writes `eval/<name>.json`, tables and figures, and prints the results."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from alexnet_lab.base import shell
from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.base.files import usable, write_json
from alexnet_lab.base.log import start_log
from alexnet_lab.config.continuing import differences
from alexnet_lab.config.schema import Evaluate, EvaluatedData, listed
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.identity import check_same_images
from alexnet_lab.evaluation import prediction_tables, printout
from alexnet_lab.evaluation.cache import predict_once
from alexnet_lab.evaluation.comparisons import error_comparisons
from alexnet_lab.evaluation.custom_images import OwnImages, find_images
from alexnet_lab.evaluation.error_rates import class_errors, confusion, images_of_classes, intervals, macro_averages
from alexnet_lab.evaluation.evaluated import Evaluated, ensemble, mean_metrics
from alexnet_lab.evaluation.fetched import local
from alexnet_lab.evaluation.file_names import chosen_name, out_folder
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.evaluation.predict import UNKNOWN, count_views
from alexnet_lab.run import tracking
from alexnet_lab.run.provenance import git_state
from alexnet_lab.run.run_directory import is_run, run_names

log = logging.getLogger(__name__)

FOLDER = "eval"
"""The folder of all evaluations in a run's directory."""

FORMAT_VERSION = 1
"""Of eval/<name>.json."""

WORDS = {"test": "test", "val": "validation", "train": "training"}
"""The adjective for the images of a split."""


def evaluate(config: Evaluate) -> dict[str, Any]:
    """Evaluates a finished run, or several as an ensemble, prints the errors and writes them into `<run>/eval/`.

    Args:
        config: A checked config of eval.py.

    Returns:
        The content of `eval/<name>.json`.

    Raises:
        RunError: A run is not finished, its checkpoint is damaged, the runs of an ensemble do not fit, or the result
            cannot be written.
        DataError: The run's data, or the user's, is missing or damaged.
        ConfigError: A requested figure cannot be drawn.
    """
    start_log()
    subject = predicted(config)
    path = subject.folder / f"{subject.name}.json"
    try:
        evaluation = _write(subject, config.figures, path)
    except OSError as error:
        place = error.filename or subject.folder
        raise RunError(f"the evaluation cannot be written: {place}: {error.strerror or error}") from error
    printout.show(evaluation, subject.predictions, path)
    if config.figures and subject.name == "test_center" and config.out is None:
        _track(subject, [subject.folder / name for name in evaluation["figures"] if name.endswith(".png")])
    return evaluation


def _write(subject: Evaluated, figures: str | Sequence[str], path: Path) -> dict[str, Any]:
    """Draws the requested figures and writes the numbers and tables; returns the numbers."""
    evaluation = summary(subject)
    labels = [run.label for run in subject.runs]
    compared = error_comparisons(labels, subject.each, subject.predictions, subject.views)
    if figures:
        from alexnet_lab.evaluation.figures.registry import make_figures  # noqa: PLC0415 - matplotlib takes half a second

        drawn, more = make_figures(subject, figures)
        evaluation |= drawn
        compared += more
    origin = _origin(subject)
    evaluation |= origin | {"comparisons": [row.to_json() | origin for row in compared]}
    write_json(path, evaluation)
    prediction_tables.write(subject, evaluation)
    return evaluation


def _origin(subject: Evaluated) -> dict[str, Any]:
    """The origin of an evaluation: the images, the commit of the evaluating code, and the command."""
    stores = [run.data.store_hash for run in subject.runs] if subject.own is None else [subject.own.fingerprint]
    git = git_state(Path(__file__).parent) or {"commit": None, "dirty": None}
    command = shell.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"store_hash": " ".join(dict.fromkeys(stores)), **git, "command": command}


def _track(subject: Evaluated, pictures: list[Path]) -> None:
    """Adds the figures to the run's own W&B run, if it has one."""
    run = subject.runs[0]
    steps = (run.directory.read_result() or {}).get("steps", 0)
    tracking.add_pictures(run.directory.path, run.trained_by.model_dump(), pictures, steps)


def predicted(config: Evaluate) -> Evaluated:
    """The runs of a checked config of eval.py, with their predictions.

    Raises:
        ConfigError: `run` names a run twice, `split` asks for images that a run does not have, `name` belongs to
            another evaluation, or `out` cannot be written.
    """
    out = None if config.out is None else out_folder(config.out)
    runs = _runs(config)
    split, views, own = config.split, config.views, _own_images(config.data, runs[0])
    if own is None:
        _check_images(runs, split)
    if config.figures:
        from alexnet_lab.evaluation.figures.registry import obstacles  # noqa: PLC0415 - matplotlib takes half a second

        obstacles(runs, config.figures, labelled=own is None or UNKNOWN not in own.labels)
    about = _about(runs, own, split, views)
    folder = out or runs[0].directory.path / FOLDER
    name = chosen_name(folder, config.name, _default_name(about, own, out), about, shared=out is not None)
    each = [predict_once(run, split, views=views, own=own) for run in runs]
    if own is None:
        _check_same_images(runs, split, allowed=config.other_images)
    together = each[0] if len(each) == 1 else ensemble([run.path for run in runs], each, "test" if own else split)
    return Evaluated(runs, own, split, views, name, each, together, folder)


def _runs(config: Evaluate) -> list[FinishedRun]:
    """The runs that the config names, all different."""
    names = local(run_names(listed(config.run), "run"))
    _check_different(names, [os.path.realpath(name) for name in names])
    for name in names:
        _refuse_sweep(name)
    runs = [
        FinishedRun(
            name,
            data_dir=config.data.dir,
            trusted_packages=config.trusted_packages,
            num_threads=config.num_threads,
            other_images=config.other_images,
        )
        for name in names
    ]
    _check_different(names, [run.checkpoint_hash for run in runs])
    if len(runs) > 1:
        _check_different(names, [_weights_hash(run) for run in runs], "networks of the same weights")
    _warn_of_other_recipes(runs)
    return runs


def _refuse_sweep(name: str) -> None:
    if usable(Path(name) / "sweep.json").exists() and not is_run(name):
        pattern = shell.join([shell.override("run", f"{name.rstrip('/')}/LEVEL_seed-*")])
        raise RunError(f"{name} is a sweep; eval.py takes runs, such as those of one level: {pattern}")


def _warn_of_other_recipes(runs: Sequence[FinishedRun]) -> None:
    """Warns if runs differ in more than the seed: their mean and interval then mix several recipes."""
    first, *others = (run.trained_by.model_dump() for run in runs)
    keys = {
        item.key: None
        for other in others
        for item in differences(first, other)
        if item.kind != "free" and item.key not in ("seed", "experiment")
    }
    if keys:
        named = ", ".join(f"`{key}`" for key in list(keys)[:3]) + (
            f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        )
        log.warning("the runs differ in more than the seed: %s; intervals over runs mix these recipes", named)


def _about(runs: Sequence[FinishedRun], own: OwnImages | None, split: str, views: str) -> dict[str, Any]:
    """The fields of `eval/<name>.json` that identify an evaluation."""
    return {
        "runs": [run.name for run in runs],
        "checkpoints": [run.checkpoint_hash for run in runs],  # runs of several sweeps may have the same name
        "split": "own" if own else split,
        "data_root": str(own.root) if own else None,
        "other_images": {name: run.difference for name, run in _distinct(runs).items() if run.difference} or None,
        "views": views,
    }


def _distinct(runs: Sequence[FinishedRun]) -> dict[str, FinishedRun]:
    """The runs by their names, or if some have the same one, by their labels or paths."""
    ways = ([run.name for run in runs], [run.label for run in runs], [run.path for run in runs])
    names = next(names for names in ways if len(set(names)) == len(runs))
    return dict(zip(names, runs, strict=True))


def _default_name(about: Mapping[str, Any], own: OwnImages | None, out: Path | None) -> str:
    """The name of an evaluation's files if the user gives none."""
    what = f"{f'own_{own.name}' if own else about['split']}_{about['views']}"
    if about["other_images"]:
        what += "_other_images"  # next to the run's own numbers, not in their place
    if len(about["runs"]) > 1:
        return f"ensemble_of_{len(about['runs'])}_{what}"
    return what if out is None else f"{about['runs'][0]}_{what}"


def _weights_hash(run: FinishedRun) -> str:
    """A hash of the weights alone: a repeated run has another checkpoint, which names its directory."""
    digest = hashlib.sha256()
    for name, value in run.classifier.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_different(names: Sequence[str], identities: Sequence[str], what: str = "the same run") -> None:
    """Refuses an ensemble that contains a run, a copy or a repetition of it twice."""
    seen: dict[str, str] = {}
    for name, identity in zip(names, identities, strict=True):
        if identity in seen:
            raise ConfigError(
                f"`run` names {what} twice, as {seen[identity]} and {name}; an ensemble needs different runs"
            )
        seen[identity] = name


def _check_images(runs: Sequence[FinishedRun], split: str) -> None:
    """Refuses a split without images in one of the runs."""
    for run in runs:
        counts = {"test": run.data.num_test, "val": run.data.num_val, "train": run.data.num_train}
        if counts[split] == 0:
            others = " or ".join(f"split={name}" for name, count in counts.items() if count)
            raise ConfigError(
                f"`split` is {split}, but run {run.name} has no {WORDS[split]} images (data.{split}_fraction=0); "
                f"set {others}"
            )


APART = (
    "evaluate each run by itself, or all of them on one folder (data.root=FOLDER); other_images=true takes images with "
    "the same number for the same"
)
"""What to do about runs that were tested on different images."""


def _check_same_images(runs: Sequence[FinishedRun], split: str, *, allowed: bool) -> None:
    """Refuses an ensemble of runs that were tested on different images; stores of several sizes compare files."""
    known = [run for run in runs if isinstance(run.data, ImageDataModule)]
    by_files = len({str(run.data.store.meta["shape"]) for run in known}) > 1
    for other in known[1:]:
        what = f"an ensemble needs runs of the same {split} images: those of {known[0].name} and {other.name} differ"
        one, two = (run.data.part_identity(split, by_files=by_files) for run in (known[0], other))
        check_same_images(one, two, what, switch="other_images", allowed=allowed, then="and", remedy=APART)


def _own_images(data: EvaluatedData, run: FinishedRun) -> OwnImages | None:
    if data.root is None:
        return None
    aliases = getattr(run.data, "readable", {})  # of ImageNet's folders
    return find_images(data.root, run.data.class_names, aliases, skip_unreadable=data.skip_unreadable)


def summary(subject: Evaluated) -> dict[str, Any]:
    """The numbers of `eval/<name>.json`."""
    run, predictions = subject.runs[0], subject.predictions
    several = len(subject.runs) > 1
    found: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "run": run.name,
        "checkpoint": str(run.directory.best.relative_to(run.directory.path)),
        **_about(subject.runs, subject.own, subject.split, subject.views),
        "num_views": [count_views(each, subject.views) for each in subject.runs],
        "images": len(predictions.labels),
        "metrics": predictions.metrics,
        "center_metrics": predictions.center_metrics if subject.views != "center" and not several else None,
        "single_metrics": mean_metrics(subject.each) if several else None,
        "class_names": predictions.class_names,
    }
    if predictions.metrics:
        matrix = confusion(predictions)
        rows = class_errors(matrix, predictions.class_names, images_of_classes(predictions))
        found |= {
            "intervals": {name: list(interval) for name, interval in intervals(predictions).items()},
            "calibration_error": subject.reliability.calibration_error,
            "classes": [row._asdict() | {"interval": list(row.interval)} for row in rows],
            "macro": macro_averages(rows),
            "confusion": matrix,
        }
    return found
