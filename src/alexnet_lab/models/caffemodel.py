"""Reads the arrays of a `.caffemodel`, which is a protocol buffer, without Caffe: numbers, no code.

Wire format: a message is a sequence of fields, each a key (field number * 8 + type) and a value. Field numbers are
those of caffe.proto: NetParameter has `layers` (2, V1LayerParameter, as bvlc_alexnet.caffemodel) or `layer` (100,
LayerParameter). A blob has its numbers in `data` (5) or `double_data` (8), and its shape in `shape` (7) or in `num`,
`channels`, `height` and `width` (1 to 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alexnet_lab.base.errors import RunError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Types of values."""


class LayerKind(NamedTuple):
    """The field numbers of a kind of layer message."""

    name: int
    blobs: int


LAYERS = {2: LayerKind(name=4, blobs=6), 100: LayerKind(name=1, blobs=7)}
"""By the field of NetParameter that holds them."""

Value = int | memoryview


def read_caffemodel(path: Path) -> dict[str, list[np.ndarray]]:
    """The arrays of each layer that has any, by the layer's name, in Caffe's layout.

    Raises:
        RunError: The file cannot be read, is damaged, or is no such file.
    """
    try:
        content = memoryview(path.read_bytes())
        layers = [_layer(value, LAYERS[field]) for field, value in _messages(content) if field in LAYERS]
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, IndexError) as error:
        raise RunError(f"{path} is damaged, or no .caffemodel: {error}") from error
    found = {name: blobs for name, blobs in layers if blobs}
    if not found:
        raise RunError(f"{path} is no .caffemodel with weights")
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """The fields of a message: numbers as int, everything else as bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        size = {FIXED64: 8, FIXED32: 4}.get(kind, -1)
        if kind == BYTES:
            size, place = _varint(message, place)
        if size < 0 or place + size > len(message):
            raise ValueError("a field is cut short")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of up to 64 bits, seven to a byte, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number is too long")


def _messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    return ((field, value) for field, value in _fields(message) if isinstance(value, memoryview))


def _layer(message: memoryview, kind: LayerKind) -> tuple[str, list[np.ndarray]]:
    fields = list(_messages(message))
    name = next((bytes(value).decode() for field, value in fields if field == kind.name), "")
    return name, [_blob(value) for field, value in fields if field == kind.blobs]


def _blob(message: memoryview) -> np.ndarray:
    """One array; single numbers and packed ones may be mixed."""
    fields = list(_fields(message))
    parts = [np.frombuffer(value, "<f4") for field, value in fields if field == 5 and isinstance(value, memoryview)]
    parts += [np.frombuffer(value, "<f8") for field, value in fields if field == 8 and isinstance(value, memoryview)]
    numbers = np.concatenate(parts).astype(np.float32) if parts else np.empty(0, np.float32)
    shapes = [_shape(value) for field, value in fields if field == 7 and isinstance(value, memoryview)]
    legacy = [value for number in (1, 2, 3, 4) for field, value in fields if field == number and isinstance(value, int)]
    return numbers.reshape(shapes[0] if shapes else legacy)


def _shape(message: memoryview) -> list[int]:
    """BlobShape: `dim` (1), packed or one by one."""
    sides: list[int] = []
    for field, value in _fields(message):
        if field == 1 and isinstance(value, int):
            sides.append(value)
        elif field == 1:
            place, packed = 0, memoryview(value)  # pyright: ignore[reportArgumentType] - bytes here
            while place < len(packed):
                side, place = _varint(packed, place)
                sides.append(side)
    return sides
