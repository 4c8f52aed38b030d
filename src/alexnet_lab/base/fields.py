"""Checks fields: annotations become pydantic types, and errors become one line.

The config, the constructors and the files use it. `@checked` checks a constructor: its annotated keyword-only
parameters are also the schema of its config, which `alexnet_lab.config.signatures` reads from the source.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import reprlib
import shlex
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar, cast, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from alexnet_lab.base import ranges, shell
from alexnet_lab.base.errors import ConfigError, did_you_mean

__all__ = ["checked"]

P = ParamSpec("P")
T = TypeVar("T")

STRICT = ConfigDict(strict=True, allow_inf_nan=False)

BUILTINS = {kind.__name__: kind for kind in (bool, int, float, str, list, tuple, dict)}

NAMES: dict[str, Any] = {name: value for name, value in vars(ranges).items() if not name.startswith("_")} | {
    "__builtins__": BUILTINS,
    "typing": typing,
    **{name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union", "List", "Tuple", "Dict")},
}
"""The names that the annotation of a checked parameter may use. Parameters of other types are not checked."""

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 100
"""Formats any value in one line of a terminal."""


def checked(group: str = "") -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator that checks the arguments of a constructor or function against their annotations.

    Each keyword-only parameter needs an annotation that can be checked. Others may have any; they are checked if theirs
    can be.

    Args:
        group: A prefix for the names in messages: "data" reports `data.batch_size`.

    Example:
        >>> from typing import Literal
        >>> @checked("model")
        ... def net(*, kind: Literal["a", "b"] = "a"): ...
        >>> net(kind="c")
        Traceback (most recent call last):
        alexnet_lab.base.errors.ConfigError: `model.kind` is 'c' (str); allowed: 'a' or 'b'
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        parameters = inspect.signature(function).parameters
        annotations = function.__annotations__
        kinds = {name: resolve(annotations[name]) for name in parameters if name in annotations}
        unknown = [
            name
            for name, item in parameters.items()
            if item.kind == item.KEYWORD_ONLY and kinds[name] is Any and annotations[name] != "Any"
        ]
        if unknown:
            raise TypeError(f"{function}: annotate {', '.join(unknown)} with the names in {__name__}.NAMES, or as Any")

        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        in_order = [name for name, item in parameters.items() if item.kind in by_position]

        def check(name: str, value: Any) -> Any:
            kind = kinds.get(name, Any)
            return value if kind is Any else check_value(f"{group}.{name}" if group else name, value, kind)

        @functools.wraps(function)
        def call(*args: P.args, **fields: P.kwargs) -> T:
            places = [check(name, value) for name, value in zip(in_order, args, strict=False)]
            named: dict[str, Any] = {name: check(name, value) for name, value in fields.items()}
            return function(*places, *args[len(places) :], **named)  # pyright: ignore[reportCallIssue] - the same arguments

        return call

    return decorate


@cache
def resolve(annotation: str) -> Any:
    """The type of an annotation; Any if it uses other names than `NAMES`, or is no type."""
    try:
        found = eval(annotation, dict(NAMES))  # noqa: S307 - source code, with the names of the table above
        return resolve(found) if isinstance(found, str) else found
    except Exception:  # an annotation is any expression
        return Any


def can_be_checked(annotation: Any) -> bool:
    """Whether pydantic can check an annotation, which may be any object."""
    try:
        return not inspect.isfunction(annotation) and _adapter(annotation).pydantic_complete
    except Exception:  # of any kind: the object may be another package's
        return False


def check_value(key: str, value: Any, annotation: Any) -> Any:
    """Checks a value and converts it to its annotation.

    Lists become tuples, whole numbers become floats, and numbers of numpy become Python's; nothing else is converted.

    Raises:
        ConfigError: Names the key, the value and what is allowed.
    """
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():  # np.int64(10), as arrays give
        value = value.item()
    if isinstance(value, bool) and get_origin(annotation) is Literal:  # pydantic would take true for 1
        raise ConfigError(f"`{key}` is {value} (bool); allowed: {' or '.join(map(repr, get_args(annotation)))}")
    kinds = {get_origin(kind) or kind for kind in (annotation, *get_args(annotation))}
    if isinstance(value, list) and tuple in kinds:  # yaml has no tuples
        value = tuple(value)
    elif isinstance(value, tuple) and list in kinds:
        value = list(value)
    try:
        return _adapter(annotation).validate_python(value)
    except ValidationError as error:
        details = [{**detail, "loc": (key, *detail["loc"])} for detail in error.errors(include_url=False)]
        shown = list(value) if isinstance(value, tuple) else value
        raise ConfigError(explain_typed(cast("list[ErrorDetails]", details), {key: shown})) from None


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=STRICT)


class Wording(NamedTuple):
    """How an error message names things."""

    mapping: str = "a group of keys"
    show: Callable[[Any], str] = SHORT.repr


def explain(details: Sequence[ErrorDetails], raw: Any, wording: Wording = Wording()) -> str:  # noqa: B008 - frozen
    """The first of pydantic's errors in one line, with all alternatives that are allowed.

    Args:
        details: At least one.
        raw: The value that was checked.
        wording: How the message names things.
    """
    if details[0]["type"] == "missing":
        return f"`{'.'.join(map(str, details[0]['loc']))}` is missing"
    path, about = _deepest(details, raw)
    got, key = about[0]["input"], ".".join(map(str, path))
    if _branch(about[0]) == "[key]":
        if about[0]["type"] == "literal_error":
            return f"unknown key `{key}`; {did_you_mean(got, re.findall(QUOTED, about[0]['msg']))}"
        kind, parent = type(got).__name__, key.removesuffix(f".{got}")
        return f"`{got}` ({kind}) cannot be a key of `{parent}`; allowed: {_allowed(about[0], '', wording)}"
    both = {_branch(detail) for detail in about} >= set(BRANCHES)
    notes = [BRANCHES.get(_branch(detail), "") if both else "" for detail in about]
    allowed = " or ".join(
        dict.fromkeys(_allowed(detail, note, wording) for detail, note in zip(about, notes, strict=True))
    )
    return f"`{key or 'it'}` is {wording.show(got)} ({type(got).__name__}); allowed: {allowed}"


def explain_typed(details: Sequence[ErrorDetails], raw: Mapping[str, Any]) -> str:
    """`explain` for typed values: text that looks like a number needs quotes."""
    text, (path, about) = explain(details, raw), _deepest(details, raw)
    wants_text = any(detail["type"] == "string_type" for detail in about)
    typed = _to_type(path, raw) if wants_text and isinstance(about[0]["input"], bool | int | float) else None
    return text if typed is None else f"{text}; a text that looks like a number needs quotes: {typed}"


def _deepest(details: Sequence[ErrorDetails], raw: Any) -> tuple[tuple[str | int, ...], list[ErrorDetails]]:
    """The most specific key below that of the first error, and its errors: an item of a list beats the list."""
    keys = [_key(detail, raw) for detail in details]
    deepest = max((key for key in keys if key[: len(keys[0])] == keys[0]), key=len)
    return deepest, [detail for detail, key in zip(details, keys, strict=True) if key == deepest]


def _key(detail: ErrorDetails, raw: Any) -> tuple[str | int, ...]:
    """The path of an error, without the names that pydantic inserts for the branches of a union."""
    path: list[str | int] = []
    node = raw
    for part in detail["loc"]:
        keys: Any = range(len(node)) if isinstance(node, list) else node if isinstance(node, dict) else ()
        if part in keys:
            node = cast("Any", node)[part]
            path.append(part)
    return tuple(path)


def _to_type(path: tuple[str | int, ...], raw: Any) -> str | None:
    """What to type so that a key with numbers gets texts; None for deeper values."""
    path = path[:-1] if isinstance(path[-1], int) else path
    value = functools.reduce(lambda node, part: node[part], path, raw)
    key = ".".join(map(str, path))
    if isinstance(value, list):
        items = (shell.quoted(as_typed(item), chr(34)) for item in value)
        return shlex.quote(f"{key}=[{','.join(items)}]")
    return shell.to_type(key, as_typed(value)) if isinstance(value, bool | int | float) else None


def as_typed(value: Any) -> str:
    """A value as a user types it on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


QUOTED = r"'([^']+)'"
"""A choice in pydantic's message."""

BRANCHES = {"constrained-int": " (a whole number, such as 2)", "constrained-float": " (a share, such as 0.5)"}
"""Notes that distinguish a number of batches from a share of them, by pydantic's names of the two."""


def _branch(detail: ErrorDetails) -> str:
    """The alternative of a union that an error is about."""
    return str(next(reversed(detail["loc"]), ""))


def _allowed(detail: ErrorDetails, note: str, wording: Wording) -> str:
    if detail["type"] in ("model_type", "dict_type"):
        return wording.mapping
    if detail["type"] == "too_short":
        return "a list that is not empty"
    if detail["type"] == "tuple_type":
        return "list"
    text = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ").removeprefix("a valid ")
    text = re.sub(r"\d{20,}", lambda digits: f"{float(digits[0]):g}", text)
    text = text.removesuffix(", unable to parse string as a number")
    return text if detail["type"].endswith("_type") else text + note
