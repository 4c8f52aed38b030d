"""AlexNet Lab: LeNet-5 and AlexNet, with a switch for each of their ideas.

From Python: `train(compose("model=alexnet", "data=cifar10"))` trains, `load(run_dir)` opens the finished run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexnet_lab.base.lazy import lazy

if TYPE_CHECKING:
    from alexnet_lab.config.composing import compose
    from alexnet_lab.evaluation.load import load
    from alexnet_lab.run import train

__all__ = ["compose", "load", "train"]

__version__ = "0.2.0"

__getattr__, __dir__ = lazy(
    __name__,
    {
        "compose": "alexnet_lab.config.composing",
        "load": "alexnet_lab.evaluation.load",
        "train": "alexnet_lab.run",
    },
)
