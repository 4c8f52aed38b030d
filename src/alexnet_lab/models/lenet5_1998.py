"""LeNet-5 as published: LeCun, Bottou, Bengio, Haffner 1998, Gradient-based learning applied to document recognition.

Section II.B and appendix A; exactly 60,000 trained parameters. The bitmaps of the ten digits are our own: the paper
shows those of the full ASCII set in figure 3, 7x12 pixels each.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from alexnet_lab.base.fields import checked
from alexnet_lab.base.ranges import NonNegativeFloat, PositiveInt
from alexnet_lab.models.geometry import lenet5_1998_padding
from alexnet_lab.models.input_shape import check_images
from alexnet_lab.models.layers import EuclideanRBF, PartialConv2d, ScaledTanh, Subsampling

BACKGROUND, INK = -0.1, 1.175
"""Input values that give a digit's image a mean of about 0 and a variance of about 1 (sec. II.B)."""

C3_TABLE = (  # table I: the maps of S2 that each map of C3 sees
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)  # fmt: skip


class LeNet51998(nn.Module):
    """C1 > S2 > C3 > S4 > C5 > F6 > distances to ten bitmaps.

    Args:
        num_classes: 10: there are ten bitmaps.
        in_channels: 1, grey.
        image_size: 28, which gets a frame of 2 px of background, or 32.
        scale_input: Scale images of 0 (background) to 1 (ink) to -0.1 to 1.175; False: they have these values already.
        init: Initial weights and biases, uniform around 0; F is the number of a unit's inputs without its bias.
            `paper`: within 2.4 / F (appendix A). `efficient_backprop`: of deviation 1 / sqrt(F) (Efficient BackProp,
            by the same first author in the same year, sec. 4.6). The paper's weights show hardly any curvature at
            first, so that only the optimiser's damping limits the rates: it has to fit the loss's scale, as in
            experiment=lenet5_1998.

    Raises:
        ConfigError: The data do not fit.

    Example:
        >>> net = LeNet51998()
        >>> sum(weight.numel() for weight in net.parameters() if weight.requires_grad)
        60000
        >>> net.distances(torch.zeros(1, 1, 28, 28)).shape
        torch.Size([1, 10])
    """

    @checked()
    def __init__(
        self,
        *,
        num_classes: PositiveInt = 10,
        in_channels: PositiveInt = 1,
        image_size: PositiveInt = 28,
        scale_input: bool = True,
        init: Literal["paper", "efficient_backprop"] = "paper",
    ) -> None:
        super().__init__()
        self.padding = lenet5_1998_padding(num_classes=num_classes, in_channels=in_channels, image_size=image_size)
        self.scale_input = scale_input
        self.input_shape = (in_channels, image_size, image_size)
        self.features = nn.Sequential(OrderedDict(
            c1=nn.Conv2d(1, 6, 5), act1=ScaledTanh(),  # (B, 6, 28, 28) from (B, 1, 32, 32)
            s2=Subsampling(6), act2=ScaledTanh(),  # (B, 6, 14, 14), a coefficient and a bias per map
            c3=PartialConv2d(6, C3_TABLE, 5), act3=ScaledTanh(),  # (B, 16, 10, 10), table I
            s4=Subsampling(16), act4=ScaledTanh(),  # (B, 16, 5, 5)
            c5=nn.Conv2d(16, 120, 5), act5=ScaledTanh(),  # (B, 120, 1, 1)
        ))  # fmt: skip
        self.classifier = nn.Sequential(OrderedDict(
            flatten=nn.Flatten(),  # (B, 120)
            f6=nn.Linear(120, 84), act6=ScaledTanh(),  # (B, 84), one for each pixel of a bitmap
            output=EuclideanRBF(digit_prototypes()),  # (B, 10), squared distances to the bitmaps
        ))  # fmt: skip
        _start(self, init)

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """The images as C1 sees them: scaled, and framed by background to (B, 1, 32, 32)."""
        if self.scale_input:  # exact at both ends
            images = torch.lerp(images.new_tensor(BACKGROUND), images.new_tensor(INK), images)
        return functional.pad(images, (self.padding,) * 4, value=BACKGROUND)

    def distances(self, images: torch.Tensor) -> torch.Tensor:
        """The outputs of the paper, (B, 10): squared distances, the least of which is the prediction."""
        check_images(images, self.input_shape)
        return self.classifier(self.features(self.prepare(images)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """From (B, 1, image_size, image_size) to logits (B, 10), the negative distances."""
        return -self.distances(images)


def _start(net: nn.Module, init: str) -> None:
    """Initialises weights and biases, uniform within a bound that depends on the number of a unit's inputs.

    With `paper`, C1 stays within 0.096, S2 and S4 (one coefficient for four inputs) within 0.6, and each map of C3
    within its own bound.
    """

    def bound(inputs: torch.Tensor) -> torch.Tensor:
        return 2.4 / inputs if init == "paper" else (3 / inputs).sqrt()  # the latter has deviation 1 / sqrt(inputs)

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bounds = spread = bound(torch.tensor(layer.weight[0].numel()))
        elif isinstance(layer, PartialConv2d):
            bounds = bound(layer.mask().sum(1) * layer.kernel**2)  # of each map
            spread = bounds[layer.rows][:, None, None]
        elif isinstance(layer, Subsampling):
            bounds = spread = bound(torch.tensor(4))
        else:
            continue
        with torch.no_grad():
            layer.weight.uniform_(-1, 1).mul_(spread)
            if layer.bias is not None:
                layer.bias.uniform_(-1, 1).mul_(bounds)


class LeNet5Loss(nn.Module):
    """The paper's criteria, from the logits of `LeNet51998` (negative distances).

    Args:
        form: `mse` is the mean distance to the right bitmap (eq. 8), which ignores the wrong ones; `map` adds
            log(e^-j + sum_i e^-y_i), which pushes those away (eq. 9).
        rubbish: j > 0 of eq. 9, the distance of a class for everything else: wrong bitmaps beyond it hardly count.
            The paper prints no value.

    Example:
        >>> LeNet5Loss(form="mse")(-torch.eye(10)[:1], torch.tensor([0])).item()
        1.0
    """

    @checked()
    def __init__(self, *, form: Literal["mse", "map"] = "map", rubbish: NonNegativeFloat = 0.1) -> None:
        super().__init__()
        self.form = form
        self.rubbish = rubbish

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean over the batch, a scalar, from logits (B, 10) and labels (B,)."""
        return self.of_each(logits, labels).mean()

    def of_each(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of each image, (B,), from logits (B, 10) and labels (B,)."""
        distance = -logits.gather(1, labels[:, None])[:, 0]
        if self.form == "mse":
            return distance
        return distance + functional.pad(logits, (0, 1), value=-self.rubbish).logsumexp(1)


DIGITS = """
.#####.  ...#...  .#####.  .#####.  .....#.  #######  ...###.  #######  .#####.  .#####.
##...##  ..##...  ##...##  ##...##  ....##.  ##.....  .##....  ##...##  ##...##  ##...##
##...##  .###...  .....##  .....##  ...###.  ##.....  ##.....  .....##  ##...##  ##...##
##...##  ...#...  .....##  .....##  ..##.#.  ##.....  ##.....  ....##.  ##...##  ##...##
##...##  ...#...  ....##.  .....##  .##..#.  ######.  ##.....  ....##.  .##.##.  ##...##
##...##  ...#...  ...##..  ..####.  ##...#.  .....##  ######.  ...##..  ..###..  .######
##...##  ...#...  ..##...  .....##  ##...#.  .....##  ##...##  ...##..  .##.##.  .....##
##...##  ...#...  .##....  .....##  #######  .....##  ##...##  ..##...  ##...##  .....##
##...##  ...#...  ##.....  .....##  .....#.  .....##  ##...##  ..##...  ##...##  .....##
##...##  ...#...  ##.....  ##...##  .....#.  ##...##  ##...##  .##....  ##...##  ....##.
.#####.  .#####.  #######  .#####.  .....#.  .#####.  .#####.  .##....  .#####.  .###...
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
"""
"""The digits 0 to 9, 12 rows of 7 pixels: `#` is +1, `.` is -1."""


def digit_prototypes() -> torch.Tensor:
    """(10, 84): each digit's bitmap, row after row, of +1 and -1."""
    rows = [line.split() for line in DIGITS.strip().splitlines()]
    digits = ["".join(row[digit] for row in rows) for digit in range(10)]
    return torch.tensor([[1.0 if pixel == "#" else -1.0 for pixel in digit] for digit in digits])
