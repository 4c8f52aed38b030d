"""The one check of fields: constructors and configs report the same values in the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.fields import checked

if TYPE_CHECKING:
    from annotated_types import Le

    from alexnet_lab.base.ranges import NonNegativeInt, PositiveFloat, PositiveInt, UnitInterval


@checked("group")
def example(
    *,
    kind: Literal["a", "b"] = "a",
    side: Literal[1, 2] = 1,
    count: PositiveInt = 1,
    pixels: NonNegativeInt = 0,
    rate: UnitInterval = 0.0,
    scale: PositiveFloat = 1.0,
    part: Annotated[PositiveFloat, Le(1)] = 1.0,
    flag: bool = False,
    name: str = "",
    numbers: tuple[PositiveInt, ...] = (1,),
    words: list[str] | None = None,
    limit: float | None = None,
    other: Any = None,
) -> dict[str, Any]:
    """Has a parameter of each kind that a network may have."""
    return dict(locals())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "a"), ("side", 2), ("count", 1), ("pixels", 0), ("rate", 0), ("rate", 0.99), ("scale", 1e-9),
        ("part", 1), ("flag", False), ("name", ""), ("numbers", (1, 2)), ("words", None), ("words", ["x"]),
        ("limit", None), ("limit", -1), ("other", object()),
    ],
)  # fmt: skip
def test_what_fits_passes(name, value):
    assert example(**{name: value})[name] == value


def test_arguments_by_position_are_checked_too():
    @checked()
    def window(net: object, kernel: PositiveInt, *rest: int, stride: PositiveInt = 1) -> tuple[Any, ...]:
        return net, kernel, rest, stride

    assert window(window, 3, -1, -2, stride=2) == (window, 3, (-1, -2), 2)
    with pytest.raises(ConfigError, match=r"`kernel` is 3\.0 \(float\); allowed: integer"):
        window(window, 3.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="positional argument"):
        example(1)  # pyright: ignore[reportCallIssue]


def test_lists_and_whole_numbers_are_converted():
    given: Any = {"numbers": [3, 4], "words": ("x",), "rate": 0}
    made = example(**given)
    assert made["numbers"] == (3, 4)
    assert made["words"] == ["x"]
    assert repr(made["rate"]) == "0.0"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("kind", "c", "`group.kind` is 'c' (str); allowed: 'a' or 'b'"),
        ("side", 3, "`group.side` is 3 (int); allowed: 1 or 2"),
        ("side", True, "`group.side` is True (bool); allowed: 1 or 2"),
        ("count", 0, "`group.count` is 0 (int); allowed: greater than or equal to 1"),
        ("count", 1.0, "`group.count` is 1.0 (float); allowed: integer"),
        ("count", True, "`group.count` is True (bool); allowed: integer"),
        ("count", None, "`group.count` is None (NoneType); allowed: integer"),
        ("pixels", -1, "`group.pixels` is -1 (int); allowed: greater than or equal to 0"),
        ("rate", 1.0, "`group.rate` is 1.0 (float); allowed: less than 1"),
        ("scale", 0.0, "`group.scale` is 0.0 (float); allowed: greater than 0"),
        ("scale", float("nan"), "`group.scale` is nan (float); allowed: a finite number"),
        ("part", 1.5, "`group.part` is 1.5 (float); allowed: less than or equal to 1"),
        ("flag", 1, "`group.flag` is 1 (int); allowed: boolean"),
        ("name", 5, "`group.name` is 5 (int); allowed: string; a text that looks like a number needs quotes: "),
        ("numbers", 5, "`group.numbers` is 5 (int); allowed: list"),
        ("words", "ab", "`group.words` is 'ab' (str); allowed: list"),
        ("numbers", (1, 0), "`group.numbers.1` is 0 (int); allowed: greater than or equal to 1"),
        ("limit", "x", "`group.limit` is 'x' (str); allowed: number"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(name, value, message):
    with pytest.raises(ConfigError) as caught:
        example(**{name: value})
    assert str(caught.value).removesuffix("'group.name=\"5\"'") == message


def test_an_annotation_that_would_check_nothing_is_an_error():
    with pytest.raises(TypeError, match="annotate size with the names in"):

        @checked()
        def net(*, size: Count = 1): ...  # pyright: ignore[reportUndefinedVariable] # noqa: F821 - a name of no table
