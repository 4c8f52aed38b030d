"""`init_from`: a run starts from given weights, which are checked against its network before anything is written."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from alexnet_lab.base.errors import AlexNetLabError, ConfigError, one_line
from alexnet_lab.base.files import sha256
from alexnet_lab.base.flatten import within
from alexnet_lab.base.log import quiet
from alexnet_lab.config.continuing import NOTHING, Difference, differences
from alexnet_lab.config.schema import Train
from alexnet_lab.config.weights_source import weights_file
from alexnet_lab.models import convert, zoo
from alexnet_lab.models.caffemodel import read_caffemodel
from alexnet_lab.models.counts import trace
from alexnet_lab.run.checkpoint_identity import KEY
from alexnet_lab.run.own_module import build_network
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.training.checkpoint_io import load_checkpoint
from alexnet_lab.training.weights_file import SUFFIX, read_weights

log = logging.getLogger(__name__)

ALEXNET = "alexnet_lab.models.AlexNet"

ANY_NETWORK = "alexnet_lab.models.torchvision_net"
"""The `_target_` of configs/model/torchvision.yaml."""

AUXILIARY = ("aux", "AuxLogits")
"""The first parts of names in torchvision's files that belong to second outputs, which our networks lack."""

BY_SHAPE = ("num_classes", "in_channels", "image_size")
"""Fields of a network that may differ if the shapes of its weights do not."""

OF_START = ("init", "bias_init")
"""Fields that set the weights which are replaced."""

OF_DROPOUT = ("dropout", "dropout_place")
"""Fields that only affect training, unless the paper's dropout halves the outputs afterwards."""


class Source(NamedTuple):
    """Weights to start from."""

    file: Path
    state: dict[str, Tensor]  # by the network's own names
    models: list[dict[str, Any]]  # the fields of networks that they belong to; none: unknown
    normalization: str | None = None  # of the images that they were trained on, if known


class Start(NamedTuple):
    """A network's weights at its start."""

    source: Source
    state: dict[str, Tensor]
    new: str | None  # the last layer, if it is new because the number of classes differs

    def record(self, init_from: str) -> dict[str, Any]:
        """For manifest.json."""
        names = {"source": init_from, "file": self.source.file.name, "sha256": sha256(self.source.file)}
        return names | {"new_layer": self.new}


def check(config: Train) -> dict[str, Any] | None:
    """Checks the weights that a run is to start from; torchvision's are downloaded first.

    Returns:
        The record for manifest.json; None if the run starts from its network's own initial weights.

    Raises:
        ConfigError: They cannot be read, or do not fit the network.
    """
    if config.init_from is None:
        if config.freeze:
            log.warning("`freeze` keeps layers at random weights, since `init_from` is null")
        return None
    with torch.device("meta"), quiet("alexnet_lab.models"):
        net = build_network(config)
    return _start(config, net, config.init_from).record(config.init_from)


def load_into(config: Train, net: nn.Module) -> None:
    """Loads the weights that a run starts from into its network; random streams do not change.

    Raises:
        ConfigError: They cannot be read, or do not fit the network.
    """
    if config.init_from is None:
        return
    start = _start(config, net, config.init_from)
    net.load_state_dict(start.state)
    log.info("%s", _line(config, start))
    before, now = start.source.normalization, config.data.get("normalization")
    if before is not None and now is not None and before != now:
        log.warning(
            "the weights of %s were trained with data.normalization=%s, and this run has %s",
            config.init_from, before, now,
        )  # fmt: skip


def _line(config: Train, start: Start) -> str:
    kept = f"the network starts from the weights of {config.init_from}"
    if start.new is None:
        return kept
    before = len(next(tensor for name, tensor in start.source.state.items() if name.startswith(f"{start.new}.")))
    classes = config.data["num_classes"]
    return f"{kept}; its last layer {start.new} is new: {classes:,} classes instead of {before:,}"


def _start(config: Train, net: nn.Module, init_from: str) -> Start:
    """The weights at the start: those of the source, and the network's own in a last layer of another size."""
    try:
        source = _source(init_from, config.model)
        _check_same_network(source.models, config.model)
        own = net.state_dict()
        _check_names(own, source.state)
        new = _new_layer(config.data, net, source.state)
        _check_numbers(source.state)
    except AlexNetLabError as error:
        raise ConfigError(f"`init_from` is {init_from}: {error}") from error
    return Start(source, source.state | {name: own[name] for name in own if new and within(name, [new])}, new)


def _check_same_network(models: list[dict[str, Any]], model: dict[str, Any]) -> None:
    """Refuses weights of a network with other fields: the shapes alone do not show another activation."""
    found = [_differing(other, model) for other in models]
    if not found or not all(found):
        return
    item = min(found, key=len)[0]
    if item.key == "_target_":
        raise ConfigError(f"it holds {_kind(item.old)}, and this network is {_kind(item.new)}; choose its model=")
    raise ConfigError(
        f"its network has `model.{item.key}` {item.old!r}, and this one {item.new!r}; set model.{item.key} to that "
        f"value, or leave init_from out"
    )


