"""Faults put into a file on purpose, and what became of each: reported in one line, or without effect."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alexnet_lab.base.errors import AlexNetLabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FLIPS = 100


class Tally(NamedTuple):
    """How many faults there were of each outcome; there is no third one."""

    reported: int
    harmless: int


def faults(content: bytes, other: bytes, flips: int = FLIPS) -> Iterator[tuple[str, bytes]]:
    """Name and content: emptied; cut at each power of two; one bit flipped at random; another file's content."""
    yield "emptied", b""
    size = 1
    while size < len(content):
        yield f"cut at {size}", content[:size]
        size *= 2
    rng = np.random.default_rng(len(content))
    for place in rng.integers(0, len(content), flips).tolist():
        flipped = bytearray(content)
        bit = int(rng.integers(8))
        flipped[place] ^= 1 << bit
        yield f"bit {bit} of byte {place} flipped", bytes(flipped)
    yield "replaced", other


def survey(
    path: Path,
    read: Callable[[], Any],
    *,
    other: bytes = b'{"format": 1, "seed": 0}\n',
    same: Callable[[Any, Any], bool] = lambda one, two: one == two,
    flips: int = FLIPS,
    naming: str | None = None,
) -> Tally:
    """Puts each fault into a file, reads it, and puts it right again; a directory in its place is the last fault.

    Args:
        path: Of the file.
        read: Reads it, the way that a run does; must be right before the first fault.
        other: What the file is replaced by.
        same: Whether two things that were read are equal.
        flips: How many bits are flipped, one at a time.
        naming: What each message names; None: the file.
    """
    content, right = path.read_bytes(), read()
    reported = harmless = 0
    for name, bad in faults(content, other, flips):
        path.write_bytes(bad)
        if _is_reported(read, right, same, naming or path.name, name):
            reported += 1
        else:
            harmless += 1
    path.unlink()
    path.mkdir()
    reported += _is_reported(read, right, same, naming or path.name, "unreadable")
    shutil.rmtree(path)
    path.write_bytes(content)
    assert same(read(), right)
    print(f"{path.name}: {reported} faults reported, {harmless} without effect")
    return Tally(reported, harmless)


def _is_reported(
    read: Callable[[], Any], right: Any, same: Callable[[Any, Any], bool], naming: str, fault: str
) -> bool:
    """Whether reading raised one of our errors that names the file; fails if it gave something else than before."""
    message = None
    found = None
    try:
        found = read()
    except AlexNetLabError as error:
        message = str(error)
    if message is not None:
        assert naming in message, f"{fault}: the message does not name {naming}: {message}"
        assert len(message) < 1000, f"{fault}: {message}"
        return True
    assert same(found, right), f"{fault}: was read, and is not what was written"
    return False
