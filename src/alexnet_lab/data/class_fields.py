"""Builds constructors from class attributes: a class states its fields once, a subclass only its differences."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, dataclass_transform

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.fields import SHORT, checked


@dataclass_transform(kw_only_default=True, eq_default=False)
class Fields:
    """Makes each annotated class attribute of a subclass a keyword-only field of its constructor.

    Works like `dataclasses.dataclass(kw_only=True)`, with inheritance. An attribute without annotation that has
    the name of an inherited field changes that field's default; any other one is a constant of the class. A field keeps
    its value once the object is made, unless `changeable` names it: others may have been computed from it.

    Args:
        group: The prefix of the fields in messages: "data" reports `data.batch_size`.

    Raises:
        ConfigError: A field of an object is set again.

    Example:
        >>> class Square(Fields):
        ...     side: int = 1
        ...     colour: str = "red"
        >>> class Tile(Square):
        ...     colour = "blue"
        >>> Tile(side=3).side, Tile().colour
        (3, 'blue')
    """

    changeable = ()
    _made = False

    def __init_subclass__(cls, group: str = "data") -> None:
        super().__init_subclass__()
        annotations = inspect.get_annotations(cls)
        inherited = fields(cls) if is_dataclass(cls) else ()
        changed = {field.name: field.type for field in inherited if field.name in vars(cls)}
        cls.__annotations__ = changed | annotations
        dataclass(kw_only=True, eq=False, repr=False)(cls)
        construct = checked(group)(cls.__init__)

        @functools.wraps(construct)
        def construct_and_keep(self: Any, *args: Any, **values: Any) -> None:
            construct(self, *args, **values)
            self._made = type(self) is cls or self._made  # not before the constructor of a subclass ends

        cls.__init__ = construct_and_keep  # pyright: ignore[reportAttributeAccessIssue] - set by dataclass

    def __setattr__(self, name: str, value: Any) -> None:
        if self._made and name not in self.changeable and name in {field.name for field in fields(self)}:  # pyright: ignore[reportArgumentType] - subclasses are dataclasses
            kind = type(self).__name__
            raise ConfigError(
                f"`{name}` of a {kind} cannot become {SHORT.repr(value)}, since other values follow from it; make "
                f"another {kind}"
            )
        super().__setattr__(name, value)

    def fields_beyond(self, base: type, *names: str) -> dict[str, object]:
        """The values of the fields that neither `base` nor `names` has, in the order of their names."""
        known = {*names, *(field.name for field in fields(base))}
        own = {field.name for field in fields(self)} - known  # pyright: ignore[reportArgumentType] - subclasses are dataclasses
        return {name: getattr(self, name) for name in sorted(own)}
