"""Reads records (JSON objects) and tables from disk and checks them against a schema.

They are data that anybody may have edited or sent. Whatever a file contains, the reader returns what the schema allows,
or raises a one-line error that names the file and the problem.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, NoReturn

import yaml
from annotated_types import Ge, Le, MaxLen
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from alexnet_lab.base.errors import RunError, one_line
from alexnet_lab.base.fields import Wording, explain

MOST_BYTES = 64 * 2**20
"""The largest file: a run of a thousand epochs with all columns writes 2 MB."""

LARGEST = 1e50
"""The largest number: float32 ends at 3.4e38, and the square of a number must not overflow."""

Number = Annotated[float, Ge(-LARGEST), Le(LARGEST)]
"""A finite number that can be averaged."""

Amount = Annotated[float, Ge(0), Le(1e12)]
"""A number >= 0 that counts or measures something: seconds, images per second."""

Total = Annotated[int, Ge(0), Le(10**15)]
"""A number of things: epochs, steps, parameters."""


def _name(text: str) -> str:
    if not text or text != one_line(text) or not text.isprintable():
        raise ValueError("a name of printable characters")
    return text


Name = Annotated[str, MaxLen(200), AfterValidator(_name)]
"""The name of a metric, a package or a job."""


class Schema(BaseModel):
    """The fields of a record: no silent conversion, no NaN or infinity; fields of other versions are kept."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, defer_build=True)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        FileNotFoundError: There is none.
        RunError: It is no regular file, too large, not JSON (which has no NaN or infinity), nested too deeply, or
            contains text that is not Unicode.
    """
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def parse_json(text: str) -> Any:
    """Parses a JSON text; raises ValueError if other programs could not read it."""
    try:
        value = json.loads(text, parse_constant=_no_number)
        _check_depth(value, DEEPEST)
        json.dumps(value, ensure_ascii=False).encode()  # fails for half a surrogate pair
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it contains text that is not Unicode") from None
    return value


def read_yaml(path: Path) -> Any:
    """Reads a YAML file of plain values, with limits for nesting and for repetition by aliases.

    The size counts all aliases written out, and is checked before any value is created: a few hundred bytes of nested
    aliases or merges stand for millions of values.

    Raises:
        FileNotFoundError: There is none.
        RunError: It cannot be read, is not YAML of plain values, or is too large or nested too deeply.
    """
    text = read_text(path)
    try:
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"it is longer than {MOST_CHARACTERS:,} characters")
        return _plain_yaml(text)
    except RecursionError:
        raise RunError(f"{path} cannot be read: it is nested too deeply") from None
    except (ValueError, yaml.YAMLError) as error:  # ValueError: also an impossible date
        raise RunError(f"{path} cannot be read: {one_line(error)}") from error


def _check_events(text: str, kind: type[yaml.SafeLoader]) -> None:
    """Stops at the first sign of excess: PyYAML takes minutes for 100,000 brackets or list items."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, kind)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RecursionError
        if count > MOST_VALUES:
            raise ValueError(f"it contains more than {MOST_VALUES:,} values")


