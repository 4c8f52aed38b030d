"""AlexNet Lab: LeNet-5 and AlexNet, with a switch for each of their ideas.

From Python: `train(compose("model=alexnet", "data=cifar10"))` trains, `load(run_dir)` opens the finished run.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet_lab.config.composing import compose
    from alexnet_lab.evaluation.load import load
    from alexnet_lab.run import train

__all__ = ["compose", "load", "train"]

__version__ = "0.2.0"

LAZY = {"compose": "config.composing", "load": "evaluation.load", "train": "run"}
"""The module of each name, imported on first use because torch takes seconds."""


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{LAZY[name]}"), name)
