"""The package's Triton kernels, compiled by Triton on first use and cached for later runs.

Everything in Triton here is also written in torch. If compiling fails, the torch version is used, and the log says so.
"""

from __future__ import annotations

import importlib
import logging
import subprocess

import torch
from torch import Tensor

from alexnet_lab.base.errors import one_line

log = logging.getLogger(__name__)

MESSAGE_LENGTH = 200
"""Of the compiler's message, which can be a page."""


class Kernels:
    """The functions of a module that launches Triton kernels. After a failure to compile they are not tried again.

    Args:
        module: Its name; it is imported on first use, because Triton is only where torch has CUDA.
        without: The log message if compiling fails: what is slower.
    """

    def __init__(self, module: str, *, without: str) -> None:
        self.module = module
        self.without = without
        self.broken = False

    def call(self, name: str, *arguments: object) -> Tensor | None:
        """The result of a function, or None if its kernel cannot be compiled."""
        if self.broken:
            return None
        try:
            return getattr(importlib.import_module(self.module), name)(*arguments)
        except Exception as error:  # Triton has no base class for its own; all others are raised again
            if not _is_of_compiler(error):
                raise
            self.broken = True
            log.warning("%s: %s", self.without, one_line(error)[:MESSAGE_LENGTH])
            return None


def _is_of_compiler(error: Exception) -> bool:
    """Whether Triton is missing or cannot compile; not if the GPU's memory is full or a kernel failed."""
    if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError):
        return False
    own = type(error).__module__.startswith("triton.")  # it asserts that it finds the driver's library
    others = ImportError | AssertionError | OSError | subprocess.SubprocessError
    return own or isinstance(error, others) or "C compiler" in str(error)
