"""Freed memory stays with the process: a training step wants as much again as the step before gave back.

The C library hands large pieces back to the system when they are freed, and gets them again page by page, each page
filled with zeros first. Training on a CPU frees and takes the same hundreds of megabytes in every step.
"""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Names of glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Makes this process keep what it frees, in large pages where the system has them; does nothing outside Linux.

    Large pages are asked for by torch, if this is called before torch is imported; so are those of processes that
    are started from here.
    """
    if not sys.platform.startswith("linux"):
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, -1)
