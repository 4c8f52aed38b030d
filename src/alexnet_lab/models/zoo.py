"""The networks that `model=` names, read from configs/model: what each was published for, and how to build one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from omegaconf import DictConfig, OmegaConf

from alexnet_lab.base.errors import ConfigError, did_you_mean
from alexnet_lab.base.formats import SENTENCE
from alexnet_lab.base.targets import build as build_target

if TYPE_CHECKING:
    from torch import nn


class Published(NamedTuple):
    """What the header of a file in configs/model says."""

    channels: int
    image_size: int  # pixels
    classes: int
    text: str  # what the network is, and what sets it apart

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image."""
        return self.channels, self.image_size, self.image_size


PUBLISHED_FOR = re.compile(r"\bat (\d+)x(\d+)x\d+(?: with (\d+) classes)?")
"""The images that a header's counts are for; without a number of classes there are ten."""


def config_dir() -> Path:
    """The folder configs/model: of the repository that the package is installed from, or of the working directory.

    Raises:
        ConfigError: Neither has one.
    """
    for root in (Path(__file__).parents[3], Path.cwd()):
        if (folder := root / "configs" / "model").is_dir():
            return folder
    raise ConfigError("there is no folder configs/model here; start from the folder of the repository")


def names() -> list[str]:
    """What `model=` may name: the files of configs/model."""
    return sorted(path.stem for path in config_dir().glob("*.yaml"))


def header(name: str) -> str:
    """The comment at the top of a file in configs/model, in one line."""
    lines = (config_dir() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("# ") for line in itertools.takewhile(lambda line: line.startswith("# "), lines))


def published(name: str) -> Published:
    """The images that a network was published for, 3x224x224 in 1000 classes unless its header says otherwise."""
    text = header(name)
    what, *rest = SENTENCE.split(text)
    differs = [sentence for sentence in rest if sentence.startswith("Differs from ")]
    words = ". ".join(sentence.rstrip(".") for sentence in (what, *differs))
    found = PUBLISHED_FOR.search(text)
    if found is None:
        return Published(3, 224, 1000, words)
    return Published(int(found[1]), int(found[2]), int(found[3] or 10), words)


def read(name: str) -> DictConfig:
    """The fields of a `model=`, the files that it builds upon included; facts of the data are still open.

    Raises:
        ConfigError: There is no such model.
    """
    if name not in names():
        raise ConfigError(f"unknown model={name}; {did_you_mean(name, names())}")
    fields = cast("DictConfig", OmegaConf.load(config_dir() / f"{name}.yaml"))
    parents = [parent for parent in fields.pop("defaults", []) if parent != "_self_"]
    return cast("DictConfig", OmegaConf.merge(*(read(parent) for parent in parents), fields))


def resolve(name: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields of a `model=` for the data that it was published for, except for what `overrides` says.

    Raises:
        ConfigError: There is no such model, or it has no such field.
    """
    fields, facts = read(name), published(name)
    for key in overrides or {}:
        if key not in fields or key == "_target_":
            choices = [str(field) for field in fields if field != "_target_"]
            raise ConfigError(f"unknown field `{key}` of model={name}; {did_you_mean(key, choices)}")
    data = {"num_classes": facts.classes, "channels": facts.channels, "image_size": facts.image_size}
    whole = OmegaConf.create({"data": data, "model": OmegaConf.merge(fields, dict(overrides or {}))})
    return cast("dict[str, Any]", OmegaConf.to_container(whole.model, resolve=True))


def build(name: str, overrides: Mapping[str, Any] | None = None) -> nn.Module:
    """The network of a `model=`, untrained.

    Raises:
        ConfigError: As `resolve` and the network's constructor have it.

    Example:
        >>> build("lenet5", {"activation": "tanh"}).input_shape
        (1, 28, 28)
    """
    return build_target(resolve(name, overrides), "model")
