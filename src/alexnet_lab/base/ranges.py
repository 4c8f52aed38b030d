"""Types of fields with their ranges, named like pydantic's.

A constructor's keyword-only parameters, annotated with these types, *are* its config schema:
`alexnet_lab.config` reads them from the source without importing torch.
"""

from __future__ import annotations

import re
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator

from alexnet_lab.base.errors import ConfigError

__all__ = [
    "Classes",
    "NonNegativeFloat",
    "NonNegativeInt",
    "Pixels",
    "PositiveFloat",
    "PositiveInt",
    "UnitInterval",
]

PositiveInt = Annotated[int, Ge(1), Lt(2**31)]
"""An integer >= 1 that torch can count with: images, maps, epochs."""

Classes = Annotated[int, Ge(2), Lt(2**31)]
"""The number of classes of a data set."""

NonNegativeInt = Annotated[int, Ge(0), Lt(2**63)]
"""An integer >= 0: a seed, a padding in pixels."""

Pixels = Annotated[int, Ge(1), Le(8192)]
"""The side of an image."""


def _normal(number: float) -> float:
    if number < 1.2e-38:
        raise ValueError("greater than or equal to 1.2e-38")
    return number


PositiveFloat = Annotated[float, Gt(0), Le(3.4e38), AfterValidator(_normal)]
"""A number > 0 that float32 can hold."""

NonNegativeFloat = Annotated[float, Ge(0), Le(3.4e38)]
"""A number >= 0 that float32 can hold."""

UnitInterval = Annotated[float, Ge(0), Lt(1)]
"""A number in [0, 1): a dropout rate, a momentum, a fraction of the images."""


def matching(pattern: str, allowed: str) -> AfterValidator:
    """Accepts the texts that a regular expression matches as a whole; `allowed` describes them to users."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(allowed)
        return text

    check.__doc__ = allowed  # which the help shows
    return AfterValidator(check)


COUNTED = ("loss", "top1_error", "top5_error")
"""What every run measures."""

RESERVED = (*COUNTED, "early_loss", "final_loss", "final_top1_error")
"""Names that a further metric cannot have."""


def check_metric_name(name: str) -> None:
    """Raises ConfigError for a name that a further metric cannot have."""
    if not name.isidentifier() or name in RESERVED:
        raise ConfigError(
            f"`metrics.{name}`: the name has to be a word of letters, digits and _, other than "
            f"{', '.join(RESERVED)}; choose another"
        )


ExtraMetric = Annotated[str, matching(r"(val|train)/[^\W\d]\w*", "val/NAME for a NAME of the group `metrics`")]
"""The name of a metric of the config's `metrics` in validation or training."""

TOP_K = 5
"""The k of ILSVRC's second measure, the top-5 error, which needs more classes than this."""
