from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
import torch

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models.checks import check_fields, check_images

if TYPE_CHECKING:
    from alexnet_lab.base.ranges import Count, Fraction, Index, Positive, Ratio


def example(  # noqa: PLR0917 - one of each kind
    kind: Literal["a", "b"],
    side: Literal[1, 2],
    count: Count,
    pixels: Index,
    rate: Fraction,
    scale: Positive,
    part: Ratio,
    flag: bool,
    name: str,
    numbers: tuple[Count, ...],
    words: list[str] | None,
    limit: float | None,
) -> None:
    """Has a parameter of each kind that a network may have."""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "a"), ("side", 2), ("count", 1), ("pixels", 0), ("rate", 0), ("rate", 0.99), ("scale", 1e-9),
        ("part", 1), ("flag", False), ("name", ""), ("numbers", (1, 2)), ("numbers", [3]), ("words", None),
        ("words", ["x"]), ("limit", None), ("limit", -1), ("unknown", object()),
    ],
)  # fmt: skip
def test_what_fits_passes(name, value):
    check_fields(example, {name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("kind", "c", "unknown kind=c; allowed: a, b"),
        ("side", 3, "unknown side=3; allowed: 1, 2"),
        ("side", True, "unknown side=True; allowed: 1, 2"),
        ("count", 0, "count=0 is out of range: it must be at least 1"),
        ("count", 1.0, "count=1.0 must be a whole number"),
        ("count", True, "count=True must be a whole number"),
        ("pixels", -1, "pixels=-1 is out of range: it must be at least 0"),
        ("rate", 1.0, "rate=1.0 is out of range: it must be below 1"),
        ("scale", 0.0, "scale=0.0 is out of range: it must be above 0"),
        ("scale", float("nan"), "scale=nan must be a finite number"),
        ("part", 1.5, "part=1.5 is out of range: it must be at most 1"),
        ("flag", 1, "flag=1 must be true or false"),
        ("name", 5, "name=5 must be a text"),
        ("numbers", 5, "numbers=5 must be a list"),
        ("words", "ab", "words=ab must be a list"),
        ("numbers", (1, 0), "numbers=0 is out of range: it must be at least 1"),
        ("words", [1], "words=1 must be a text"),
        ("limit", "x", "limit=x must be a finite number"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(name, value, message):
    with pytest.raises(ConfigError) as caught:
        check_fields(example, {name: value})
    assert str(caught.value) == message


def test_none_where_none_is_not_allowed():
    with pytest.raises(ConfigError, match="count=None must be a whole number"):
        check_fields(example, {"count": None})


def test_images():
    check_images(torch.zeros(5, 1, 2, 3), (1, 2, 3))
    with pytest.raises(ConfigError, match=r"batches of 1 x 2 x 3 \(channels x height x width\) .* shape \(1, 2, 3\)"):
        check_images(torch.zeros(1, 2, 3), (1, 2, 3))
