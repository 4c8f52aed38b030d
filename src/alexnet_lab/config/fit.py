"""Whether the parts of a config fit each other: model and data, batch and devices."""

from __future__ import annotations

from typing import Any

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models.geometry import check_model

FACTS = {"num_classes": "num_classes", "in_channels": "channels", "image_size": "image_size"}
"""The fields of a model that are facts of its data."""


def check_fit(config: dict[str, Any]) -> None:
    """Raises ConfigError with the reason where the parts of a config do not fit."""
    _check_facts(config["model"], config["data"])
    check_model(config["model"]["_target_"], config["model"])
    _check_batch(config["data"], config["trainer"])


def _check_facts(model: dict[str, Any], data: dict[str, Any]) -> None:
    for field, fact in FACTS.items():
        if field in model and fact in data and model[field] != data[fact]:
            raise ConfigError(
                f"`model.{field}` is {model[field]} but the data has {data[fact]} (`data.{fact}`); "
                f"leave model.{field} at ${{data.{fact}}}"
            )


def _check_batch(data: dict[str, Any], trainer: dict[str, Any]) -> None:
    devices = trainer["devices"]
    if isinstance(devices, int) and data["batch_size"] % devices:
        raise ConfigError(
            f"`data.batch_size` is {data['batch_size']} images in all, which {devices} devices do not divide; "
            f"take a multiple of {devices}"
        )
