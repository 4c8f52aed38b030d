"""Keeps freed memory in the process: each training step needs as much again as the last one freed.

The C library returns large blocks to the system when they are freed, and gets them again page by page, each filled with
zeros. Training on a CPU frees and takes the same hundreds of megabytes in every step.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Constants of glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Makes this process keep the memory it frees, in large pages if available; does nothing outside Linux.

    torch requests large pages if this is called before torch is imported; so do processes started from here.
    """
    if not sys.platform.startswith("linux"):
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, -1)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Imports within the block take a fifth less time: the garbage collector does not look through their objects.

    torch and Lightning create a million objects that stay. The collector ignores them from then on.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
