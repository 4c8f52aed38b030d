"""The files in tar archives, read in place: nothing is unpacked."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alexnet_lab.base.errors import DataError
from alexnet_lab.base.files import stamp
from alexnet_lab.data.images import decoded
from alexnet_lab.data.source_files import DIGEST_BYTES, SourceFiles, digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    offset: int  # of its content, in bytes from the start of the archive
    size: int  # bytes


def members(archive: Path) -> list[Member]:
    """The files of a tar archive, in its order; only headers are read.

    Raises:
        DataError: It cannot be read, is no tar archive, or is cut short.
    """
    with _opened(archive) as file:
        return list(_members(file, 0))


def nested_members(archive: Path) -> dict[str, list[Member]]:
    """The files of each tar archive in a tar archive, by the name of the inner one; offsets count in the outer one.

    Raises:
        DataError: As `members`, of the outer or an inner archive.
    """
    with _opened(archive) as file:
        return {inner.name: list(_members(file, inner.offset)) for inner in list(_members(file, 0))}


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[BinaryIO]:
    """The opened archive; within the block, its faults become DataError."""
    try:
        file = archive.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {archive} ({error.strerror or error})") from error
    try:
        with file:
            yield file
    except (tarfile.TarError, OSError, EOFError) as error:
        size = archive.stat().st_size
        raise DataError(
            f"{archive} is no whole tar archive ({error}; it has {size:,} bytes); download it again"
        ) from error


def _members(file: BinaryIO, start: int) -> Iterator[Member]:
    """The files of the archive that starts at a byte of a file."""
    size = os.fstat(file.fileno()).st_size
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if member.isfile():
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"{member.name} is cut short")
                yield Member(member.name, member.offset_data, member.size)


class ArchivedFiles(SourceFiles):
    """Files in archives below a folder; a name is that of its archive, a slash, and its own.

    A file's state is its size, the times of its archive, and its place there instead of an inode.
    """

    def opened(self, row: int) -> io.BytesIO:
        """The content of a file; raises OSError if it cannot be read."""
        with (self.root / self.names[row].partition("/")[0]).open("rb") as file:
            file.seek(int(self.states[row, 3]))
            return io.BytesIO(file.read(int(self.states[row, 0])))

    def image(self, row: int, size: int, channels: int) -> NDArray[np.uint8]:
        """Decodes a file to (channels, size, size), and adds its digest."""
        content = self.opened(row)
        self.digests[row] = digest_of(content)
        content.seek(0)
        return decoded(content, size, channels)


def archived_files(root: Path, files: Sequence[tuple[str, Member]]) -> ArchivedFiles:
    """The state of files in archives.

    Args:
        root: The folder of the archives.
        files: The name of its archive, and the file.
    """
    seen_ns = time.time_ns()
    stamps = {archive: stamp((root / archive).stat()) for archive in {archive for archive, _ in files}}
    states = [(member.size, *stamps[archive][1:3], member.offset) for archive, member in files]
    names = [f"{archive}/{member.name}" for archive, member in files]
    table = np.array(states, dtype=np.int64).reshape(-1, 4)
    return ArchivedFiles(root, names, table, np.zeros((len(names), DIGEST_BYTES), np.uint8), seen_ns)
