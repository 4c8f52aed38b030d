"""Calibration of predicted probabilities: expected calibration error and reliability (Guo et al. 2017)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from alexnet_lab.training.metrics import predicted_classes

NUM_BINS = 15
"""Guo et al. 2017, sec. 2."""


class Bins(NamedTuple):
    """Images in M bins of equal width by the confidence of their prediction."""

    edges: torch.Tensor  # (M + 1,), 0 to 1
    images: torch.Tensor  # int64 (M,)
    confidence: torch.Tensor  # (M,), mean over the images of a bin; NaN in an empty bin
    accuracy: torch.Tensor  # (M,), share of correct predictions; NaN in an empty bin

    @property
    def calibration_error(self) -> float:
        """The ECE: the mean distance between confidence and accuracy, weighted by images."""
        gaps = (self.accuracy - self.confidence).abs().nan_to_num()
        return float((gaps * self.images).sum() / self.images.sum())


def reliability(
    probabilities: torch.Tensor, labels: torch.Tensor, bins: int = NUM_BINS, *, guess: torch.Tensor | None = None
) -> Bins:
    """Computes confidence and accuracy by bin, for the diagram.

    Args:
        probabilities: (N, num_classes).
        labels: (N,).
        bins: The number of bins, >= 1.
        guess: (N,), the predicted classes by the logits, which have fewer ties than probabilities.
    """
    confidence = probabilities.amax(1).clamp(max=1)  # a mean of softmaxes may exceed 1 by rounding
    right = ((predicted_classes(probabilities) if guess is None else guess) == labels).double()
    edges = torch.linspace(0, 1, bins + 1)
    place = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, bins - 1)
    images = torch.bincount(place, minlength=bins)
    mean_confidence = torch.bincount(place, confidence.double(), minlength=bins) / images
    return Bins(edges, images, mean_confidence, torch.bincount(place, right, minlength=bins) / images)