def _differing(other: dict[str, Any], model: dict[str, Any]) -> list[Difference]:
    """The differences between two networks' fields that change what they compute. Fields newer than a file are left."""
    scaled = "classic" in (other.get("dropout_scaling"), model.get("dropout_scaling"))
    free = (*BY_SHAPE, *OF_START, *(() if scaled else OF_DROPOUT))
    found = [item for item in differences(other, model) if item.key not in free and item.old != NOTHING]
    return sorted(found, key=lambda item: item.key != "_target_")


def _kind(target: Any) -> str:
    return str(target).rpartition(".")[2][:60]


def _check_names(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        names = [f"{what} {', '.join(list_[:3])}" for what, list_ in (("lacks", missing), ("has", unknown)) if list_]
        raise ConfigError(f"it holds the weights of another network: it {' and '.join(names)}; choose its model=")


def _new_layer(data: Mapping[str, Any], net: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """The last layer, if the weights differ from the network's there alone, and there in the number of classes alone.

    Raises:
        ConfigError: Other shapes differ too.
    """
    own = net.state_dict()
    differing = [name for name in own if own[name].shape != state[name].shape]
    if not differing:
        return None
    shape = (data["channels"], data["image_size"], data["image_size"])
    last = next(call.name for call in reversed(trace(net, shape)) if list(call.layer.parameters(recurse=False)))
    for name in differing:
        one, other = own[name].shape, state[name].shape
        classes_alone = one[1:] == other[1:] and len(one) > 0 and one[0] == data["num_classes"]
        if not within(name, [last]) or not classes_alone:
            raise ConfigError(f"its {name} has the shape {tuple(other)}, and this network's {tuple(one)}")
    return last


def _check_numbers(state: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ConfigError(f"its {name} holds NaN or infinite numbers")


def _source(init_from: str, model: Mapping[str, Any]) -> Source:
    """Reads the weights of an `init_from`."""
    path = weights_file(init_from)
    if path is None:
        return _published_by_torchvision(model)
    if Path(init_from).is_dir():
        _check_finished(RunDirectory(init_from), path)
    if path.suffix == SUFFIX:
        tensors, facts = read_weights(path)
        return _recognised(path, tensors, facts.get("config"), model)
    if path.suffix == ".caffemodel":
        return Source(path, convert.from_caffe(read_caffemodel(path)), _published(("alexnet_caffe", "caffenet"), model))
    content = load_checkpoint(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ConfigError("it holds no state dict of tensors")
    of_classifier = all(name.startswith("net.") for name in state)
    tensors = {name.removeprefix("net.") if of_classifier else name: value for name, value in state.items()}
    return _recognised(path, tensors, content.get(KEY), model)


def _check_finished(directory: RunDirectory, path: Path) -> None:
    """Refuses a run whose best weights may still change, or were changed."""
    if not directory.is_completed():
        raise ConfigError(f"the run has not finished; resume it, or name the file itself: init_from={path}")
    directory.check_file(path)


def _recognised(path: Path, state: dict[str, Tensor], config: Any, model: Mapping[str, Any]) -> Source:
    """The weights under the names of our network: files of torchvision's AlexNet have other ones."""
    theirs = {f"{layer}.{part}" for layer in convert.TORCHVISION.values() for part in convert.PARTS}
    if state.keys() == theirs and model["_target_"] == ALEXNET:
        return Source(path, convert.from_torchvision(state), _published(("alexnet_owt",), model))
    known, data = (config.get(group) if isinstance(config, dict) else None for group in ("model", "data"))
    normalization = data.get("normalization") if isinstance(data, dict) else None
    return Source(path, state, [known] if isinstance(known, dict) else [], normalization)


def _published(names: tuple[str, ...], model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fields of published networks; refuses a network of another class."""
    if model["_target_"] != ALEXNET:
        raise ConfigError(f"it holds an AlexNet; set model={' or model='.join(names)}")
    return [zoo.resolve(name) for name in names]


def _published_by_torchvision(model: Mapping[str, Any]) -> Source:
    """The weights that torchvision publishes for a network, from its cache or the network."""
    if model["_target_"] == ALEXNET:
        name, models = "alexnet", _published(("alexnet_owt",), model)
    elif model["_target_"] == ANY_NETWORK:
        name, models = model["name"], []
    else:
        raise ConfigError("torchvision publishes weights for model=alexnet_owt and model=torchvision; set one of them")
    weights = torchvision.models.get_model_weights(name).DEFAULT  # pyright: ignore[reportAttributeAccessIssue] - an enumeration
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except Exception as error:  # of the network, of torch.load, or a wrong hash
        raise ConfigError(
            f"{weights.url} cannot be fetched ({one_line(error)[:200]}); put the file there: {file}"
        ) from error
    _check_cached(file)
    kept = {key: value for key, value in state.items() if key.partition(".")[0].rstrip("12") not in AUXILIARY}
    return Source(file, convert.from_torchvision(kept) if name == "alexnet" and models else kept, models)


def _check_cached(file: Path) -> None:
    """Compares a file with the start of its SHA-256 in its name; torch does so only when it downloads."""
    expected = file.stem.rpartition("-")[2]
    if not sha256(file).startswith(expected):
        raise ConfigError(f"the SHA-256 of {file} does not begin with {expected}; delete it, to download it again")
