"""Random views of images: crop, mirror, colour; a whole batch at once, on the device of the batch.

numpy draws the random numbers for the whole global batch from (seed, epoch, batch). Each process uses its share.
All further computation is elementwise, so an image gets the same view, bit for bit, with any number of processes. Each
image uses the same number of random numbers whatever is enabled: without mirroring, a run has the same crops as with
it.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from numpy.typing import NDArray
from torch import Tensor

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.kernels import Kernels
from alexnet_lab.base.native import Library
from alexnet_lab.base.ranges import NonNegativeFloat, NonNegativeInt
from alexnet_lab.data.channel_statistics import Statistics
from alexnet_lab.data.class_fields import Fields
from alexnet_lab.data.normalize import Normalizer

__all__ = ["Augment", "Geometry", "apply"]


NATIVE = Library(
    Path(__file__).with_name("views.cpp"),
    {"take_views": [ctypes.c_void_p] * 8 + [ctypes.c_int64] * 5 + [ctypes.c_int] * 2},
    without="augmentation is not compiled here and takes about four times as long",
)
"""The same computation in one pass instead of one torch operation after another, on a CPU."""

KERNELS = Kernels("alexnet_lab.data.view_kernels", without="augmentation is not compiled here, so it is slower")
"""Likewise, on a GPU."""


class Geometry(NamedTuple):
    """Where views are taken: squares of `side` within stored squares; places count from the padded corner.

    Example:
        >>> geometry = Geometry(stored=256, image_size=224)
        >>> geometry.side, geometry.room, geometry.centre
        (224, 32, 16)
    """

    stored: int  # pixels, side of a stored image
    image_size: int  # pixels, side of the model's input
    padding: int = 0  # pixels, on each side of a stored image

    @property
    def side(self) -> int:
        """The side of a view; it is enlarged afterwards if the model's input is larger than the stored image."""
        return min(self.image_size, self.stored)

    @property
    def room(self) -> int:
        """The last place at which a view can start; 0 if there is only one."""
        return self.stored + 2 * self.padding - self.side

    @property
    def centre(self) -> int:
        """The place of the centre view."""
        return self.padding + (self.stored - self.side) // 2


class AugmentParams(NamedTuple):
    """The random parameters of a batch of n images."""

    top: Tensor  # int64 (n,), first row of the view
    left: Tensor  # int64 (n,), first column
    mirror: Tensor  # bool (n,)
    shift: Tensor | None  # float32 (n, C), grey levels added to all pixels of an image
    gain: float = 1.0  # factor for all pixels, applied afterwards

    def part(self, positions: slice | list[int]) -> AugmentParams:
        """The parameters of some images of the batch."""
        shift = None if self.shift is None else self.shift[positions]
        return AugmentParams(self.top[positions], self.left[positions], self.mirror[positions], shift, self.gain)


