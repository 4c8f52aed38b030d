"""Names the network and the data of a table, from the configs of its runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from alexnet_lab.sweeps.definition import Definition

CLASSIFIER = "alexnet_lab.training.Classifier"
"""The `_target_` of configs/module/classifier.yaml: the module of nearly every run, which needs no mention."""


def model_name(config: Mapping[str, Any], overrides: Iterable[str] = ()) -> str:
    """The network of a flat config: its class, the config file if the command line chose one, and a module of its own.

    Example:
        >>> model_name({"model._target_": "alexnet_lab.models.AlexNet"}, ["model=alexnet_owt"])
        'AlexNet (model=alexnet_owt)'
        >>> model_name({"model._target_": "alexnet_lab.models.torchvision_net", "model.name": "resnet18"})
        'torchvision_net resnet18'
        >>> model_name({"model._target_": "alexnet_lab.models.LeNet5", "module._target_": "mine.Plain"})
        'LeNet5 (module Plain)'
    """
    name = f"{_class(config, 'model')} {config.get('model.name') or ''}".strip()
    notes = [word for word in overrides if word.startswith("model=")][:1]
    if config.get("module._target_", CLASSIFIER) != CLASSIFIER:
        notes.append(f"module {_class(config, 'module')}")
    return f"{name} ({', '.join(notes)})" if name and notes else name or ", ".join(notes)


def data_name(config: Mapping[str, Any]) -> str:
    """The data set of a flat config: its class, and the folder of a user's own images.

    Example:
        >>> data_name({"data._target_": "alexnet_lab.data.CIFAR10DataModule", "data.image_size": 32})
        'CIFAR10'
        >>> data_name({"data._target_": "alexnet_lab.data.ImageFolderDataModule", "data.root": "/data/flowers"})
        'ImageFolder flowers'
    """
    name = _class(config, "data").removesuffix("DataModule")
    folder = PurePath(str(config.get("data.root") or "")).name
    return f"{name} {folder}".strip()


def _class(config: Mapping[str, Any], group: str) -> str:
    return str(config.get(f"{group}._target_") or "").rpartition(".")[2]


def subject(definition: Definition) -> dict[str, str]:
    """Model and data of a sweep's jobs, for the lines above its table; if they differ, all of them."""
    jobs = definition.jobs
    named = {
        "model": dict.fromkeys(model_name(job.config, (*job.overrides, *definition.overrides)) for job in jobs),
        "data": dict.fromkeys(data_name(job.config) for job in jobs),
    }
    return {what: ", ".join(filter(None, names)) for what, names in named.items() if any(names)}
