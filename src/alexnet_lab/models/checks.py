"""What constructors ask of their fields, so that Python users get the lines that config users get."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from alexnet_lab.base import ranges
from alexnet_lab.base.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

_NAMES = {**vars(ranges), "Literal": Literal}  # what an annotation may be made of


def check_fields(function: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Holds values against the annotations of the parameters that they are meant for.

    Args:
        function: A constructor or a function.
        values: By parameter name, such as `locals()` at its start; other names are left alone.

    Raises:
        ConfigError: For the first value outside its choices, its type or its range.
    """
    annotations = {name: hint for name, hint in function.__annotations__.items() if name in values}
    asked = types.SimpleNamespace(__annotations__=annotations)  # the return type may name what is not imported
    for name, hint in typing.get_type_hints(asked, localns=_NAMES, include_extras=True).items():
        _check(name, hint, values[name])


def _check(name: str, hint: Any, value: Any) -> None:
    """One value against one annotation."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is not None or type(None) not in inner:
            _check(name, next(arm for arm in inner if arm is not type(None)), value)
    elif origin is Literal:
        _check_choice(name, value, inner)
    elif origin is Annotated:
        _check(name, inner[0], value)
        _check_range(name, value, inner[1:])
    elif origin in (tuple, list):
        _check_items(name, inner[0], value)
    else:
        _check_type(name, hint, value)


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return
    if all(isinstance(choice, str) for choice in choices):
        raise ConfigError(f"unknown {name}={value}; {did_you_mean(str(value), choices)}")
    raise ConfigError(f"unknown {name}={value}; allowed: {', '.join(map(str, choices))}")


def _check_range(name: str, value: float, bounds: tuple[Any, ...]) -> None:
    for bound in bounds:
        word, limit, holds = _bound(bound, value)
        if not holds:
            raise ConfigError(f"{name}={value} is out of range: it must be {word} {limit}")


def _bound(bound: Any, value: float) -> tuple[str, Any, bool]:
    """One bound in words, its limit, and whether the value keeps it."""
    if isinstance(bound, Ge):
        return "at least", bound.ge, value >= bound.ge  # pyright: ignore[reportOperatorIssue] - plain numbers here
    if isinstance(bound, Gt):
        return "above", bound.gt, value > bound.gt  # pyright: ignore[reportOperatorIssue] - plain numbers here
    if isinstance(bound, Le):
        return "at most", bound.le, value <= bound.le  # pyright: ignore[reportOperatorIssue] - plain numbers here
    if isinstance(bound, Lt):
        return "below", bound.lt, value < bound.lt  # pyright: ignore[reportOperatorIssue] - plain numbers here
    raise TypeError(f"bound {bound} is not one of those in alexnet_lab.base.ranges")


def _check_items(name: str, hint: Any, value: Any) -> None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"{name}={value} must be a list")
    for item in value:
        _check(name, hint, item)


def _check_type(name: str, kind: type, value: Any) -> None:
    """Numbers are finite, whole numbers may stand for fractions, and truth values for nothing but themselves."""
    words = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        fits = math.isfinite(value)
    else:
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not fits:
        raise ConfigError(f"{name}={value} must be {words[kind]}")


def check_images(images: torch.Tensor, expected: tuple[int, int, int]) -> None:
    """Refuses a batch that the network was not built for.

    Args:
        images: What `forward` was given, (B, C, H, W).
        expected: (C, H, W) of the constructor's fields.

    Raises:
        ConfigError: With both shapes.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != expected:
        wanted = " x ".join(str(side) for side in expected)
        raise ConfigError(
            f"the network was built for batches of {wanted} (channels x height x width) and got a tensor of shape "
            f"{tuple(images.shape)}; set in_channels and image_size to what the data have"
        )
