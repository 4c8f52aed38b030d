"""Gives layers of a network another `forward`, by a mixin before their class: weights and names stay."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


@cache
def with_mixin(mixin: type[nn.Module], kind: type[Layer]) -> type[Layer]:
    """The subclass of both, under the name of `kind`; its objects can be pickled and copied."""
    fields = {"__module__": kind.__module__, "__reduce_ex__": _reduce}
    return cast("type[Layer]", type(kind.__name__, (mixin, kind), fields))


def _reduce(layer: nn.Module, _protocol: int) -> tuple[Any, ...]:
    """What pickle stores of a layer, whose class has no place in a module."""
    return _blank, type(layer).__bases__, layer.__getstate__()


def _blank(mixin: type[nn.Module], kind: type[nn.Module]) -> nn.Module:
    made = with_mixin(mixin, kind)
    return made.__new__(made)
