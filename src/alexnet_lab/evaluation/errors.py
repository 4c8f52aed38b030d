"""Which images a network gets wrong, and how sure the rates are."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from alexnet_lab.evaluation.predict import UNKNOWN, Predictions

NORMAL_QUANTILE = 1.959963984540054
"""Of 97.5 %: two-sided intervals of 95 %."""


class Interval(NamedTuple):
    """Where a rate lies with 95 % confidence."""

    low: float
    high: float


def wilson(wrong: int, images: int, z: float = NORMAL_QUANTILE) -> Interval:
    """The Wilson score interval of a rate (Wilson 1927): sound for small sets and for rates near 0 or 1.

    Args:
        wrong: Images counted, 0 to `images`.
        images: All images; of none, the rate may be anything.
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
    """The 95 % interval of each error rate among the metrics, by its name."""
    images = len(predictions.labels)
    return {
        name: wilson(round(value * images), images) for name, value in predictions.metrics.items() if "error" in name
    }


def confusion(predictions: Predictions) -> list[list[int]]:
    """Images of class i that were called class j, in row i and column j."""
    matrix = multiclass_confusion_matrix(
        called(predictions), predictions.labels, num_classes=len(predictions.class_names), ignore_index=UNKNOWN
    )
    return matrix.tolist()


def called(predictions: Predictions) -> torch.Tensor:
    """The most probable class of each image (N,)."""
    return predictions.logits.topk(1, dim=1).indices[:, 0]  # as the error rates are counted, ties too


class ClassErrors(NamedTuple):
    """How one class fares."""

    name: str
    images: int
    wrong: int
    error: float | None  # share of its images that were called something else; None of no images
    interval: Interval
    taken_for: str | None  # the class it was most often called instead
    times: int
    false_alarms: int  # images of other classes that were called this


def class_errors(matrix: list[list[int]], class_names: list[str]) -> list[ClassErrors]:
    """One row for each class, from a confusion matrix with true classes in its rows."""
    rows = []
    for label, (name, row) in enumerate(zip(class_names, matrix, strict=True)):
        images, wrong = sum(row), sum(row) - row[label]
        others = [0 if other == label else times for other, times in enumerate(row)]
        times = max(others)
        rows.append(
            ClassErrors(
                name=name,
                images=images,
                wrong=wrong,
                error=wrong / images if images else None,
                interval=wilson(wrong, images),
                taken_for=class_names[others.index(times)] if times else None,
                times=times,
                false_alarms=sum(each[label] for each in matrix) - row[label],
            )
        )
    return rows


def confident_mistakes(predictions: Predictions, count: int) -> torch.Tensor:
    """Places (n,) of up to `count` wrongly called images, the most confident first."""
    confidence = predictions.probabilities.amax(1)
    wrong = torch.nonzero((called(predictions) != predictions.labels) & (predictions.labels != UNKNOWN))[:, 0]
    return wrong[confidence[wrong].argsort(descending=True, stable=True)[:count]]
