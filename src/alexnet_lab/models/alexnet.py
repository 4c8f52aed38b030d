"""AlexNet, with each idea of the paper and each difference between the sources as a field.

A. Krizhevsky, I. Sutskever, G. Hinton: ImageNet Classification with Deep Convolutional Neural Networks, 2012
("the paper"). The released code is cuda-convnet with layers/layers-145.cfg. Two towers and 1000 classes make
60,965,224 parameters, and 724,406,816 multiply-adds at 3x224x224. The defaults follow the paper's prose.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import nn

from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, UnitInterval
from alexnet_lab.models.geometry import AlexNetSizes, alexnet_maps, alexnet_norms, alexnet_sizes
from alexnet_lab.models.initialisation import initialise
from alexnet_lab.models.input_shape import check_images
from alexnet_lab.models.layers import (
    ACTIVATIONS,
    ClassicDropout,
    Conv2d,
    LocalResponseNorm,
    MinPool2d,
    SpatialResponseNorm,
)

log = logging.getLogger("alexnet_lab.models")


def convolutional_layers(
    maps: tuple[int, ...],
    plan: AlexNetSizes,
    *,
    towers: int,
    order: str,
    act: Callable[[], nn.Module],
    norms: Mapping[int, nn.Module],
    pool: Callable[..., nn.Module],
) -> nn.Sequential:
    """Blocks 1 to 5; comments give the shapes of the default network for 3x224x224, and the paper's sections."""
    m0, m1, m2, m3, m4, m5 = maps  # 3 colours, then 96, 256, 384, 384, 256 maps
    p1, p2, p3, p4, p5 = plan.paddings  # 0, 2, 1, 1, 1 px
    net: OrderedDict[str, nn.Module | None] = OrderedDict()

    net["pad1"] = nn.ZeroPad2d((0, plan.extra, 0, plan.extra)) if plan.extra else None  # (B, 3, 227, 227)
    if plan.stem == "published":
        net["conv1"] = Conv2d(m0, m1, 11, stride=4, padding=p1)  # (B, 96, 55, 55), sec. 3.5
    else:
        net["conv1"] = nn.Conv2d(m0, m1, 5, padding=p1)  # (B, 96, 32, 32) for CIFAR-10's 32 px
    net["act1"] = act()  # ReLU, sec. 3.1
    net["norm1"] = norms.get(1)  # LRN, sec. 3.3
    net["pool1"] = pool(ceil_mode=plan.ceil)  # (B, 96, 27, 27), 3x3 with stride 2, sec. 3.4
    if order == "caffenet":  # conv > ReLU > pool > norm
        net.move_to_end("norm1")
    elif order in ("code2012", "code2014"):  # conv > norm > pool > ReLU: the norm sees signed values
        net.move_to_end("act1")

    net["conv2"] = Conv2d(m1, m2, 5, padding=p2, groups=towers)  # (B, 256, 27, 27), a tower sees its own 48 maps
    net["act2"], net["norm2"] = act(), norms.get(2)
    if order == "code2012" and isinstance(net["norm2"], LocalResponseNorm):  # cnorm2, not in the paper
        net["rnorm2"] = SpatialResponseNorm(5, 0.001 / 25, 0.75, 1.0)
    net["pool2"] = pool(ceil_mode=plan.ceil)  # (B, 256, 13, 13)
    if order == "caffenet":
        net.move_to_end("norm2")

    if "conv3" in plan.sizes:  # sec. 7 leaves out one of conv3 to conv5
        net["conv3"] = nn.Conv2d(m2, m3, 3, padding=p3)  # (B, 384, 13, 13), sees both towers
        net["act3"], net["norm3"] = act(), norms.get(3)
    if "conv4" in plan.sizes:
        net["conv4"] = Conv2d(m3, m4, 3, padding=p4, groups=towers)  # (B, 384, 13, 13)
        net["act4"], net["norm4"] = act(), norms.get(4)
    if "conv5" in plan.sizes:
        net["conv5"] = Conv2d(m4, m5, 3, padding=p5, groups=towers)  # (B, 256, 13, 13)
        net["act5"], net["norm5"] = act(), norms.get(5)
    net["pool5"] = pool(ceil_mode=plan.last_ceil)  # (B, 256, 6, 6)
    if order in ("code2012", "code2014") and "conv5" in plan.sizes:  # conv > pool > ReLU
        net.move_to_end("act5")
        net.move_to_end("norm5")
    return nn.Sequential(OrderedDict((name, layer) for name, layer in net.items() if layer is not None))


