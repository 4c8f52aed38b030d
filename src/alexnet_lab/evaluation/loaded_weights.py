"""A network rebuilt from `best.safetensors` alone, ready to predict: no run directory and no data set are needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from alexnet_lab.base.checked_files import Schema, check_record
from alexnet_lab.base.errors import ConfigError, RunError, one_line
from alexnet_lab.base.files import sha256
from alexnet_lab.base.places import DATA_VARIABLE
from alexnet_lab.config import check_saved
from alexnet_lab.config.schema import Train
from alexnet_lab.data.recorded import RecordedDataModule
from alexnet_lab.evaluation.loaded_run import evaluating
from alexnet_lab.evaluation.predict import Predictor
from alexnet_lab.models.counts import num_macs
from alexnet_lab.run.best_weights import statistics_of
from alexnet_lab.run.engine import build_classifier
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.run.run_files import Metrics
from alexnet_lab.run.threads import chosen_threads
from alexnet_lab.training.checkpoint_io import load_weights
from alexnet_lab.training.weights_file import read_weights

__all__ = ["LoadedWeights"]


class Facts(Schema):
    """What a file says about its weights, as far as it is read here."""

    config: dict[str, Any]
    class_names: list[str] | None = None
    statistics: dict[str, Any] | None = None
    metrics: Metrics | None = None
    images: dict[str, Any] | None = None


class LoadedWeights(Predictor):
    """A network with its weights, from a file that a run has written.

    Args:
        path: Of the file.
        trusted_packages: Additional packages that a `_target_` of its config may name.

    Attributes:
        path: As given.
        facts: What the file says about the run: `epoch`, `metrics`, `manifest`, `images`, ...
        trained_by: The run's config, without what belongs to its machine.
        settings: The same config, set to evaluate in one process.
        data: Turns images into the network's input; it has none itself.
        threads: Of this process.
        classifier: With the weights.
        checkpoint_hash: SHA-256 of the file.

    Raises:
        RunError: It is missing, damaged, or was not written by a run.
        ConfigError: Its config names a package that is not trusted.

    Example:
        >>> trained = LoadedWeights("logs/runs/first/checkpoints/best.safetensors")
        >>> trained.predict(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, path: str, *, trusted_packages: list[str] | None = None) -> None:
        self.path = path
        file = Path(path)
        tensors, self.facts = read_weights(file)
        if not self.facts:
            raise RunError(f"{path} does not describe its network; start a run from it: init_from={path}")
        facts = check_record(Facts, self.facts, file)
        self.trained_by = _checked(facts["config"], file, trusted_packages or [])
        self.settings = evaluating(self.trained_by, file.stem)
        self.directory = RunDirectory(file.parent)
        self.classifier = build_classifier(self.settings)
        prefix = "" if self.net is self.classifier else "net."
        load_weights(self.classifier, {"state_dict": {f"{prefix}{name}": tensors[name] for name in tensors}}, file)
        self.classifier.eval()
        data = self.settings.data
        macs = num_macs(self.net, (data["channels"], data["image_size"], data["image_size"]))
        self.threads = chosen_threads(self.settings, macs, 1)  # as when a run directory is loaded
        torch.set_num_threads(self.threads)
        self.data = _recorded(self.settings, facts, file)
        self.checkpoint_hash = sha256(file)


def _checked(config: Mapping[str, Any], file: Path, trusted_packages: list[str]) -> Train:
    """The config of a file, completed with what belongs to this machine."""
    data = config.get("data")
    here = {"dir": os.environ.get(DATA_VARIABLE) or "data"}
    whole = {**config, "run_dir": str(file.parent)} | ({"data": {**data, **here}} if isinstance(data, dict) else {})
    try:
        return check_saved(whole, trusted_packages)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def _recorded(config: Train, facts: Mapping[str, Any], file: Path) -> RecordedDataModule:
    """What turns images into the network's input.

    Raises:
        RunError: The file does not say, or its numbers do not fit its config.
    """
    data, names = config.data, facts["class_names"]
    if names is None or facts["statistics"] is None:
        raise RunError(f"{file} does not say how images are normalised: its run read them by another package")
    try:
        statistics = statistics_of(facts)
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{file} is damaged: its statistics cannot be read ({one_line(error)})") from error
    shape = (data["channels"], data["stored_size"], data["stored_size"])
    if statistics.mean_image.shape != shape or len(names) != data["num_classes"]:
        raise RunError(f"{file} is damaged: its statistics or class names do not fit its config")
    return RecordedDataModule.of(data, config.augment, class_names=names, statistics=statistics)
