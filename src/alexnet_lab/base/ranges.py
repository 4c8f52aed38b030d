"""The ranges of the fields that a config may set, as types.

A constructor's keyword-only parameters, annotated with these types, *are* its config schema:
`alexnet_lab.config` reads them from the source without importing torch.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

Count = Annotated[int, Ge(1), Lt(2**31)]
"""A whole number >= 1 that torch can count with: images, maps, epochs."""

Classes = Annotated[int, Ge(2), Lt(2**31)]
"""The number of classes of a data set."""

Index = Annotated[int, Ge(0), Lt(2**63)]
"""A whole number >= 0: a seed, a padding in pixels."""

Pixels = Annotated[int, Ge(1), Le(8192)]
"""The side of an image."""

Positive = Annotated[float, Gt(0), Le(3.4e38)]
"""A number > 0 that float32 can hold."""

NonNegative = Annotated[float, Ge(0), Le(3.4e38)]
"""A number >= 0 that float32 can hold."""

Fraction = Annotated[float, Ge(0), Lt(1)]
"""A number in [0, 1): a dropout rate, a momentum."""

Share = Annotated[float, Gt(0), Lt(1)]
"""A number in (0, 1): the share of images that is set apart."""

Ratio = Annotated[float, Gt(0), Le(1)]
"""A number in (0, 1]: a factor that makes smaller."""

TOP_K = 5
"""Of ILSVRC's second measure, the top-5 error, which is measured where there are more classes than this."""
