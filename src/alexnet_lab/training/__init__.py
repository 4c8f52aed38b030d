"""The Classifier (a LightningModule), its metrics, the optimisers and schedules of the papers, callbacks."""

from alexnet_lab.training.classifier import Classifier

__all__ = ["Classifier"]
