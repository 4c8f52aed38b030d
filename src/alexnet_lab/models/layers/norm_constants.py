"""The constants of a response norm, which each of its forms takes."""

from __future__ import annotations

from typing import NamedTuple


class Constants(NamedTuple):
    """The constants of one response norm; `LocalResponseNorm` explains them."""

    size: int
    alpha: float
    beta: float
    k: float
    groups: int
