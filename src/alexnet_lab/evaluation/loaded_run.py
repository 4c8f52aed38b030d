"""A finished run, rebuilt from its directory alone: its config, its network with the best weights, its data."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import torch

from alexnet_lab.base import shell
from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.base.files import sha256
from alexnet_lab.config import check_saved
from alexnet_lab.config.schema import Train
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.identity import check_same_images
from alexnet_lab.evaluation.predict import Predictor
from alexnet_lab.run.devices import usable_accelerator, usable_precision
from alexnet_lab.run.engine import build_classifier, build_data, without_verification
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.run.threads import chosen_threads
from alexnet_lab.training.checkpoint_io import load_checkpoint, load_weights

__all__ = ["FinishedRun"]

log = logging.getLogger(__name__)

WHOLE = {
    "devices": 1,
    "num_nodes": 1,
    "limit_val_batches": 1.0,
    "limit_test_batches": 1.0,
    "fast_dev_run": False,
    "overfit_batches": 0.0,
    "compile": False,  # hooks do not run in compiled layers
    "progress_bar": False,  # Lightning's; evaluation shows its own
}
"""Keys of `trainer` for evaluation: one process, every image."""


class FinishedRun(Predictor):
    """A completed run. Its data is prepared on first use.

    Args:
        run: The run directory.
        data_dir: The folder of the data sets; None: as in training.
        trusted_packages: Additional packages that a `_target_` of its config may name.
        num_threads: Of this process; None: see `run.threads`.
        other_images: Evaluate on other images than in training, with a warning.

    Attributes:
        path: The run directory, as given.
        directory: The run directory's files.
        trained_by: The run's config.
        settings: The same config, set to evaluate every image in one process.
        threads: Of this process.
        classifier: With the weights of `best.ckpt`.
        checkpoint_hash: SHA-256 of that file.

    Raises:
        RunError: It is no run, has not finished, or its config or checkpoint is damaged.
        ConfigError: Its config names a package that is not trusted.

    Example:
        >>> run = FinishedRun("logs/runs/first")
        >>> run.name, run.config["model"]["pool"], run.data.num_test
        ('first', 'max', 359)
    """

    def __init__(
        self,
        run: str,
        *,
        data_dir: str | None = None,
        trusted_packages: list[str] | None = None,
        num_threads: int | None = None,
        other_images: bool = False,
    ) -> None:
        self.path = run
        self.directory, config = finished_run(run, trusted_packages)
        self._result = self.directory.read_result() or {}
        self.trained_by = config
        data = config.data if data_dir is None else config.data | {"dir": data_dir}
        data = data | {key: str(Path(data[key]).absolute()) for key in ("dir", "root") if data.get(key)}
        self.settings = evaluating(config, self.name).model_copy(update={"data": data})
        checkpoint, self.checkpoint_hash, mismatch = best_checkpoint(self.directory)  # before the data is read
        asked = self.settings.with_trainer(num_threads=num_threads)  # null: as many as a batch has work for
        self.threads = chosen_threads(asked, self._result.get("num_macs", 0), 1)
        torch.set_num_threads(self.threads)
        self.classifier = build_classifier(self.settings)
        load_weights(self.classifier, checkpoint, self.directory.best)
        if mismatch is not None:  # reported last: other checks explain a different network better
            raise mismatch
        self.classifier.eval()
        self.other_images = other_images
        self._difference: str | None = None
        self._data: ImageDataModule | None = None

    @property
    def name(self) -> str:
        """The name of the run directory."""
        return self.directory.path.resolve().name

    @property
    def label(self) -> str:
        """The name after that of the sweep, if the run belongs to one: `ideas/all_ideas_seed-0`."""
        path = self.directory.path.resolve()
        return f"{path.parent.name}/{path.name}" if (path.parent / "sweep.json").exists() else path.name

    @property
    def data(self) -> ImageDataModule:  # pyright: ignore[reportIncompatibleVariableOverride] - a variable elsewhere
        """The run's data, prepared.

        Raises:
            DataError: It is missing or damaged, or differs from the data of training.
        """
        if self._data is None:
            self._data = self._prepared()
        return self._data

    def _prepared(self) -> ImageDataModule:
        data = build_data(without_verification(self.settings))
        data.prepare_data()
        data.setup()
        found = getattr(data, "identity", {})
        what = f"run {self.directory.path} was trained on other images than its data set contains now"
        self._difference = check_same_images(
            self._result, found, what, switch="other_images", allowed=self.other_images
        )
        return data

    @property
    def difference(self) -> str | None:
        """How its images differ from those of training; None if they do not. Raises DataError like `data`."""
        return self._difference if self.data else None


def evaluating(config: Train, name: str) -> Train:
    """The config of the run `name`, set to evaluate every image in one process.

    Device and dtype are those of its training, or their replacements on this machine, with a warning.
    """
    accelerator = usable_accelerator(config.trainer.accelerator)
    usable = {"accelerator": accelerator, "precision": usable_precision(accelerator, config.trainer.precision)}
    for key, value in usable.items():
        trained = getattr(config.trainer, key)
        if value != trained:
            where = "on the CPU" if value == "auto" else f"in {value}"
            log.warning(
                "%s was trained with trainer.%s=%s, which this machine lacks; it is evaluated %s",
                name, key, trained, where,
            )  # fmt: skip
    alone = config.launcher.model_copy(update={"jobs_side_by_side": 1})  # whatever its sweep did
    return config.with_trainer(**WHOLE | usable).model_copy(update={"launcher": alone})


def best_checkpoint(directory: RunDirectory) -> tuple[dict[str, Any], str, RunError | None]:
    """The content of a run's best checkpoint, the SHA-256 of its file, and an error if the run wrote another file."""
    try:
        digest = directory.check_file(directory.best)
    except RunError as error:
        return load_checkpoint(directory.best), "", error
    return load_checkpoint(directory.best, check=digest is None), digest or sha256(directory.best), None


def finished_run(run: str, trusted_packages: list[str] | None = None) -> tuple[RunDirectory, Train]:
    """Finds a finished run's directory and config.

    Args:
        run: The run directory.
        trusted_packages: Additional packages that a `_target_` of its config may name. The list in the config itself
            does not count: a foreign run cannot grant trust to itself.

    Raises:
        RunError: It is no run, has not finished, or its config is damaged.
        ConfigError: Its config names a package that is not trusted.
    """
    directory = RunDirectory(run)
    saved = directory.read_config()
    try:
        config = check_saved(saved, trusted_packages or [])
    except ConfigError as error:
        raise ConfigError(f"{directory.config}: {error}") from error
    result = directory.read_result()
    if result is None or result.get("status") != "completed":
        status = "is unfinished" if result is None else f"ended as {result.get('status')}"
        line = shell.command("train.py", shell.override("resume", run))
        script = Path(sys.argv[0]).name if shell.runs_script() else "eval.py"
        raise RunError(f"run {run} {status}; {script} takes finished runs; resume it: {line}")
    directory.check_file(directory.config)
    return directory, config
