"""Weights of others' AlexNets into ours and back.

torchvision's `alexnet` is `model=alexnet_owt`; Caffe's `bvlc_alexnet` is `model=alexnet_caffe`, and its CaffeNet
`model=caffenet`. All of them correlate (they do not flip kernels) and flatten maps, rows, columns in this order, so
weights keep their layout (out, in, height, width); but Caffe's images are blue-green-red.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from alexnet_lab.base.errors import ConfigError

__all__ = ["from_caffe", "from_torchvision", "to_caffe", "to_torchvision"]

TORCHVISION = {
    "features.conv1": "features.0",
    "features.conv2": "features.3",
    "features.conv3": "features.6",
    "features.conv4": "features.8",
    "features.conv5": "features.10",
    "classifier.fc6": "classifier.1",
    "classifier.fc7": "classifier.4",
    "classifier.fc8": "classifier.6",
}
"""From our layers to torchvision's."""

PARTS = ("weight", "bias")

KEYS = {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in TORCHVISION.items() for part in PARTS}
"""From our state dict's keys to torchvision's."""


def from_torchvision(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict of torchvision's alexnet as that of `AlexNet` with the fields of `model=alexnet_owt`.

    Raises:
        ConfigError: Names are missing or too many.

    Example:
        >>> import torchvision
        >>> from alexnet_lab.models import zoo
        >>> net = zoo.build("alexnet_owt")
        >>> net.load_state_dict(from_torchvision(torchvision.models.alexnet().state_dict()))
        <All keys matched successfully>
    """
    _check_names(state, KEYS.values())
    return {ours: state[theirs] for ours, theirs in KEYS.items()}


def to_torchvision(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The reverse of `from_torchvision`.

    Raises:
        ConfigError: Names are missing or too many.

    Example:
        >>> from alexnet_lab.models import zoo
        >>> list(to_torchvision(zoo.build("alexnet_owt").state_dict()))[:2]
        ['features.0.weight', 'features.0.bias']
    """
    _check_names(state, KEYS)
    return {theirs: state[ours] for ours, theirs in KEYS.items()}


def from_caffe(blobs: Mapping[str, Sequence[np.ndarray]]) -> dict[str, torch.Tensor]:
    """Caffe's arrays as the state dict of `AlexNet` with the fields of `model=alexnet_caffe` or `caffenet`.

    Args:
        blobs: For conv1 to fc8 the weight and the bias: (out, in / groups, h, w) and (out,), dense weights (out, in);
            or with Caffe's older leading axes of size 1, (1, 1, out, in) and (1, 1, 1, out).

    Raises:
        ConfigError: Names are missing or too many, a layer has no bias, or an array has another number of axes.

    Example:
        >>> from alexnet_lab.models import zoo
        >>> net = zoo.build("caffenet")
        >>> state = from_caffe(to_caffe(net.state_dict()))
        >>> all(torch.equal(state[name], value) for name, value in net.state_dict().items())
        True
    """
    names = [ours.rpartition(".")[2] for ours in TORCHVISION]
    _check_names(blobs, names)
    state = {}
    for ours, name in zip(TORCHVISION, names, strict=True):
        if len(blobs[name]) != len(PARTS):
            raise ConfigError(f"{name} has {len(blobs[name])} arrays, where a weight and a bias are expected")
        weight, bias = blobs[name]
        weight = _without_leading_ones(weight, 4 if name.startswith("conv") else 2, name)
        if name == "conv1":
            weight = weight[:, ::-1].copy()  # blue, green, red
        state[f"{ours}.weight"] = torch.from_numpy(np.ascontiguousarray(weight))
        state[f"{ours}.bias"] = torch.from_numpy(np.ascontiguousarray(_without_leading_ones(bias, 1, name)))
    return state


def to_caffe(state: Mapping[str, torch.Tensor]) -> dict[str, list[np.ndarray]]:
    """The reverse of `from_caffe`, without the older leading axes.

    Raises:
        ConfigError: Names are missing or too many.

    Example:
        >>> from alexnet_lab.models import zoo
        >>> {name: weight.shape for name, (weight, _) in to_caffe(zoo.build("caffenet").state_dict()).items()}["conv2"]
        (256, 48, 5, 5)
    """
    _check_names(state, KEYS)
    blobs = {}
    for ours in TORCHVISION:
        weight, bias = (state[f"{ours}.{part}"].detach().cpu().numpy() for part in PARTS)
        blobs[ours.rpartition(".")[2]] = [weight[:, ::-1].copy() if "conv1" in ours else weight.copy(), bias.copy()]
    return blobs


def swap_mean(mean: np.ndarray) -> np.ndarray:
    """A mean image or mean colour between Caffe's blue-green-red and our red-green-blue, in either direction.

    Args:
        mean: (3,) or (3, H, W), of pixels of 0..255.

    Raises:
        ConfigError: Another number of colours.
    """
    if mean.shape[0] != 3:
        raise ConfigError(f"a mean of shape {mean.shape} has no three colours in its first axis")
    return np.ascontiguousarray(mean[::-1])


def _without_leading_ones(array: np.ndarray, axes: int, name: str) -> np.ndarray:
    """`array` with its last `axes` axes, if those before them have size 1."""
    extra = array.ndim - axes
    if extra < 0 or any(side != 1 for side in array.shape[:extra]):
        raise ConfigError(f"an array of {name} has shape {array.shape}, where {axes} axes are expected")
    return array.reshape(array.shape[extra:])


def _check_names(given: Iterable[str], expected: Iterable[str]) -> None:
    """Refuses weights of another network."""
    missing, unknown = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
    if missing or unknown:
        raise ConfigError(
            f"these are not AlexNet's weights: missing {', '.join(missing) or 'none'}; "
            f"unknown {', '.join(unknown) or 'none'}"
        )
