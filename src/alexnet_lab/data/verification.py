"""Verifies every byte of a store once; a stamp in its folder records this until the store changes.

`data.verify=full` and `python -m alexnet_lab.data.verification data/store/*` verify a store whatever its stamp.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from pathlib import Path

from alexnet_lab.base.checked_files import read_json
from alexnet_lab.base.errors import ConfigError, DataError, RunError
from alexnet_lab.base.files import stamp, write_json
from alexnet_lab.data.store import Store, open_store

log = logging.getLogger(__name__)

NAME = ".verified.json"
"""The file in the store's folder with size, inode and times of each file when its SHA-256 was right."""

TICK_SECONDS = 0.05
"""Files that change within this time may have the same time stamp."""


def verified_store(path: Path, *, again: bool = False) -> Store:
    """Opens the store at `path`, and checks the SHA-256 of each file unless it was checked since the last change.

    Args:
        path: Of the store.
        again: Check in any case.

    Raises:
        DataError: There is no store, or it is damaged.
    """
    store = open_store(path, verify=False)
    files = [path / "meta.json", *(path / name for name in store.meta["files"])]
    if not again and _remembered(path) == _stamps(files):
        return store
    time.sleep(min(TICK_SECONDS, max(0.0, max(file.stat().st_mtime for file in files) + TICK_SECONDS - time.time())))
    before = _stamps(files)
    store = _read_whole(path)
    if _stamps(files) == before:
        with contextlib.suppress(OSError):  # a read-only folder is checked again next time
            write_json(path / NAME, before)
    if again:
        log.info("every byte of %s is intact (%s bytes)", path, f"{sum(file.stat().st_size for file in files):,}")
    return store


def _read_whole(path: Path) -> Store:
    """Opens a store and verifies it; later starts do not trust a damaged one either, whatever its stamp."""
    try:
        return open_store(path, verify=True)
    except DataError:
        with contextlib.suppress(OSError):
            (path / NAME).unlink()
        raise


def _stamps(files: list[Path]) -> dict[str, list[int]]:
    return {file.name: list(stamp(file.stat())) for file in files}


def _remembered(path: Path) -> object:
    try:
        return read_json(path / NAME)
    except (OSError, RunError):
        return None


def main(paths: list[str]) -> int:
    """Verifies stores and prints one line for each; returns the exit code."""
    if not paths:
        print("usage: python -m alexnet_lab.data.verification data/store/*", file=sys.stderr)
        return ConfigError.exit_code
    failed = False
    for path in paths:
        try:
            store = verified_store(Path(path), again=True)
        except DataError as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
        else:
            print(f"{path}: {sum(len(labels) for labels in store.labels.values()):,} images, intact")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
