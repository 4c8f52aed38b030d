"""Whether the parts of a config fit each other: model and data, batch and devices."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from alexnet_lab.base.errors import ConfigError

SHAPE_CHECKS: dict[str, tuple[str, str]] = {
    "alexnet_lab.models.AlexNet": ("alexnet_lab.models.geometry", "alexnet_sizes"),
    "alexnet_lab.models.LeNet5": ("alexnet_lab.models.geometry", "lenet5_sizes"),
}
"""For each network the function that computes its map sizes, or raises ConfigError; free of torch."""

FACTS = {"num_classes": "num_classes", "in_channels": "channels", "image_size": "image_size"}
"""The fields of a model that are facts of its data."""


def check_fit(config: dict[str, Any]) -> None:
    """Raises ConfigError with the reason where the parts of a config do not fit."""
    _check_facts(config["model"], config["data"])
    _check_shapes(config["model"])
    _check_batch(config["data"], config["trainer"])


def _check_facts(model: dict[str, Any], data: dict[str, Any]) -> None:
    for field, fact in FACTS.items():
        if field in model and fact in data and model[field] != data[fact]:
            raise ConfigError(
                f"`model.{field}` is {model[field]} but the data has {data[fact]} (`data.{fact}`); "
                f"leave model.{field} at ${{data.{fact}}}"
            )


def _check_shapes(model: dict[str, Any]) -> None:
    if model["_target_"] in SHAPE_CHECKS:
        module, name = SHAPE_CHECKS[model["_target_"]]
        check = getattr(importlib.import_module(module), name)
        wanted = inspect.signature(check).parameters
        check(**{key: value for key, value in model.items() if key in wanted})


def _check_batch(data: dict[str, Any], trainer: dict[str, Any]) -> None:
    devices = trainer["devices"]
    if isinstance(devices, int) and data["batch_size"] % devices:
        raise ConfigError(
            f"`data.batch_size` is {data['batch_size']} images in all, which {devices} devices do not divide; "
            f"take a multiple of {devices}"
        )
