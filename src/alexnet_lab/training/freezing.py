"""Layers that are not trained: neither their weights nor their running statistics change by a bit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from alexnet_lab.base.errors import ConfigError, did_you_mean


def freeze(net: nn.Module, names: Sequence[str]) -> list[str]:
    """Takes layers out of training: no gradients, and batch normalisation keeps and uses its running statistics.

    Dropout stays active. Lightning keeps the mode of each layer, so a frozen one stays in evaluation mode.

    Args:
        net: Changed in place.
        names: Layers as the layer table names them, such as `features.conv1`, or by the last part of that name,
            `conv1`; patterns such as `conv*`; or parts of the network that hold layers, such as `features`.

    Returns:
        The names of the frozen layers.

    Raises:
        ConfigError: A name matches no layer with weights, or nothing would be left to train.
    """
    layers = {path: layer for path, layer in net.named_modules() if _numbers(layer)}
    found = list(dict.fromkeys(path for name in names for path in _matching(net, name, list(layers))))
    for path in found:
        layer = layers[path]
        for parameter in layer.parameters(recurse=False):
            parameter.requires_grad = False
        if next(layer.buffers(recurse=False), None) is not None:
            layer.eval()
    if found and not any(parameter.requires_grad for parameter in net.parameters()):
        raise ConfigError(f"`freeze` is {list(names)}, which leaves nothing to train; leave a layer out")
    return found


def described(net: nn.Module) -> str:
    """Which layers are frozen and how many numbers are trained, in one line; empty if all of them are."""
    frozen = [name.rpartition(".")[0] for name, parameter in net.named_parameters() if not parameter.requires_grad]
    if not frozen:
        return ""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in net.parameters()]
    trained, total = sum(size for size, is_trained in sizes if is_trained), sum(size for size, _ in sizes)
    return f"frozen: {', '.join(dict.fromkeys(frozen))}; {trained:,} of {total:,} parameters are trained"


def _numbers(layer: nn.Module) -> bool:
    """Whether a module itself holds weights or statistics."""
    return any(True for _ in itertools.chain(layer.parameters(recurse=False), layer.buffers(recurse=False)))


def _matching(net: nn.Module, name: str, layers: list[str]) -> list[str]:
    """The layers that a name means: its own path first, then the last parts of paths, then patterns for whole paths."""
    paths = [path for path, _ in net.named_modules() if path]
    whole = [path for path in paths if path == name]
    chosen = whole or [path for path in paths if fnmatchcase(path if "." in name else path.rpartition(".")[2], name)]
    found = [layer for layer in layers if any(layer == path or layer.startswith(f"{path}.") for path in chosen)]
    if not found:
        short = [path.rpartition(".")[2] for path in layers]
        known = short if len(set(short)) == len(short) and "." not in name else layers
        raise ConfigError(f"`freeze` names `{name}`, which matches no layer with weights; {did_you_mean(name, known)}")
    return found
