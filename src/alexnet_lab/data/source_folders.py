"""Tells in a few calls that a large folder of images is unchanged: `folders.npz` in the store's folder.

A source of up to `MANY` files is looked up file by file at each start (see `source_files`). Of a larger one, a start
looks up the folders, whose times change when a file in them is added, removed, renamed or replaced, and a sample of the
files. If these have their recorded states, nothing is listed. A single file that was overwritten in place may be
missed; `data.verify=full` looks up all files.
"""

from __future__ import annotations

import logging
import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from alexnet_lab.base.files import atomic_path
from alexnet_lab.data.source_files import joined, read_arrays, states_of, too_fresh

if TYPE_CHECKING:
    from pathlib import Path

    from alexnet_lab.data.source_files import SourceFiles
    from alexnet_lab.data.store import Contents

log = logging.getLogger(__name__)

NAME = "folders.npz"
"""The file name in a store's folder."""

MANY = 1 << 16
"""Files that take 0.2 s to look up on a local disk; CIFAR-10 has 60,000."""

SAMPLE = 1 << 12
"""Files of a larger source that are looked up, spread evenly: they reveal that a whole data set was converted."""


def remember(folder: Path, contents: Contents) -> None:
    """Records the folders and the sample of a large source in the store at `folder`; nothing of a small one."""
    files = contents.files
    if files is None or len(files.names) <= MANY:
        return
    names = _watched(files, sum(len(part.labels) for part in contents.parts.values()))
    table = {"names": np.frombuffer(joined(names), np.uint8), "states": states_of(files.root, names, folders=True)}
    try:
        with atomic_path(folder / NAME) as part, part.open("wb") as file:
            np.savez(file, seen_ns=np.int64(files.seen_ns), **table)
    except OSError as error:  # read-only: the next start looks up all files
        log.debug("%s was not written: %s", folder / NAME, error)


def is_unchanged(folder: Path, root: Path) -> bool:
    """Whether the source below `root` is that of the store at `folder`; False if only a look at all files can tell."""
    table = read_arrays(folder / NAME)
    if table is None or not {"names", "states", "seen_ns"} <= table.keys():
        return False
    names = os.fsdecode(table["names"].tobytes()).split("\0")
    fresh = too_fresh(table["states"], int(table["seen_ns"])).any()
    return not fresh and np.array_equal(states_of(root, names, folders=True), table["states"])


def _watched(files: SourceFiles, images: int) -> list[str]:
    """The names of the folders, of the sample, and of the files that are no images; the first names are the images."""
    folders = {os.path.dirname(name) for name in files.names}  # noqa: PTH120 - a million Path objects take seconds
    folders |= {str(parent) for folder in folders for parent in PurePosixPath(folder).parents}
    sample = np.linspace(0, images - 1, min(images, SAMPLE)).astype(int)
    return [*sorted(folders), *(files.names[int(row)] for row in sample), *files.names[images:]]
