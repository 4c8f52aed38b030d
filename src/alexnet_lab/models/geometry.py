"""Checks of a network's fields without torch, so that a misfit is reported before anything heavy is imported.

The layers themselves are in one file per architecture. The functions here follow their sizes, say at which layer an
image becomes too small, and compute the paddings that depend on its size. Parameters have the constructor's names.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.ranges import PositiveFloat, PositiveInt

__all__ = ["output_size", "padding_pixels"]

LARGEST_SMALL = 64
"""Largest image side in pixels for the networks for digits and CIFAR-10. Weights that belong to positions, as in
LeNet-5's C5 and in locally connected layers, grow with the square of the side (115 million at 224 px)."""


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, ceil_mode: bool = False) -> int:
    """The side of a convolution's or pooling's output, in pixels.

    Args:
        size: The side of the input, in pixels.
        kernel: The side of the window, in pixels.
        stride: The step from window to window, in pixels.
        padding: Pixels added on each of the two ends.
        ceil_mode: A last window that hangs over the far end counts too, if it starts within the input or the
            padding before it. That is torch's rule; Caffe's gives the same size unless the stride exceeds the kernel,
            where without padding it also counts a window that starts beyond the input.

    Returns:
        The number of windows; 0 or less where not one fits.

    Example:
        >>> output_size(227, kernel=11, stride=4), output_size(55, kernel=3, stride=2)
        (55, 27)
    """
    room = size + 2 * padding - kernel
    if not ceil_mode:
        return room // stride + 1
    windows = -(-room // stride) + 1
    return windows - 1 if (windows - 1) * stride >= size + padding else windows


def padding_pixels(mode: str, kernel: int) -> tuple[int, int]:
    """The pixels added (before, after) one axis for a convolution of stride 1.

    `valid` adds none: only whole windows count. `same` keeps the size; an even kernel gets its odd pixel at
    the far end. `full` adds all but one of the kernel's pixels: each window that touches the input counts.

    Example:
        >>> [padding_pixels(mode, 5) for mode in ("valid", "same", "full")]
        [(0, 0), (2, 2), (4, 4)]
    """
    modes = {"valid": (0, 0), "same": ((kernel - 1) // 2, kernel // 2), "full": (kernel - 1, kernel - 1)}
    if mode not in modes:
        raise ConfigError(f"padding mode `{mode}` is unknown; allowed: valid, same, full")
    return modes[mode]


class Step(NamedTuple):
    """One convolution or pooling of a chain; sizes and pixels as in `output_size`."""

    name: str
    kernel: int
    stride: int = 1
    padding: int = 0
    ceil_mode: bool = False


class Collapse(Exception):  # noqa: N818 - not an error for users: each architecture reports it in its own words
    """A layer has no pixels left for a single window; `left` shows the sizes up to there, such as `7>3>1>nothing`."""

    def __init__(self, step: str, sizes: dict[str, int]) -> None:
        super().__init__(step)
        self.step = step
        self.left = ">".join([*(str(size) for size, _ in itertools.groupby(sizes.values())), "nothing"])


def chain(size: int, steps: list[Step]) -> dict[str, int]:
    """The size after each step, under the step's name.

    Raises:
        Collapse: A step has no room for a single window.
    """
    sizes: dict[str, int] = {}
    for step in steps:
        size = output_size(size, step.kernel, step.stride, step.padding, step.ceil_mode)
        if size < 1:
            raise Collapse(step.name, sizes)
        sizes[step.name] = size
    return sizes


Stem = Literal["published", "small"]


class AlexNetSizes(NamedTuple):
    """What follows from an image's size and from the fields for padding and pooling."""

    stem: Stem
    extra: int  # pixels of zeros at the right and the bottom of the image
    paddings: tuple[int, ...]  # pixels around the inputs of conv1 to conv5
    ceil: bool  # whether pool1 and pool2 keep a window that hangs over the border
    last_ceil: bool  # whether pool5 does
    sizes: dict[str, int]  # each layer's output side in pixels


def alexnet_sizes(
    *,
    image_size: PositiveInt = 224,
    stem: Literal["auto", "published", "small"] = "auto",
    stem_padding: Literal["far", "two", "none"] = "far",
    pool: Literal["overlapping", "non_overlapping", "average", "min"] = "overlapping",
    padding: Literal["same", "valid", "full"] = "same",
    ceil_pools: Literal["auto", "last", "all"] = "auto",
    without: Literal["none", "conv3", "conv4", "conv5"] = "none",
) -> AlexNetSizes:
    """The chain of AlexNet's map sizes; parameters as `AlexNet` has them.

    Raises:
        ConfigError: The image is too small for the stem.

    Example:
        >>> list(alexnet_sizes(image_size=224).sizes.values())
        [55, 27, 27, 13, 13, 13, 13, 6]
    """
    fields = {
        "stem_padding": stem_padding, "pool": pool, "padding": padding, "ceil_pools": ceil_pools, "without": without
    }  # fmt: skip
    if stem == "auto":
        try:
            return _alexnet_chain(image_size, "published", **fields)
        except Collapse:
            stem = "small"
    try:
        return _alexnet_chain(image_size, stem, **fields)
    except Collapse as error:
        kind = "11x11, stride 4" if stem == "published" else "5x5, stride 1"
        fix = "stem=small, or larger images" if stem == "published" else "larger images (data.image_size)"
        raise ConfigError(
            f"image_size={image_size} does not fit AlexNet with stem={stem}: its {kind} conv leaves {error.left} "
            f"of {image_size} px (at {error.step}); it needs at least {_smallest(stem, fields)} px; take {fix}"
        ) from None


def _smallest(stem: Stem, fields: dict[str, str]) -> int:
    """The smallest image that gets through, in pixels."""
    for size in range(8, 256):
        try:
            _alexnet_chain(size, stem, **fields)
        except Collapse:
            continue
        return size
    raise AssertionError("no size fits")


def _alexnet_chain(
    image_size: int, stem: Stem, *, stem_padding: str, pool: str, padding: str, ceil_pools: str, without: str
) -> AlexNetSizes:
    """The chain with one particular stem."""
    extra = 0
    first = Step("conv1", 5, 1, 2)
    if stem == "published":
        first = Step("conv1", 11, 4, 2 if stem_padding == "two" else 0)
        if stem_padding == "far" and image_size >= first.kernel:
            # the released code rounds the size up: the last window reads zeros beyond the border
            extra = -(image_size - first.kernel) % first.stride
    steps = (first, *_alexnet_steps(pool, padding, ceil_pools))
    sizes = chain(image_size + extra, [step for step in steps if step.name != without])
    paddings = tuple(step.padding for step in steps if step.name.startswith("conv"))
    return AlexNetSizes(stem, extra, paddings, steps[1].ceil_mode, steps[-1].ceil_mode, sizes)


def _alexnet_steps(pool: str, padding: str, ceil_pools: str) -> list[Step]:
    """The layers after conv1. Config 147 has less padding, so that fc6 still sees 6x6 maps."""
    apart = pool == "non_overlapping"
    window = 2 if apart else 3
    every = apart or ceil_pools == "all"
    less = 1 if apart and padding == "same" else 0
    wide, narrow = (padding_pixels(padding, kernel)[0] for kernel in (5, 3))
    return [
        Step("pool1", window, 2, 0, every),
        Step("conv2", 5, 1, wide - less),
        Step("pool2", window, 2, 0, every),
        Step("conv3", 3, 1, narrow),
        Step("conv4", 3, 1, narrow),
        Step("conv5", 3, 1, narrow - less),
        Step("pool5", window, 2, 0, every or ceil_pools == "last"),
    ]


class AlexNetMaps(NamedTuple):
    """Maps after conv1 to conv5, and units of fc6 and of fc7."""

    conv: tuple[int, ...]
    hidden: int


def alexnet_maps(
    *,
    maps: tuple[PositiveInt, ...] = (96, 256, 384, 384, 256),
    hidden: PositiveInt = 4096,
    width: PositiveFloat = 1.0,
    towers: Literal[1, 2] = 2,
    without: Literal["none", "conv3", "conv4", "conv5"] = "none",
) -> AlexNetMaps:
    """The scaled widths of AlexNet's layers; parameters as `AlexNet` has them.

    A convolution that is left out passes on the maps of the one before it.

    Raises:
        ConfigError: Not five numbers of maps, a layer left without maps, or maps that two towers cannot share.
    """
    if len(maps) != 5:
        raise ConfigError(f"maps={list(maps)} must be five numbers >= 1, one each for conv1 to conv5")
    scaled = tuple(round(count * width) for count in maps)
    units = round(hidden * width)
    if min(*scaled, units) < towers or any(count % towers for count in scaled):
        raise ConfigError(
            f"width={width} makes the maps {list(scaled)} and {units} hidden units, which {towers} towers cannot "
            "share evenly; take a width that leaves even numbers, such as 0.5, or towers=1"
        )
    if without != "none":
        number = int(without[-1])
        scaled = (*scaled[: number - 1], scaled[number - 2], *scaled[number:])
    return AlexNetMaps(scaled, units)


def alexnet_norms(
    *, norm: Literal["lrn", "none", "batch"] = "lrn", norm_layers: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """The numbers of the convolutions that are normalised; parameters as `AlexNet` has them.

    Raises:
        ConfigError: Layers that are not convolutions, or layers named where nothing is normalised.
    """
    if norm_layers is None:
        return {"lrn": (1, 2), "batch": (1, 2, 3, 4, 5), "none": ()}[norm]
    if any(layer not in range(1, 6) for layer in norm_layers):
        raise ConfigError(f"norm_layers={list(norm_layers)} must name convolutions by their numbers, 1 to 5")
    if norm == "none" and norm_layers:
        raise ConfigError(f"norm_layers={list(norm_layers)} contradicts norm=none; leave it out, or take norm=lrn")
    return tuple(norm_layers)


class LeNet5Sizes(NamedTuple):
    """What follows from an image's size: the padding of C1 and C5, and each layer's output side."""

    c1_padding: int
    c5_padding: int
    sizes: dict[str, int]


def lenet5_sizes(
    *,
    image_size: PositiveInt = 28,
    c1_padding: Literal["auto", "same", "valid", "full"] = "auto",
    c5: Literal["dense", "conv", "conv_same"] = "dense",
) -> LeNet5Sizes:
    """The chain of LeNet-5's map sizes; parameters as `LeNet5` has them.

    Raises:
        ConfigError: The image is too small or too large.

    Example:
        >>> lenet5_sizes(image_size=28).sizes
        {'c1': 28, 's2': 14, 'c3': 10, 's4': 5, 'c5': 1}
    """
    if image_size > LARGEST_SMALL:
        raise ConfigError(
            f"image_size={image_size} does not fit LeNet-5, which reads digits of 28 or 32 px and here at most "
            f"{LARGEST_SMALL} px; take smaller images (data.image_size=32) or model=alexnet"
        )
    mode = ("same" if image_size < 32 else "valid") if c1_padding == "auto" else c1_padding
    pad, _ = padding_pixels(mode, 5)
    pad5 = 2 if c5 == "conv_same" else 0
    steps = [Step("c1", 5, 1, pad), Step("s2", 2, 2), Step("c3", 5), Step("s4", 2, 2)]
    if c5 != "dense":
        steps.append(Step("c5", 5, 1, pad5))
    try:
        sizes = chain(image_size, steps)
    except Collapse as error:
        raise ConfigError(
            f"image_size={image_size} does not fit LeNet-5 with c1_padding={c1_padding} and c5={c5}: its layers "
            f"leave {error.left} of {image_size} px (at {error.step}); take larger images (data.image_size=28)"
        ) from None
    sizes.setdefault("c5", 1)
    return LeNet5Sizes(pad, pad5, sizes)


class CudaConvNetSizes(NamedTuple):
    """The pooling window, the width of local3, and each layer's output side."""

    window: int
    local3: int
    sizes: dict[str, int]


def cuda_convnet_sizes(
    *,
    image_size: PositiveInt = 32,
    body: Literal["conv", "local"] = "conv",
    local3: PositiveInt | None = None,
    pool: Literal["overlapping", "non_overlapping"] = "overlapping",
) -> CudaConvNetSizes:
    """The chain of cuda-convnet's map sizes, which round up; parameters as `CudaConvNet` has them.

    Raises:
        ConfigError: The image is too small, or `local3` is given to a body that has no such layer or missing.

    Example:
        >>> cuda_convnet_sizes(image_size=24).sizes
        {'conv1': 24, 'pool1': 12, 'conv2': 12, 'pool2': 6, 'conv3': 6, 'pool3': 3}
    """
    if (local3 is None) != (body == "conv"):
        raise ConfigError(
            f"local3={local3} does not go with body={body}: "
            + ("body=conv has no such layer, leave it null" if body == "conv" else "give its maps, 32 or 64")
        )
    if image_size > LARGEST_SMALL:
        raise ConfigError(
            f"image_size={image_size} does not fit CudaConvNet, which is made for 24 and 32 px and reads at most "
            f"{LARGEST_SMALL} px; take smaller images (data.image_size=32) or model=alexnet"
        )
    window = 3 if pool == "overlapping" else 2
    steps = [Step("conv1", 5, 1, 2), Step("pool1", window, 2, 0, True)]
    steps += [Step("conv2", 5, 1, 2), Step("pool2", window, 2, 0, True)]
    if body == "conv":
        steps += [Step("conv3", 5, 1, 2), Step("pool3", window, 2, 0, True)]
    else:
        steps += [Step("local3", 3, 1, 1), Step("local4", 3, 1, 1)]
    try:
        return CudaConvNetSizes(window, local3 or 0, chain(image_size, steps))
    except Collapse as error:
        raise ConfigError(
            f"image_size={image_size} does not fit CudaConvNet: its layers leave {error.left} of "
            f"{image_size} px (at {error.step}); it is made for 24 and 32 px (data.image_size)"
        ) from None


def lenet5_1998_padding(
    *, num_classes: PositiveInt = 10, in_channels: PositiveInt = 1, image_size: PositiveInt = 28
) -> int:
    """The pixels of background around an image of LeNet-5; parameters as `LeNet51998` has them.

    Raises:
        ConfigError: Anything but ten classes, grey images, and 28 or 32 px.
    """
    if num_classes != 10:
        raise ConfigError(
            f"num_classes={num_classes} does not fit LeNet-5 of 1998, whose outputs are distances to the bitmaps of "
            "the ten digits; take model=lenet5"
        )
    if in_channels != 1:
        raise ConfigError(
            f"in_channels={in_channels} does not fit LeNet-5 of 1998, which reads grey images (data.channels=1); "
            "take model=lenet5"
        )
    if image_size not in (28, 32):
        raise ConfigError(
            f"image_size={image_size} does not fit LeNet-5 of 1998, whose layers are made for 32 px, or 28 px in a "
            "frame; set data.image_size=32, or take model=lenet5"
        )
    return (32 - image_size) // 2


CHECKS: dict[str, tuple[Callable[..., object], ...]] = {
    "alexnet_lab.models.AlexNet": (alexnet_sizes, alexnet_maps, alexnet_norms),
    "alexnet_lab.models.LeNet5": (lenet5_sizes,),
    "alexnet_lab.models.LeNet51998": (lenet5_1998_padding,),
    "alexnet_lab.models.CudaConvNet": (cuda_convnet_sizes,),
}
"""For each network the functions by which its constructor checks that its fields fit together."""


def check_model(target: str, fields: Mapping[str, object]) -> None:
    """Checks that the fields of one of our networks fit together; other networks pass.

    Args:
        target: A dotted name such as `alexnet_lab.models.AlexNet`.
        fields: The constructor's arguments; those that no check needs are ignored.

    Raises:
        ConfigError: With the reason.
    """
    for function in CHECKS.get(target, ()):
        asked = inspect.signature(function).parameters
        function(**{name: value for name, value in fields.items() if name in asked})
