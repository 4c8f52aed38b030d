"""A trained network as one file that needs neither this repository nor the data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexnet_lab.base.lazy import lazy

if TYPE_CHECKING:
    from alexnet_lab.export.command import export

__all__ = ["export"]

__getattr__, __dir__ = lazy(__name__, {"export": "alexnet_lab.export.command"})
