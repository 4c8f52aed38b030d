"""Which images a network classifies wrongly, the intervals of its error rates, and its calibration."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import torch

from alexnet_lab.evaluation.predict import UNKNOWN, Predictions
from alexnet_lab.run.run_files import error_names
from alexnet_lab.training.metrics import NO_CLASS, add_confusions, predicted_classes

log = logging.getLogger(__name__)

NORMAL_QUANTILE = 1.959963984540054
"""The 97.5 % quantile, for two-sided intervals of 95 %."""


class Interval(NamedTuple):
    """A 95 % confidence interval of a rate."""

    low: float
    high: float


def wilson(wrong: int, images: int, z: float = NORMAL_QUANTILE) -> Interval:
    """The Wilson score interval of a rate (Wilson 1927), which is valid for small sets and for rates near 0 or 1.

    Args:
        wrong: Images counted, 0 to `images`.
        images: All images. With none, the interval is [0, 1].
        z: Quantile of the normal distribution.

    Example:
        >>> [round(bound, 4) for bound in wilson(1758, 10_000)]
        [0.1685, 0.1834]
    """
    if images == 0:
        return Interval(0.0, 1.0)
    rate, weight = wrong / images, z * z / images
    middle = (rate + weight / 2) / (1 + weight)
    reach = z / (1 + weight) * math.sqrt(rate * (1 - rate) / images + weight / (4 * images))
    return Interval(max(0.0, middle - reach), min(1.0, middle + reach))


def intervals(predictions: Predictions) -> dict[str, Interval]:
    """The 95 % interval of each error rate in the metrics, by name."""
    images, metrics = len(predictions.labels), predictions.metrics
    return {name: wilson(round(metrics[name] * images), images) for name in error_names(metrics)}


def confusion(predictions: Predictions) -> list[list[int]]:
    """The number of images of class i predicted as class j, in row i and column j; NaN outputs are in no column."""
    classes = len(predictions.class_names)
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    add_confusions(counts, predictions.logits, predictions.labels)
    silent = int((predicted_classes(predictions.logits) == NO_CLASS).sum())
    if silent:
        log.warning("the outputs for %d of %d images are NaN; they count as wrong", silent, len(predictions.labels))
    return counts.tolist()


def images_of_classes(predictions: Predictions) -> list[int]:
    """The number of images of each class."""
    known = predictions.labels[predictions.labels != UNKNOWN]
    return known.bincount(minlength=len(predictions.class_names)).tolist()


class ClassErrors(NamedTuple):
    """The results of one class."""

    name: str
    images: int
    wrong: int
    error: float | None  # share of its images predicted as another class; None without images
    interval: Interval
    taken_for: str | None  # the class most often predicted instead
    times: int
    false_alarms: int  # images of other classes predicted as this class
    precision: float | None  # share of the images predicted as this class that belong to it; None if there are none
    recall: float | None  # share of its images predicted as this class, 1 - error; None without images
    f1: float | None  # harmonic mean of the two, 0 without correct predictions; None without images


def class_errors(
    matrix: list[list[int]], class_names: list[str], class_images: list[int] | None = None
) -> list[ClassErrors]:
    """Computes the results of each class.

    Args:
        matrix: Images by true class (rows) and predicted class (columns).
        class_names: In the order of the rows.
        class_images: The number of images of each class; None: the sums of the rows, if all outputs are numbers.
    """
    rows = []
    for label, (name, row) in enumerate(zip(class_names, matrix, strict=True)):
        images = sum(row) if class_images is None else class_images[label]
        wrong = images - row[label]
        others = [0 if other == label else times for other, times in enumerate(row)]
        times = max(others)
        false_alarms = sum(each[label] for each in matrix) - row[label]
        called_this = row[label] + false_alarms
        rows.append(
            ClassErrors(
                name=name,
                images=images,
                wrong=wrong,
                error=wrong / images if images else None,
                interval=wilson(wrong, images),
                taken_for=class_names[others.index(times)] if times else None,
                times=times,
                false_alarms=false_alarms,
                precision=row[label] / called_this if called_this else None,
                recall=row[label] / images if images else None,
                f1=2 * row[label] / (images + called_this) if images else None,
            )
        )
    return rows


def macro_averages(classes: list[ClassErrors]) -> dict[str, float]:
    """Mean precision, recall and F1 over the classes with images; an undefined precision counts as 0."""
    seen = [row for row in classes if row.images]
    if not seen:
        return {}
    return {name: sum(getattr(row, name) or 0.0 for row in seen) / len(seen) for name in ("precision", "recall", "f1")}


def confident_mistakes(predictions: Predictions, count: int) -> torch.Tensor:
    """Places (n,) of up to `count` misclassified images, the most confident first."""
    confidence = predictions.probabilities.amax(1)
    differs = predicted_classes(predictions.logits) != predictions.labels
    wrong = torch.nonzero(differs & (predictions.labels != UNKNOWN))[:, 0]
    return wrong[confidence[wrong].argsort(descending=True, stable=True)[:count]]


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
