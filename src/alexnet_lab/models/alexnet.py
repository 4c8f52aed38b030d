"""AlexNet, with each idea of the paper and each difference between the sources as a field.

A. Krizhevsky, I. Sutskever, G. Hinton: ImageNet Classification with Deep Convolutional Neural Networks, 2012
("the paper"); the released code is cuda-convnet with layers/layers-145.cfg. 60,965,224 parameters and
724,406,816 multiply-adds at 3x224x224 with two towers and 1000 classes. The defaults follow the paper's prose.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import nn

from alexnet_lab.models.checks import check_fields, check_images
from alexnet_lab.models.geometry import (
    AlexNetMaps,
    AlexNetSizes,
    Step,
    alexnet_maps,
    alexnet_norms,
    alexnet_sizes,
)
from alexnet_lab.models.initialisation import initialise
from alexnet_lab.models.layers import (
    ACTIVATIONS,
    ClassicDropout,
    LocalResponseNorm,
    MinPool2d,
    SpatialResponseNorm,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from alexnet_lab.base.ranges import Count, Fraction, NonNegative, Positive

log = logging.getLogger("alexnet_lab.models")


class Order(NamedTuple):
    """What follows what in a block, and the response norm's constants that go with it."""

    block1: tuple[str, ...]
    block2: tuple[str, ...]
    block5: tuple[str, ...]
    alpha: float  # times the plain sum
    k: float
    per_tower: bool = False


_PROSE = ("conv", "act", "norm", "pool")
_MIDDLE = ("conv", "act", "norm")
ORDERS = {
    "paper": Order(_PROSE, _PROSE, _PROSE, alpha=1e-4, k=2.0),  # sections 3.3 to 3.5
    "code2012": Order(  # the norm of block 1 sees signed values; scale .0001 is divided by the size 5
        ("conv", "norm", "pool", "act"),
        ("conv", "act", "norm", "rnorm", "pool"),
        ("conv", "pool", "act", "norm"),
        alpha=2e-5,
        k=2.0,
        per_tower=True,
    ),
    "code2014": Order(  # layers-imagenet-1gpu.cfg of cuda-convnet2: no norm within maps
        ("conv", "norm", "pool", "act"), _PROSE, ("conv", "pool", "act", "norm"), alpha=2e-5, k=2.0, per_tower=True
    ),
    "caffe": Order(_PROSE, _PROSE, _PROSE, alpha=2e-5, k=1.0),  # bvlc_alexnet, lrn_layer.cpp
    "caffenet": Order(  # bvlc_reference_caffenet: pools before it normalises
        ("conv", "act", "pool", "norm"), ("conv", "act", "pool", "norm"), _PROSE, alpha=2e-5, k=1.0
    ),
}


POOLS = {"overlapping": nn.MaxPool2d, "non_overlapping": nn.MaxPool2d, "average": nn.AvgPool2d, "min": MinPool2d}