class Augment(Fields, group="augment"):
    """Random changes of training images.

    Attributes:
        crop: Take views at random places; otherwise the centre view.
        padding: Pixels around a stored image in which views may start too, >= 0. They become 0 after normalisation,
            which is the mean colour for the centred normalisations. For images stored at the model's own size,
            such as CIFAR-10's.
        mirror: Mirror an image left to right with probability 1/2.
        pca_colour: Shift the colour of an image along the principal axes of all pixels. "code2012": by
            pca_std * N(0, 1) * standard deviation, in grey levels; then everything is divided by 1 + pca_std, as the
            released code does in training (test images are not divided). "lighting": by pca_std * N(0, 1) * variance
            on the scale 0..1, as fb.resnet.torch reads the paper's section 4.1: about half as strong.
        pca_std: Standard deviation of the normal numbers, >= 0; 0.1 in both sources.
        pca_epochs: From this epoch on (0-based) colours are neither shifted nor divided; None: never. In the recorded
            run 145 the coefficient was changed from .1 to 0 at epoch 67 of 91.
        brightness: Added to all pixels of an image, where 1 is the whole scale from black to white.
        brightness_kind: "random": a number from the uniform distribution on [-brightness, brightness] for each image;
            "fixed": `brightness` itself for every training image, as `tf.image.adjust_brightness` of the annotated
            guide. Test images do not change, so a fixed one is a shift between training and test.
        crop_starts: "code2012": each of the places 0..room; "paper": without the last, which gives 32 * 32 * 2 =
            2048 views of 224 in 256, where the code has 33 * 33 * 2 = 2178.

    Raises:
        ConfigError: A field is out of its range, or padding is set without crop.

    Example:
        >>> augment = Augment(padding=4, pca_colour="lighting")
        >>> augment.crop, augment.mirror, augment.pca_std
        (True, True, 0.1)
    """

    crop: bool = True
    padding: NonNegativeInt = 0
    mirror: bool = True
    pca_colour: Literal["none", "code2012", "lighting"] = "none"
    pca_std: NonNegativeFloat = 0.1
    pca_epochs: NonNegativeInt | None = None
    brightness: NonNegativeFloat = 0.0
    brightness_kind: Literal["random", "fixed"] = "random"
    crop_starts: Literal["paper", "code2012"] = "code2012"

    def __post_init__(self) -> None:
        if self.padding and not self.crop:
            raise ConfigError(
                f"`augment.padding` is {self.padding} but `augment.crop` is false: set padding=0 or crop=true"
            )

    def geometry(self, stored: int, image_size: int) -> Geometry:
        """Where views are taken."""
        return Geometry(stored, image_size, self.padding)

    def draw(
        self, rng: np.random.Generator, n: int, geometry: Geometry, statistics: Statistics, epoch: int = 0
    ) -> AugmentParams:
        """Draws the parameters of a global batch of n images in an epoch (0-based)."""
        uniform = rng.random((n, 4))  # top, left, mirror, brightness
        normal = rng.standard_normal((n, 3))
        starts = np.full((n, 2), geometry.centre)
        if self.crop:
            starts = (uniform[:, :2] * self._places(geometry.room)).astype(np.int64)
        colour = self.pca_colour if self.pca_epochs is None or epoch < self.pca_epochs else "none"
        return AugmentParams(
            top=torch.from_numpy(starts[:, 0].copy()),
            left=torch.from_numpy(starts[:, 1].copy()),
            mirror=torch.from_numpy((uniform[:, 2] < 0.5) & self.mirror),
            shift=self._shift(colour, normal, uniform[:, 3], statistics),
            gain=1 / (1 + self.pca_std) if colour == "code2012" else 1.0,
        )

    def _places(self, room: int) -> int:
        """The number of rows at which a view may start."""
        return max(1, room if self.crop_starts == "paper" else room + 1)

    def _shift(self, colour: str, normal: NDArray, uniform: NDArray, statistics: Statistics) -> Tensor | None:
        """Grey levels (n, C) to add, or None if there are none."""
        if colour == "none" and self.brightness == 0:
            return None
        shift = np.zeros((len(normal), len(statistics.channel_mean)))
        if colour != "none":
            shift += colour_shift(self.pca_std * normal, colour, statistics)
        shift += 255 * self.brightness * (1 if self.brightness_kind == "fixed" else 2 * uniform[:, None] - 1)
        return torch.from_numpy(shift.astype(np.float32))


def colour_shift(alphas: NDArray, pca_colour: str, statistics: Statistics) -> NDArray:
    """Grey levels (n, 3) along the principal colour axes (Krizhevsky 2012, sec. 4.1).

    Args:
        alphas: (n, 3), the paper's alpha_i, one triple per image.
        pca_colour: "code2012" multiplies them by standard deviations in grey levels, "lighting" by variances on the
            scale 0..1 and brings the result to grey levels.
        statistics: Of the training images.
    """
    stdevs = statistics.colour_stdevs
    lengths = stdevs if pca_colour == "code2012" else 255 * (stdevs / 255) ** 2
    return (alphas * lengths) @ statistics.colour_axes.T


def apply(images: Tensor, draws: AugmentParams | None, geometry: Geometry, normalizer: Normalizer) -> Tensor:
    """Cuts the views, normalises them, and enlarges them if the model's input is larger than the stored images.

    Args:
        images: uint8 (B, C, S, S), S = geometry.stored.
        draws: Of these images; None takes the centre views, unchanged.
        geometry: Where the views are.
        normalizer: For views of geometry.side.

    Returns:
        float32 (B, C, T, T), T = geometry.image_size; 0 in the padding.

    Example:
        >>> from alexnet_lab.data.channel_statistics import image_statistics
        >>> from alexnet_lab.data.normalize import make_normalizer
        >>> images = np.full((2, 3, 32, 32), 128, dtype=np.uint8)
        >>> normalizer = make_normalizer("unit", image_statistics(images, np.arange(2)), 24)
        >>> views = apply(torch.from_numpy(images), None, Geometry(stored=32, image_size=24), normalizer)
        >>> views.shape, round(float(views.max()), 4)
        (torch.Size([2, 3, 24, 24]), 0.502)
    """
    if draws is not None:
        normalizer = normalizer._replace(scale=normalizer.scale * draws.gain)
    views = cut_views(images, draws, geometry, normalizer)
    if geometry.image_size == geometry.side:
        return views
    return F.interpolate(views, size=(geometry.image_size, geometry.image_size), mode="bilinear", align_corners=False)


