"""The networks of the sources: plain modules that return logits, usable without Lightning or Hydra.

Each name is imported when it is first used, so that light modules such as `geometry` do not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet_lab.models.alexnet import AlexNet
    from alexnet_lab.models.lenet5 import LeNet5

__all__ = ["AlexNet", "LeNet5"]

_MODULES = {
    "AlexNet": "alexnet_lab.models.alexnet",
    "LeNet5": "alexnet_lab.models.lenet5",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module `alexnet_lab.models` has no attribute `{name}`")
    return getattr(importlib.import_module(_MODULES[name]), name)