class AlexNet(nn.Module):
    """Five convolutions and three dense layers.

    Args:
        num_classes: Outputs.
        in_channels: 1 grey, 3 colour.
        image_size: The images' side in pixels.
        stem: conv1. `published` is 11x11 with stride 4, for 64 px and more; `small` is 5x5 with stride 1, for
            CIFAR-10's 32 px (32>15>7>3); `auto` takes `published` where it fits, and logs which it took. The
            choice made is kept in the attribute `stem`.
        stem_padding: `far` adds zeros at the right and the bottom until the last window fits (224 gives 55, as in
            the released code); `two` adds 2 px all around (One weird trick, torchvision); `none` adds nothing and
            drops what is left over (224 gives 54).
        maps: Maps of conv1 to conv5.
        hidden: Units of fc6 and of fc7.
        width: Scales maps and hidden units; 0.5 gives 48-128-192-192-128 and 2048.
        towers: 2 divides conv2, conv4 and conv5 into two groups, as the paper's two GPUs did (sec. 3.5).
        without: A convolution to leave out, for the paper's remark on depth (sec. 7).
        activation: After all layers but the last (sec. 3.1: relu).
        order: What follows what, and the response norm's constants: `ORDERS`.
        norm: `lrn` is local response normalisation (sec. 3.3); `batch` puts batch normalisation in its place and
            behind conv3 to conv5; `none` leaves the norms out, the released code's spatial one too.
        norm_layers: The convolutions that are normalised; None: 1 and 2 for lrn, all five for batch.
        lrn_size: Maps in a window.
        lrn_alpha: Times the plain sum of squares; None: as `order` has it. It is made for pixels of 0..255; for
            images divided by s, alpha * s^2 does the same in layer 1.
        lrn_beta: The exponent.
        lrn_k: The constant; None: as `order` has it.
        pool: `overlapping` is 3x3 with stride 2 (sec. 3.4); `non_overlapping` is 2x2, and conv2 and conv5 pad 1 px
            less so that fc6 sees as many pixels (the released code's config 147). `average` and `min` take the mean
            and the least of the overlapping windows in place of the greatest.
        padding: Of conv2 to conv5. `same` keeps the maps' side, as published; `valid` adds nothing, so that the maps
            shrink; `full` adds all but one of the kernel's pixels, so that they grow.
        ceil_pools: Which pools keep a window that hangs over the border; `auto`: the non-overlapping ones.
        dropout: The share of units of fc6 and fc7 that a step drops (sec. 4.2: 0.5).
        dropout_scaling: `classic` halves outputs in evaluation, as published; `inverted` doubles them in training.
        dropout_place: `after` fc6 and fc7 as published, or `before` them (torchvision).
        init: The start of weights and biases: `initialisation.PRESETS`, or he, glorot, torch. `auto` is the paper's
            with the published stem; with the small stem it is torch's, for deviations of 0.01 are made for the
            paper's wide layers: CIFAR-10's signals would fade in them, and nothing would be learnt.
        bias_init: Replaces the biases that the paper starts at 1; None: as `init` has it.

    Attributes:
        stem: `published` or `small`.
        init: The start that was taken.
        sizes: The output side of each layer, by its name.

    Raises:
        ConfigError: Images that the stem does not fit, widths that towers cannot share, a value not allowed.
    """

    def __init__(
        self,
        *,
        num_classes: Count = 1000,
        in_channels: Count = 3,
        image_size: Count = 224,
        stem: Literal["auto", "published", "small"] = "auto",
        stem_padding: Literal["far", "two", "none"] = "far",
        maps: tuple[Count, ...] = (96, 256, 384, 384, 256),
        hidden: Count = 4096,
        width: Positive = 1.0,
        towers: Literal[1, 2] = 2,
        without: Literal["none", "conv3", "conv4", "conv5"] = "none",
        activation: Literal["relu", "tanh", "sigmoid", "scaled_tanh", "leaky_relu", "elu", "gelu", "silu"] = "relu",
        order: Literal["paper", "code2012", "code2014", "caffe", "caffenet"] = "paper",
        norm: Literal["lrn", "none", "batch"] = "lrn",
        norm_layers: tuple[Count, ...] | None = None,
        lrn_size: Count = 5,
        lrn_alpha: NonNegative | None = None,
        lrn_beta: NonNegative = 0.75,
        lrn_k: Positive | None = None,
        pool: Literal["overlapping", "non_overlapping", "average", "min"] = "overlapping",
        padding: Literal["same", "valid", "full"] = "same",
        ceil_pools: Literal["auto", "last", "all"] = "auto",
        dropout: Fraction = 0.5,
        dropout_scaling: Literal["classic", "inverted"] = "classic",
        dropout_place: Literal["after", "before"] = "after",
        init: Literal["auto", "paper", "code2012", "code2014", "caffe", "caffenet", "he", "glorot", "torch"] = "auto",
        bias_init: float | None = None,
    ) -> None:
        check_fields(AlexNet.__init__, locals())
        super().__init__()
        geometry = alexnet_sizes(
            image_size=image_size, stem=stem, stem_padding=stem_padding, pool=pool, padding=padding,
            ceil_pools=ceil_pools, without=without,
        )  # fmt: skip
        self.init = {"published": "paper", "small": "torch"}[geometry.stem] if init == "auto" else init
        if "auto" in (stem, init):
            log.info("AlexNet: stem=%s and init=%s for images of %d px", geometry.stem, self.init, image_size)
        widths = alexnet_maps(maps=tuple(maps), hidden=hidden, width=width, towers=towers)
        norms = _Norms(
            norm, alexnet_norms(norm=norm, norm_layers=norm_layers), towers if ORDERS[order].per_tower else 1,
            lrn_size, ORDERS[order].alpha if lrn_alpha is None else lrn_alpha, lrn_beta,
            ORDERS[order].k if lrn_k is None else lrn_k,
        )  # fmt: skip
        act = ACTIVATIONS[activation]
        self.input_shape = (in_channels, image_size, image_size)
        self.stem, self.sizes = geometry.stem, geometry.sizes
        self.features = _features(
            geometry,
            (in_channels, *widths.conv),
            towers=towers,
            order=ORDERS[order],
            norms=norms,
            act=act,
            pool=POOLS[pool],
        )
        units = (_last_maps(widths, without) * geometry.sizes["pool5"] ** 2, widths.hidden, num_classes)
        drop = ClassicDropout if dropout_scaling == "classic" else nn.Dropout
        self.classifier = _classifier(units, act, lambda: drop(dropout), dropout_place == "before")
        initialise(self.weighted_layers(), self.init, bias_init)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """From (B, in_channels, image_size, image_size) to logits (B, num_classes)."""
        check_images(images, self.input_shape)
        return self.classifier(self.features(images))

    def weighted_layers(self) -> dict[str, nn.Module]:
        """The convolutions and dense layers by name, conv1 to fc8, in their order."""
        named = (*self.features.named_children(), *self.classifier.named_children())
        return {name: layer for name, layer in named if isinstance(layer, nn.Conv2d | nn.Linear)}


