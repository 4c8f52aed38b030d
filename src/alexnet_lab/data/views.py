"""The fixed views of an image for averaging predictions: Krizhevsky 2012, sec. 4.1."""

from __future__ import annotations

from typing import NamedTuple

import torch

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.data.augment import AugmentParams


class View(NamedTuple):
    """A square at one place of the (padded) image, optionally mirrored."""

    top: int  # first row, in pixels from the padded corner
    left: int  # first column
    mirror: bool = False

    def draws(self, n: int, device: torch.device) -> AugmentParams:
        """The parameters of this view for n images."""
        return AugmentParams(
            top=torch.full((n,), self.top, device=device),
            left=torch.full((n,), self.left, device=device),
            mirror=torch.full((n,), self.mirror, device=device),
            shift=None,
        )


def ten_views(room: int, *, mirror: bool = True) -> list[View]:
    """The four corners and the centre, then their mirror images.

    Args:
        room: The last place at which a view can start, in pixels: 32 for 224 in 256.
        mirror: False leaves out the mirror images, e.g. of digits, which the network has never seen mirrored.

    Example:
        >>> [view[:2] for view in ten_views(32)[:5]]
        [(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)]
    """
    middle = room // 2
    places = [(0, 0), (0, room), (middle, middle), (room, 0), (room, room)]
    return [View(top, left, turned) for turned in ((False, True) if mirror else (False,)) for top, left in places]


def nine_views(room: int) -> list[View]:
    """A grid of three by three places, not mirrored: cuda-convnet2's test views."""
    places = (0, room // 2, room)
    return [View(top, left) for top in places for left in places]


def views_of(kind: str, room: int, *, mirror: bool = True) -> list[View]:
    """The views of `views=ten` or `views=nine`.

    Args:
        kind: "ten" or "nine".
        room: The last place at which a view can start, in pixels.
        mirror: Whether the network was trained on mirror images.

    Raises:
        ConfigError: All places are the same.
    """
    if room == 0:
        raise ConfigError(
            f"views={kind} needs images stored larger than the model sees, or a run trained with augment.padding; "
            "of this run there is only the centre view: views=center"
        )
    return ten_views(room, mirror=mirror) if kind == "ten" else nine_views(room)