def _plain_yaml(text: str) -> Any:
    kind = _loader(text)
    _check_events(text, kind)
    loader = kind(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        size, depth = _extent(root, {})
        if depth > DEEPEST:  # because of aliases
            raise RecursionError
        if size > MOST_VALUES:
            raise ValueError(f"its aliases stand for more than {MOST_VALUES:,} values")
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _extent(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """The number of values in a node, aliases written out, and their depth.

    Each node is visited once; one that contains itself raises RecursionError.
    """
    if id(node) not in known:
        known[id(node)] = 0, DEEPEST + 1  # until its parts are counted, for a node that contains itself
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        inner = [] if isinstance(node, yaml.ScalarNode) else [_extent(part, known) for part in parts]
        known[id(node)] = 1 + sum(size for size, _ in inner), 1 + max((depth for _, depth in inner), default=0)
    return known[id(node)]


def _loader(text: str) -> type[yaml.SafeLoader]:
    """That of libyaml, if PyYAML was built with it and it can read the text.

    A report of 2,000 runs reads 2,000 configs, and PyYAML's own takes 50 ms for one.
    """
    return yaml.SafeLoader if HALF.search(text) else getattr(yaml, "CSafeLoader", yaml.SafeLoader)


HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""Half of a surrogate pair, which stands for a byte of a file name that is no text; libyaml refuses it."""

MOST_CHARACTERS = 2**18
"""The longest YAML file; a config has 3,000 characters."""

MOST_VALUES = 20_000
"""The most values of a YAML file; a config has 200."""

DEEPEST = 50
"""The most levels of a record; ours have 5."""


def _check_depth(value: Any, room: int) -> None:
    if room == 0:
        raise RecursionError
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(item, room - 1)


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number in JSON")


def read_text(path: Path, errors: str = "strict") -> str:
    """Reads a text file in UTF-8; raises FileNotFoundError and RunError like `read_json`."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RunError(f"{path} cannot be read: it is larger than {MOST_BYTES // 2**20} MiB")
        if not path.is_file() and not path.is_dir():  # reading a pipe would block
            raise RunError(f"{path} cannot be read: it is no regular file")
        return path.read_text(encoding="utf-8", errors=errors)
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        raise RunError(f"{path} cannot be read: it is no text in UTF-8 ({error.reason})") from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error


def check_record(schema: type[BaseModel], value: Any, path: Path | str) -> dict[str, Any]:
    """Checks a record against a schema and adds defaults for missing fields.

    Args:
        schema: Of the record.
        value: The record.
        path: Of the file, for the message.

    Raises:
        RunError: Names the first wrong field, its value and what is allowed.
    """
    try:
        return schema.model_validate(value).model_dump()
    except ValidationError as error:
        wording = Wording("a record of fields", _short)
        raise RunError(f"{path} cannot be read: {explain(error.errors(include_url=False), value, wording)}") from None


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool | None) else "..."
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


SHOWN = 60
"""The most characters of a wrong value in a message."""


def read_rows(path: Path) -> list[dict[str, str]]:
    """Reads the rows of a CSV file of numbers as text: each cell is a number, NaN, an infinity, or empty.

    Returns:
        The rows; none if there is no file.

    Raises:
        RunError: It cannot be read, a row has another length than the head, or a cell has no number.
    """
    try:
        lines = list(csv.reader(io.StringIO(read_text(path), newline=""), strict=True))
    except FileNotFoundError:
        return []
    except csv.Error as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    head, *rows = lines or [[]]
    if len(set(head)) < len(head) or any(name != one_line(name) or not name for name in head):
        raise RunError(f"{path} cannot be read: its columns have no names, or two have the same")
    for number, row in enumerate(rows, start=2):
        _check_row(f"{path} cannot be read: line {number}", head, row)
    return [dict(zip(head, row, strict=True)) for row in rows]


def _check_row(place: str, head: list[str], row: list[str]) -> None:
    if len(row) != len(head):
        raise RunError(f"{place} has {len(row)} cells, not {len(head)}")
    for name, cell in zip(head, row, strict=True):
        try:
            value = number(cell)
        except ValueError:
            raise RunError(f"{place}: `{name}` is {_short(cell)}; allowed: a number") from None
        if value is not None and abs(value) > LARGEST:
            raise RunError(f"{place}: `{name}` is {_short(cell)}; allowed: numbers up to {LARGEST:g}")
        if name in WHOLE and (value is None or value < 0 or value % 1):
            raise RunError(f"{place}: `{name}` is {_short(cell)}; allowed: whole numbers from 0")


WHOLE = ("epoch",)
"""Columns with a whole number in each row."""


def number(cell: str) -> float | None:
    """The number in a cell; None for an empty cell and for NaN or infinity."""
    value = float(cell) if cell else math.nan
    return value if math.isfinite(value) else None