class _Norms(NamedTuple):
    """Which convolutions are normalised, and how."""

    kind: str
    layers: tuple[int, ...]
    groups: int
    size: int
    alpha: float
    beta: float
    k: float

    def make(self, step: str, number: int, maps: int) -> nn.Module | None:
        """The module of one step in one block, or None."""
        if number not in self.layers or (step == "rnorm" and self.kind != "lrn"):
            return None
        if step == "rnorm":
            return SpatialResponseNorm(5, 0.001 / 25, 0.75, 1.0)  # cnorm2 of layers-145.cfg
        if self.kind == "batch":
            return nn.BatchNorm2d(maps)
        return LocalResponseNorm(self.size, self.alpha, self.beta, self.k, groups=self.groups)


def _features(
    geometry: AlexNetSizes,
    maps: tuple[int, ...],
    *,
    towers: int,
    order: Order,
    norms: _Norms,
    act: Callable[[], nn.Module],
    pool: type[nn.Module],
) -> nn.Sequential:
    """Blocks 1 to 5, their steps named conv1, act1, norm1, pool1, ... `maps` starts with the image's channels."""
    orders = (order.block1, order.block2, _MIDDLE, _MIDDLE, order.block5)
    steps: OrderedDict[str, nn.Module] = OrderedDict()
    if geometry.extra:
        steps["pad1"] = nn.ZeroPad2d((0, geometry.extra, 0, geometry.extra))
    seen = maps[0]
    for number, (block, count) in enumerate(zip(orders, maps[1:], strict=True), start=1):
        present = f"conv{number}" in geometry.steps
        for step in block if present else ("pool",):
            name = f"{step}{number}"
            groups = towers if number in (2, 4, 5) else 1  # conv3 sees both towers
            module = _step(step, geometry.steps.get(name), (seen, count), groups, act=act, pool=pool)
            module = module or norms.make(step, number, count)
            if module is not None:
                steps[name] = module
        seen = count if present else seen
    return nn.Sequential(steps)  # (B, 96, 55, 55) > (B, 256, 27, 27) > (B, 384, 13, 13) x 2 > (B, 256, 6, 6)


def _step(
    kind: str,
    window: Step | None,
    maps: tuple[int, int],
    groups: int,
    *,
    act: Callable[[], nn.Module],
    pool: type[nn.Module],
) -> nn.Module | None:
    """A convolution, a pooling or an activation; None for a step that is left out, and for norms."""
    if kind == "act":
        return act()
    if window is None:
        return None
    if kind == "pool":
        return pool(window.kernel, window.stride, window.padding, ceil_mode=window.ceil_mode)
    return nn.Conv2d(*maps, window.kernel, window.stride, window.padding, groups=groups)


def _last_maps(widths: AlexNetMaps, without: str) -> int:
    """The maps that pool5 sees."""
    return widths.conv[3] if without == "conv5" else widths.conv[4]


def _classifier(
    units: tuple[int, int, int], act: Callable[[], nn.Module], drop: Callable[[], nn.Module], before: bool
) -> nn.Sequential:
    """fc6, fc7 and fc8; `units` are what fc6 sees, what fc6 and fc7 have, and the classes."""
    seen, hidden, classes = units
    steps = OrderedDict(flatten=nn.Flatten())  # (B, 9216)
    for number, inputs in ((6, seen), (7, hidden)):
        dense = {f"fc{number}": nn.Linear(inputs, hidden), f"act{number}": act()}  # (B, 4096)
        dropout = {f"drop{number}": drop()}
        steps |= {**dropout, **dense} if before else {**dense, **dropout}
    steps["fc8"] = nn.Linear(hidden, classes)
    return nn.Sequential(steps)