def dense_layers(
    units: tuple[int, int, int], *, act: Callable[[], nn.Module], drop: Callable[[], nn.Module], drop_first: bool
) -> nn.Sequential:
    """fc6, fc7 and fc8 (sec. 3.5). `units` are what fc6 sees, what fc6 and fc7 have, and the classes."""
    inputs, hidden, classes = units  # 9216, 4096, 1000
    fc6, fc7, fc8 = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, classes)
    if drop_first:  # torchvision
        return nn.Sequential(OrderedDict(
            flatten=nn.Flatten(), drop6=drop(), fc6=fc6, act6=act(), drop7=drop(), fc7=fc7, act7=act(), fc8=fc8,
        ))  # fmt: skip
    return nn.Sequential(OrderedDict(
        flatten=nn.Flatten(),  # (B, 9216)
        fc6=fc6, act6=act(), drop6=drop(),  # (B, 4096), dropout: sec. 4.2
        fc7=fc7, act7=act(), drop7=drop(),  # (B, 4096)
        fc8=fc8,  # (B, 1000)
    ))  # fmt: skip


RESPONSE_NORMS = {  # by `order`: alpha, times the plain sum of squares; k; whether windows stay within a tower
    "paper": (1e-4, 2.0, False),  # sec. 3.3
    "code2012": (2e-5, 2.0, True),  # layers-145.cfg, whose .0001 is divided by the size 5
    "code2014": (2e-5, 2.0, True),  # layers-imagenet-1gpu.cfg of cuda-convnet2
    "caffe": (2e-5, 1.0, False),  # bvlc_alexnet, lrn_layer.cpp: .0001 is divided by the size 5
    "caffenet": (2e-5, 1.0, False),  # bvlc_reference_caffenet
}


def response_norm(
    order: str, towers: int, *, size: int, alpha: float | None, beta: float, k: float | None
) -> LocalResponseNorm:
    """The response norm of an `order`; `alpha` and `k` replace its constants unless they are None."""
    own_alpha, own_k, per_tower = RESPONSE_NORMS[order]
    alpha, k = own_alpha if alpha is None else alpha, own_k if k is None else k
    return LocalResponseNorm(size, alpha, beta, k, groups=towers if per_tower else 1)


POOLS: dict[str, Callable[..., nn.Module]] = {
    "overlapping": partial(nn.MaxPool2d, 3, stride=2),  # sec. 3.4
    "non_overlapping": partial(nn.MaxPool2d, 2, stride=2),  # layers-147.cfg
    "average": partial(nn.AvgPool2d, 3, stride=2),
    "min": partial(MinPool2d, 3, stride=2),
}


