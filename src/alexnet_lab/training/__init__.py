"""The Classifier (a LightningModule), its metrics, the optimisers and schedules of the papers, callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexnet_lab.base.lazy import lazy

if TYPE_CHECKING:
    from alexnet_lab.training.classifier import Classifier

__all__ = ["Classifier"]

__getattr__, __dir__ = lazy(__name__, {"Classifier": "alexnet_lab.training.classifier"})