def cut_views(images: Tensor, draws: AugmentParams | None, geometry: Geometry, normalizer: Normalizer) -> Tensor:
    """Computes normalised views (B, C, K, K), K = geometry.side, in the fastest form that there is here."""
    views = None
    if not torch.compiler.is_compiling():
        if images.device.type == "cpu" and NATIVE.available:
            return native_views(images, draws, geometry, normalizer)
        if images.device.type == "cuda" and draws is not None:
            views = KERNELS.call("views", images, draws, geometry, normalizer)
    return gathered_views(images, draws, geometry, normalizer) if views is None else views


def native_views(images: Tensor, draws: AugmentParams | None, geometry: Geometry, normalizer: Normalizer) -> Tensor:
    """Computes them on a CPU; needs NATIVE."""
    batch, channels, stored, _ = images.shape
    if draws is None:
        place = torch.full((batch,), geometry.centre)
        draws = AugmentParams(place, place, torch.zeros(batch, dtype=torch.bool), None)
    views = torch.empty(batch, channels, geometry.side, geometry.side)
    arrays = [images, draws.top, draws.left, draws.mirror, draws.shift, normalizer.mean, normalizer.scale, views]
    dense = [None if array is None else array.contiguous() for array in arrays]
    NATIVE.call(
        "take_views", *[None if array is None else array.data_ptr() for array in dense], batch, channels, stored,
        geometry.side, geometry.padding, normalizer.mean.shape[-1] > 1, torch.get_num_threads(),
    )  # fmt: skip
    return views


def gathered_views(images: Tensor, draws: AugmentParams | None, geometry: Geometry, normalizer: Normalizer) -> Tensor:
    """Computes the same (B, C, K, K) with torch's operations, on any device."""
    if draws is None:
        first, last = geometry.centre - geometry.padding, geometry.centre - geometry.padding + geometry.side
        views = images[:, :, first:last, first:last].float() - normalizer.mean
        return views.mul_(normalizer.scale)
    rows, columns = view_pixels(draws, geometry)
    views = take_views(images, rows, columns).float()
    views -= normalizer.mean
    if draws.shift is not None:
        views += draws.shift[:, :, None, None]
    views *= normalizer.scale
    if geometry.padding:
        views *= inside(rows, geometry)[:, None, :, None] * inside(columns, geometry)[:, None, None, :]
    return views


def view_pixels(draws: AugmentParams, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """The rows and the columns (B, K) of the stored image in each view; outside 0..S-1 in the padding."""
    steps = torch.arange(geometry.side, device=draws.top.device)
    columns = torch.where(draws.mirror[:, None], geometry.side - 1 - steps, steps)
    return draws.top[:, None] + steps - geometry.padding, draws.left[:, None] + columns - geometry.padding


def take_views(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels (B, C, K, K) of images (B, C, S, S) at rows and columns (B, K); outside the image, those of its edge.

    Whole rows first, then their columns: on a CPU seven times as fast as indexing both at once.
    """
    batch, channels, stored, _ = images.shape
    side = rows.shape[1]
    planes = torch.arange(batch * channels, device=images.device).view(batch, channels, 1)
    chosen = planes * stored + rows.clamp(0, stored - 1)[:, None, :]  # (B, C, K), rows of all planes in a row
    strips = images.reshape(-1, stored).index_select(0, chosen.flatten()).view(batch, channels, side, stored)
    columns = columns.clamp(0, stored - 1)[:, None, None, :]
    return strips.gather(3, columns.expand(batch, channels, side, side))


def inside(pixels: Tensor, geometry: Geometry) -> Tensor:
    """1.0 for rows or columns of the stored image, 0.0 in the padding; floats, because they multiply fast."""
    return ((pixels >= 0) & (pixels < geometry.stored)).float()
