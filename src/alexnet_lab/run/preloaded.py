"""Imported once by the fork server, whose workers then start in tenths of a second.

A broken package (e.g. a logger's) must not end the server: the worker that needs it reports the error.
"""

import contextlib
import importlib

from alexnet_lab.base.memory import importing

NAMES = (
    "torch", "lightning", "torchmetrics", "wandb", "alexnet_lab.run.worker", "alexnet_lab.data",
    "alexnet_lab.config.main",  # of train.py itself
)  # fmt: skip

with importing():
    for name in NAMES:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
