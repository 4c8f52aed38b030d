"""`best.safetensors`: the weights of the best epoch, with everything that is needed to predict with them."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from torch import Tensor

from alexnet_lab.base.errors import one_line
from alexnet_lab.base.flatten import flat, nested, within
from alexnet_lab.config.continuing import RECORDS
from alexnet_lab.config.default_paths import OUTWARD
from alexnet_lab.config.schema import Train
from alexnet_lab.data.channel_statistics import Statistics
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.training.callbacks import epoch_metrics, network_of
from alexnet_lab.training.weights_file import write_weights

log = logging.getLogger(__name__)

ELSEWHERE = (*OUTWARD, *RECORDS)
"""Keys of the config that the file leaves out: they describe this machine and this request."""

PATHS = ("data.root", "init_from")
"""Keys of which the file keeps the last part of the path."""


class BestWeights:
    """Writes the weights of the best epoch of a run beside its checkpoint.

    Args:
        directory: Of the run.
        config: Checked.
    """

    def __init__(self, directory: RunDirectory, config: Train) -> None:
        self.directory = directory
        self.config = portable(config)

    def best(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Writes the weights of a checkpoint of the epoch that has just ended; callbacks may have averaged them.

        Raises:
            OSError: The file cannot be written.
        """
        self._write(trainer, module, checkpoint["state_dict"], epoch_metrics(trainer), trainer.current_epoch + 1)

    def complete(self, trainer: Trainer, module: LightningModule, metrics: Mapping[str, float], epoch: int) -> None:
        """Writes the best ones, which are loaded, where an earlier version has trained up to their epoch.

        Args:
            trainer: Of the run.
            module: With the weights.
            metrics: Of the epoch.
            epoch: From 1.

        Raises:
            OSError: The file cannot be written.
        """
        if trainer.is_global_zero and not self.directory.weights.exists():
            self._write(trainer, module, module.state_dict(), metrics, epoch)

    def _write(
        self,
        trainer: Trainer,
        module: LightningModule,
        state: Mapping[str, Tensor],
        metrics: Mapping[str, float],
        epoch: int,
    ) -> None:
        data = getattr(trainer, "datamodule", None)
        facts = {
            "config": self.config, "epoch": epoch, "metrics": dict(metrics),
            "manifest": manifest_facts(self.directory), **(facts_of(data) if isinstance(data, ImageDataModule) else {}),
        }  # fmt: skip
        try:
            write_weights(self.directory.weights, network_state(state, module), facts)
        except ValueError as error:
            log.warning("%s is left out: %s", self.directory.weights, one_line(error))


def network_state(state: Mapping[str, Tensor], module: LightningModule) -> dict[str, Tensor]:
    """The part of a module's state dict that belongs to its network, under the network's own names."""
    net = network_of(module)
    if net is module:
        return dict(state)
    return {name.removeprefix("net."): tensor for name, tensor in state.items() if name.startswith("net.")}


def portable(config: Train) -> dict[str, Any]:
    """The part of a config that describes the network and its training anywhere: no paths, no trackers."""
    kept = {key: value for key, value in flat(config.model_dump()).items() if not within(key, ELSEWHERE)}
    names = {key: kept[key].rstrip("/").rpartition("/")[2] for key in PATHS if isinstance(kept.get(key), str)}
    return nested(kept | names)


def manifest_facts(directory: RunDirectory) -> dict[str, Any]:
    """What computed the weights: commit, versions, hardware and number format, without the command and its paths."""
    manifest = directory.readable_manifest()
    kept = {name: manifest.get(name) for name in ("git", "python", "packages", "precision")}
    hardware = manifest.get("hardware") or {}
    return kept | {"hardware": {name: hardware.get(name) for name in ("device", "processor", "cuda")}}


def facts_of(data: ImageDataModule) -> dict[str, Any]:
    """The record of the images, and what turns an image into the network's input."""
    return {
        "images": data.identity,
        "class_names": data.class_names,
        "statistics": {name: packed(np.asarray(value)) for name, value in data.split.statistics._asdict().items()},
    }


def packed(array: np.ndarray) -> dict[str, Any]:
    """An array as JSON: its bytes in base64."""
    text = base64.b64encode(array.tobytes()).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "base64": text}


def unpacked(record: Mapping[str, Any]) -> np.ndarray:
    """The inverse of `packed`.

    Raises:
        ValueError: It is no array of floating-point numbers.
        TypeError: Likewise.
        KeyError: Likewise.
    """
    if record["dtype"] not in ("<f4", "<f8"):
        raise ValueError(f"an array of {record['dtype']}")
    flat_array = np.frombuffer(base64.b64decode(record["base64"], validate=True), record["dtype"])
    return flat_array.reshape(record["shape"])


def statistics_of(facts: Mapping[str, Any]) -> Statistics:
    """The statistics in the facts of a file.

    Raises:
        ValueError: They are damaged.
        TypeError: Likewise.
        KeyError: There are none.
    """
    return Statistics(**{name: unpacked(facts["statistics"][name]) for name in Statistics._fields})
