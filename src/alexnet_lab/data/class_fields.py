"""Builds constructors from class attributes: a class states its fields once, a subclass only its differences."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields, is_dataclass
from typing import dataclass_transform

from alexnet_lab.base.fields import checked


@dataclass_transform(kw_only_default=True, eq_default=False)
class Fields:
    """Makes each annotated class attribute of a subclass a keyword-only field of its constructor.

    Works like `dataclasses.dataclass(kw_only=True)`, with inheritance. An attribute without annotation that has
    the name of an inherited field changes that field's default; any other one is a constant of the class.

    Args:
        group: The prefix of the fields in messages: "data" reports `data.batch_size`.

    Example:
        >>> class Square(Fields):
        ...     side: int = 1
        ...     colour: str = "red"
        >>> class Tile(Square):
        ...     colour = "blue"
        >>> Tile(side=3).side, Tile().colour
        (3, 'blue')
    """

    def __init_subclass__(cls, group: str = "data") -> None:
        super().__init_subclass__()
        annotations = inspect.get_annotations(cls)
        inherited = fields(cls) if is_dataclass(cls) else ()
        changed = {field.name: field.type for field in inherited if field.name in vars(cls)}
        cls.__annotations__ = changed | annotations
        dataclass(kw_only=True, eq=False, repr=False)(cls)
        cls.__init__ = checked(group)(cls.__init__)  # pyright: ignore[reportAttributeAccessIssue] - set by dataclass

    def fields_beyond(self, base: type, *names: str) -> dict[str, object]:
        """The values of the fields that neither `base` nor `names` has, in the order of their names."""
        known = {*names, *(field.name for field in fields(base))}
        own = {field.name for field in fields(self)} - known  # pyright: ignore[reportArgumentType] - subclasses are dataclasses
        return {name: getattr(self, name) for name in sorted(own)}
