"""Writes an array of images to disk in their order, with a journal from which a later process continues."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexnet_lab.base.cores import available_cores
from alexnet_lab.base.read_ahead import read_ahead
from alexnet_lab.data.preparation_bar import progress_bar

SHARD_BYTES = 1 << 26
"""Of images with one checksum."""


class Entry(NamedTuple):
    """A line of the journal: a shard that is written."""

    read: int  # images of the source that are done, from the first on
    checksum: int  # CRC-32 of the shard
    failures: dict[str, str]  # of the images between the previous entry and this one: number -> reason
    digests: str  # of their source files, in hexadecimal; empty where a source has none


def npy_header(count: int, shape: tuple[int, ...]) -> bytes:
    """What `numpy.save` writes before the bytes of a uint8 array (count, *shape)."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)})
    return stream.getvalue()


def damage_of_shards(path: Path, shards: dict[str, Any]) -> str | None:
    """Compares an array on disk with its entry in meta.json, in threads, and shows the progress.

    Returns:
        The first damage that is found, in words; None if the header and all shards are intact.
    """
    header, expected = npy_header(shards["count"], tuple(shards["shape"])), shards["crc32"]

    def is_sound(number: int) -> bool:
        with path.open("rb") as file:
            file.seek(len(header) + number * shards["bytes"])
            return zlib.crc32(file.read(shards["bytes"])) == expected[number]

    with path.open("rb") as file:
        if file.read(len(header)) != header:
            return "its header differs"
    cores = available_cores()
    found = read_ahead(is_sound, range(len(expected)), cores, cores)
    with contextlib.closing(found), progress_bar(f"verifying {path.name}", shards["count"]) as advance:
        for number, sound in enumerate(found):
            if not sound:
                return _described(number, shards)
            advance(len(_images(number, shards)))
    return None


def _described(number: int, shards: dict[str, Any]) -> str:
    """Names a damaged shard, if there are several."""
    many, rows = len(shards["crc32"]), _images(number, shards)
    if many == 1:
        return "its checksum differs"
    return f"the checksum of shard {number + 1:,} of {many:,} differs: images {rows[0]:,} to {rows[-1]:,}"


def _images(number: int, shards: dict[str, Any]) -> range:
    """The rows of the images in a shard."""
    count = shards["bytes"] // math.prod(shards["shape"])
    return range(number * count, min((number + 1) * count, shards["count"]))


class ArrayWriter:
    """The images of one part of a store, on their way to `<part>_images.npy`.

    Args:
        folder: Of the array and of the journal `<part>_images.jsonl`.
        name: Of the part.
        count: Images in the source.
        shape: Of an image, (C, S, S).
        digests: (count, 16), filled in when an image's file is decoded; None where there are no files.

    Attributes:
        read: Images of the source that are done.
        failures: Number -> reason of those of them that could not be read.
        checksums: CRC-32 of each shard.
    """

    def __init__(
        self, folder: Path, name: str, count: int, shape: tuple[int, ...], digests: NDArray[np.uint8] | None = None
    ) -> None:
        self.path = folder / f"{name}_images.npy"
        self.journal = folder / f"{name}_images.jsonl"
        self.read = self._noted = 0
        self.failures: dict[int, str] = {}
        self.checksums: list[int] = []
        self._count, self._shape, self._digests = count, shape, digests
        images = max(1, SHARD_BYTES // math.prod(shape))
        self._shard_bytes = images * math.prod(shape)
        self._shard = np.empty((min(images, max(count, 1)), *shape), np.uint8)
        self._filled = 0  # images of it
        self._sha = hashlib.sha256(npy_header(count, shape))

    @property
    def kept(self) -> int:
        """The images that could be read."""
        return self.read - len(self.failures)

    @contextlib.contextmanager
    def open(self, unchanged: int, *, accept_failures: bool) -> Iterator[None]:
        """Opens the array for the block; continues after its last sound shard of images that have not changed.

        Args:
            unchanged: Images, from the first on, that the source still has as they were.
            accept_failures: False: decode again from the first shard on that lacks an image.

        Raises:
            OSError: The disk is full, or the folder cannot be written.
        """
        header = npy_header(self._count, self._shape)
        self.path.touch()
        with self.path.open("r+b") as self._file:
            self._file.write(header)
            _reserve(self._file.fileno(), len(header) + self._count * math.prod(self._shape))
            lines = self._sound_lines(unchanged, accept_failures)
            self._file.seek(len(header) + len(lines) * self._shard_bytes)
            self.journal.write_text("".join(lines), encoding="utf-8")
            with self.journal.open("a", encoding="utf-8") as self._lines:
                yield

    def add(self, found: NDArray[np.uint8] | str) -> None:
        """Takes the next image of the source (C, S, S), or the reason why it cannot be read."""
        if isinstance(found, str):
            self.failures[self.read] = found
        else:
            self._shard[self._filled] = found
            self._filled += 1
        self.read += 1
        if self._filled * math.prod(self._shape) == self._shard_bytes:
            self._write_shard()

    def finish(self) -> dict[str, Any]:
        """Completes the array; returns its entry in meta.json."""
        if self._filled:
            self._write_shard()
        self._file.truncate()
        if self.kept != self._count:
            self._file.seek(0)
            self._file.write(npy_header(self.kept, self._shape))
            self._file.seek(0)
            self._sha = hashlib.file_digest(self._file, "sha256")
        self._file.flush()
        shards = {"count": self.kept, "shape": list(self._shape), "bytes": self._shard_bytes, "crc32": self.checksums}
        return {"bytes": self.path.stat().st_size, "sha256": self._sha.hexdigest(), "shards": shards}

    def _write_shard(self) -> None:
        shard = self._shard[: self._filled].data
        self._file.write(shard)
        self._file.flush()
        self._sha.update(shard)
        self.checksums.append(zlib.crc32(shard))
        failures = {str(row): reason for row, reason in self.failures.items() if row >= self._noted}
        digests = "" if self._digests is None else self._digests[self._noted : self.read].tobytes().hex()
        self._lines.write(json.dumps(Entry(self.read, self.checksums[-1], failures, digests)) + "\n")
        self._lines.flush()
        self._noted = self.read
        self._filled = 0

    def _sound_lines(self, unchanged: int, accept_failures: bool) -> list[str]:
        """The lines of the journal whose shards are on disk, up to the first that is not."""
        lines = []
        for line, entry in _entries(self.journal):
            shard = self._file.read(self._shard_bytes)
            refused = entry.read > unchanged or (entry.failures and not accept_failures)
            if refused or zlib.crc32(shard) != entry.checksum:
                break
            if self._digests is not None:
                self._digests[self.read : entry.read] = np.frombuffer(bytes.fromhex(entry.digests), np.uint8).reshape(
                    -1, self._digests.shape[1]
                )
            self._sha.update(shard)
            self.checksums.append(entry.checksum)
            self.failures |= {int(row): reason for row, reason in entry.failures.items()}
            self.read = self._noted = entry.read
            lines.append(line)
        return lines


def _entries(journal: Path) -> Iterator[tuple[str, Entry]]:
    """The lines of a journal, up to the first that was not written whole."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        for line in journal.read_text(encoding="utf-8").splitlines(keepends=True):
            yield line, Entry(*json.loads(line))


def _reserve(handle: int, size: int) -> None:
    """Reserves the disk space now: a disk that is too small is reported before hours of work."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
