"""The networks that `model=` names: what each was published for, and how to build one outside a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from omegaconf import OmegaConf

from alexnet_lab.base.errors import ConfigError, did_you_mean
from alexnet_lab.base.targets import build as build_target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omegaconf import DictConfig
    from torch import nn


class Published(NamedTuple):
    """The data that a network was published for, its source, and what sets it apart."""

    channels: int
    image_size: int  # pixels
    classes: int
    source: str
    differs: str


ZOO: dict[str, Published] = {
    "alexnet": Published(3, 224, 1000, "Krizhevsky 2012, prose", "two towers, LRN, overlapping pools, dropout"),
    "alexnet_code2012": Published(
        3, 224, 1000, "layers-145.cfg", "norm before pool and ReLU, per tower; norm within maps; deviation 0.03"
    ),
    "alexnet_non_overlapping": Published(3, 224, 1000, "layers-147.cfg", "code2012 with 2x2 pools"),
    "alexnet_one_gpu": Published(3, 224, 1000, "layers-145-half.cfg", "code2012, one tower of half the maps"),
    "alexnet_caffe": Published(3, 227, 1000, "Caffe bvlc_alexnet", "norm with k 1 and alpha 2e-5; biases 0.1"),
    "caffenet": Published(3, 227, 1000, "Caffe bvlc_reference_caffenet", "alexnet_caffe with pool before norm"),
    "alexnet_owt": Published(3, 224, 1000, "torchvision's alexnet", "64-192-384-256-256, no norm"),
    "alexnet_owt_code2014": Published(
        3, 224, 1000, "Krizhevsky 2014, layers-imagenet-1gpu.cfg", "widths of alexnet_owt, order and norms of code2012"
    ),
    "alexnet_bn": Published(3, 224, 16, "seed 004", "batch normalisation, no padding of the image"),
    "alexnet_small": Published(1, 64, 10, "seed 003", "half the maps, 1024 units, no norm"),
    "alexnet_seed001": Published(3, 32, 10, "seed 001", "cannot be built: 32 px are used up at pool2"),
    "cuda_convnet_18pct": Published(3, 32, 10, "layers-18pct.cfg", "norms within maps"),
    "cuda_convnet_19pct": Published(3, 32, 10, "layers-19pct.cfg", "18pct without norms"),
    "cuda_convnet_80sec": Published(3, 32, 10, "layers-80sec.cfg", "19pct with a dense layer of 64 units"),
    "cuda_convnet_13pct": Published(3, 24, 10, "layers-conv-local-13pct.cfg", "locally connected layers, no norms"),
    "cuda_convnet_11pct": Published(3, 24, 10, "layers-conv-local-11pct.cfg", "13pct with LRN and local3 of 64"),
    "lenet5": Published(1, 28, 10, "LeCun 1998, as taught today", "full C3, plain pools, linear output"),
    "lenet5_1998": Published(1, 28, 10, "LeCun 1998", "connection table, trained subsampling, bitmaps as outputs"),
    "lenet5_seed000": Published(1, 28, 10, "seed 000", "lenet5 with an unpadded C1"),
    "lenet5_seed001": Published(1, 28, 10, "seed 001", "seed000 with average pools and C5 of 4x4 pixels"),
    "lenet5_seed002": Published(1, 28, 10, "seed 002", "lenet5 with sigmoids and average pools"),
    "lenet5_seed003": Published(1, 32, 10, "seed 003", "tanh, average pools, C1 padded at 32 px"),
    "torchvision": Published(3, 224, 1000, "torchvision.models", "any name of its list; resnet18 as it stands"),
}
"""One line for each file in configs/model."""


def config_dir() -> Path:
    """The folder configs/model: of the repository that the package is installed from, or of the working directory.

    Raises:
        ConfigError: Neither has one.
    """
    for root in (Path(__file__).parents[3], Path.cwd()):
        if (folder := root / "configs" / "model").is_dir():
            return folder
    raise ConfigError("there is no folder configs/model here; start from the folder of the repository")


def read(name: str) -> DictConfig:
    """The fields of a `model=`, the files that it builds upon included; facts of the data are still open.

    Raises:
        ConfigError: There is no such model.
    """
    if name not in ZOO:
        raise ConfigError(f"unknown model={name}; {did_you_mean(name, ZOO)}")
    fields = cast("DictConfig", OmegaConf.load(config_dir() / f"{name}.yaml"))
    parents = [parent for parent in fields.pop("defaults", []) if parent != "_self_"]
    return cast("DictConfig", OmegaConf.merge(*(read(parent) for parent in parents), fields))


def resolve(name: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields of a `model=` for the data that it was published for, except for what `overrides` says.

    Raises:
        ConfigError: There is no such model, or it has no such field.
    """
    fields, published = read(name), ZOO[name]
    for key in overrides or {}:
        if key not in fields or key == "_target_":
            choices = [str(field) for field in fields if field != "_target_"]
            raise ConfigError(f"unknown field `{key}` of model={name}; {did_you_mean(key, choices)}")
    data = {
        "num_classes": published.classes, "channels": published.channels, "image_size": published.image_size
    }  # fmt: skip
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
