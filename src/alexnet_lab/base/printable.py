"""Makes texts from data (names of classes, files and runs) safe to display: nothing in them controls a terminal."""

from __future__ import annotations

import re
from typing import Any

COMMANDS = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0 and C1: escape sequences, line breaks, backspaces
    "\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"  # characters that reorder or hide text
    "\ud800-\udfff"  # bytes of a file name that are not UTF-8
    "\U000e0000-\U000e007f]"  # invisible tags
)


def printable(text: str) -> str:
    r"""The text in one line, with every control character escaped as Python does it.

    Example:
        >>> printable("cat\x1b[31m")
        'cat\\x1b[31m'
    """
    return COMMANDS.sub(_escaped, text)


def printable_lines(text: str) -> str:
    """`printable` for a text of several lines."""
    return "\n".join(printable(line) for line in text.split("\n"))


def printable_texts(value: Any) -> Any:
    """A copy of nested dictionaries and lists with printable texts and keys."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable_texts(key): printable_texts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [printable_texts(item) for item in value]
    return value


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode()