class AlexNet(nn.Module):
    """Five convolutional and three dense layers.

    Args:
        num_classes: Outputs.
        in_channels: 1 grey, 3 colour.
        image_size: Side of the images in pixels.
        stem: conv1. `published` is 11x11 with stride 4, for 64 px and more; `small` is 5x5 with stride 1, for
            CIFAR-10's 32 px (32>15>7>3); `auto` takes `published` where it fits and logs its choice, which the
            attribute `stem` keeps.
        stem_padding: `far` adds zeros at the right and the bottom until the last window fits (224 gives 55, as in
            the released code); `two` adds 2 px on all sides (One weird trick, torchvision); `none` adds nothing and
            ignores the pixels that are left over (224 gives 54).
        maps: Maps of conv1 to conv5.
        hidden: Units of fc6 and of fc7.
        width: Scales maps and hidden units; 0.5 gives 48-128-192-192-128 and 2048.
        towers: 2 divides conv2, conv4 and conv5 into two groups, as the paper's two GPUs did (sec. 3.5).
        without: A convolution to leave out, with its activation and norm, to show that depth matters (sec. 7).
        activation: After all layers but the last (sec. 3.1: relu).
        order: Whose order of convolution, activation, norm and pooling, and whose constants of the response norm
            (`RESPONSE_NORMS`).
        norm: `lrn` is local response normalisation (sec. 3.3); `batch` replaces it by batch normalisation, also
            after conv3 to conv5; `none` has no norms, not even the released code's spatial one.
        norm_layers: The convolutions that are normalised; None: 1 and 2 for lrn, all five for batch.
        lrn_size: Maps in a window.
        lrn_alpha: Factor of the plain sum of squares; None: that of `order`. It suits pixels of 0..255; for images
            divided by s, alpha * s^2 does the same in layer 1.
        lrn_beta: The exponent.
        lrn_k: The constant; None: that of `order`.
        pool: `overlapping` is 3x3 with stride 2 (sec. 3.4); `non_overlapping` is 2x2, and conv2 and conv5 pad 1 px
            less so that fc6 sees as many pixels (the released code's config 147). `average` and `min` take the mean
            and the minimum of the overlapping windows instead of the maximum.
        padding: Of conv2 to conv5. `same` keeps the maps' side, as published; `valid` adds nothing, so the maps
            shrink; `full` adds all but one of the kernel's pixels, so they grow.
        ceil_pools: Which pools keep a window that hangs over the border; `auto`: the non-overlapping ones.
        dropout: Fraction of fc6's and fc7's units that each training step drops (sec. 4.2: 0.5).
        dropout_scaling: `classic` halves outputs in evaluation, as published; `inverted` doubles them in training.
        dropout_place: `after` fc6 and fc7 as published, or `before` them (torchvision).
        init: Initial weights and biases: `initialisation.PRESETS`, or he, glorot, torch. `auto` is the paper's
            with the published stem and torch's with the small stem: deviations of 0.01 suit the paper's wide
            layers, but CIFAR-10's signals would fade in them and nothing would be learnt.
        bias_init: Replaces the biases that the paper starts at 1; None: as `init` has it.

    Attributes:
        stem: `published` or `small`.
        init: The preset in use.
        sizes: The output side of each layer in pixels, by its name.

    Raises:
        ConfigError: The images do not fit the stem, the towers cannot share the maps, or a value is not allowed.

    Example:
        >>> net = AlexNet(num_classes=10, image_size=32, norm="none")
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> sum(weight.numel() for weight in AlexNet().parameters())
        60965224
    """

    @checked()
    def __init__(
        self,
        *,
        num_classes: PositiveInt = 1000,
        in_channels: PositiveInt = 3,
        image_size: PositiveInt = 224,
        stem: Literal["auto", "published", "small"] = "auto",
        stem_padding: Literal["far", "two", "none"] = "far",
        maps: tuple[PositiveInt, ...] = (96, 256, 384, 384, 256),
        hidden: PositiveInt = 4096,
        width: PositiveFloat = 1.0,
        towers: Literal[1, 2] = 2,
        without: Literal["none", "conv3", "conv4", "conv5"] = "none",
        activation: Literal["relu", "tanh", "sigmoid", "scaled_tanh", "leaky_relu", "elu", "gelu", "silu"] = "relu",
        order: Literal["paper", "code2012", "code2014", "caffe", "caffenet"] = "paper",
        norm: Literal["lrn", "none", "batch"] = "lrn",
        norm_layers: tuple[PositiveInt, ...] | None = None,
        lrn_size: PositiveInt = 5,
        lrn_alpha: NonNegativeFloat | None = None,
        lrn_beta: NonNegativeFloat = 0.75,
        lrn_k: PositiveFloat | None = None,
        pool: Literal["overlapping", "non_overlapping", "average", "min"] = "overlapping",
        padding: Literal["same", "valid", "full"] = "same",
        ceil_pools: Literal["auto", "last", "all"] = "auto",
        dropout: UnitInterval = 0.5,
        dropout_scaling: Literal["classic", "inverted"] = "classic",
        dropout_place: Literal["after", "before"] = "after",
        init: Literal["auto", "paper", "code2012", "code2014", "caffe", "caffenet", "he", "glorot", "torch"] = "auto",
        bias_init: float | None = None,
    ) -> None:
        super().__init__()
        plan = alexnet_sizes(
            image_size=image_size, stem=stem, stem_padding=stem_padding, pool=pool, padding=padding,
            ceil_pools=ceil_pools, without=without,
        )  # fmt: skip
        self.input_shape, self.stem, self.sizes = (in_channels, image_size, image_size), plan.stem, plan.sizes
        self.init = {"published": "paper", "small": "torch"}[plan.stem] if init == "auto" else init
        if "auto" in (stem, init):
            log.info("AlexNet: stem=%s and init=%s for images of %d px", self.stem, self.init, image_size)
        conv, hidden = alexnet_maps(maps=maps, hidden=hidden, width=width, towers=towers, without=without)
        lrn = partial(response_norm, order, towers, size=lrn_size, alpha=lrn_alpha, beta=lrn_beta, k=lrn_k)
        normed = alexnet_norms(norm=norm, norm_layers=norm_layers)
        norms = {number: nn.BatchNorm2d(conv[number - 1]) if norm == "batch" else lrn() for number in normed}
        act, drop = ACTIVATIONS[activation], ClassicDropout if dropout_scaling == "classic" else nn.Dropout
        self.features = convolutional_layers(
            (in_channels, *conv), plan, towers=towers, order=order, act=act, norms=norms, pool=POOLS[pool]
        )
        units = (conv[-1] * plan.sizes["pool5"] ** 2, hidden, num_classes)
        self.classifier = dense_layers(units, act=act, drop=lambda: drop(dropout), drop_first=dropout_place == "before")
        initialise(self.weighted_layers(), self.init, bias_init)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """From (B, in_channels, image_size, image_size) to logits (B, num_classes)."""
        check_images(images, self.input_shape)
        return self.classifier(self.features(images))

    def weighted_layers(self) -> dict[str, nn.Module]:
        """The convolutions and dense layers by name, conv1 to fc8, in their order."""
        named = (*self.features.named_children(), *self.classifier.named_children())
        return {name: layer for name, layer in named if isinstance(layer, nn.Conv2d | nn.Linear)}
