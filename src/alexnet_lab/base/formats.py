"""Formats times, counts and p values for readers, and divides text into sentences."""

from __future__ import annotations

import re

SENTENCE = re.compile(r"(?<=\.)(?<!\bsec\.)(?<!\bal\.)\s+(?=[A-Z0-9`])")
"""Between two sentences of a header."""


def duration(seconds: float | None) -> str:
    """A time in words; empty for None.

    Example:
        >>> duration(42.3), duration(754), duration(7300)
        ('42 s', '12 min 34 s', '2 h 2 min')
    """
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "run"), counted(0, "run"), counted(1200, "image"), counted(3, "class"), counted(2, "batch")
        ('1 run', '0 runs', '1,200 images', '3 classes', '2 batches')
    """
    ending = "" if number == 1 else "es" if noun.endswith(("s", "tch")) else "s"
    return f"{number:,} {noun}{ending}"


def p_value(p: float | None) -> str:
    """A p value with three decimals; empty for None and NaN.

    Example:
        >>> p_value(0.0312), p_value(0.00002), p_value(None)
        ('0.031', '<0.001', '')
    """
    if p is None or p != p:  # noqa: PLR0124 - NaN
        return ""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"
