"""An evaluation's inputs and predictions, from which tables and figures are made; several networks as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_lab.base.errors import RunError
from alexnet_lab.evaluation.custom_images import OwnImages
from alexnet_lab.evaluation.error_rates import Bins, reliability
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.evaluation.predict import NO_RANKS, UNKNOWN, Predictions, Views, count, log_of
from alexnet_lab.training.metrics import predicted_classes


class Evaluated(NamedTuple):
    """One evaluation."""

    runs: list[FinishedRun]
    own: OwnImages | None  # the user's images; None: those of the split
    split: str
    views: Views
    name: str
    each: list[Predictions]  # of each run
    predictions: Predictions  # of all runs together
    folder: Path  # of all output

    @property
    def reliability(self) -> Bins:
        """Confidence and accuracy of the predictions; needs labels."""
        seen = self.predictions
        return reliability(seen.probabilities, seen.labels, guess=predicted_classes(seen.logits))

    def images(self, places: NDArray[np.int64], number: int = 0) -> NDArray[np.uint8]:
        """Some of the evaluated images (n, C, S, S), as stored.

        Args:
            places: (n,), in the order of the predictions.
            number: The run whose store format is used.
        """
        data = self.runs[number].data
        if self.own is not None:
            return self.own.read([self.predictions.names[place] for place in places], data)
        return np.asarray(data.rows(self.split).images)[self.predictions.indices.numpy()[places]]


def ensemble(runs: Sequence[str], each: Sequence[Predictions], split: str) -> Predictions:
    """Averages the runs' probabilities (Krizhevsky 2012, sec. 6: "averaging the predictions").

    Args:
        runs: Their names, for messages.
        each: The predictions of each run for the same images.
        split: The prefix of the metrics' names.

    Returns:
        Predictions without features, which differ between networks.

    Raises:
        RunError: The runs have different classes, or were tested on different images.
    """
    first = each[0]
    for name, other in zip(runs[1:], each[1:], strict=True):
        _check_same(runs[0], first, name, other)
    mean = first.probabilities
    for other in each[1:]:
        mean = mean + other.probabilities
    logits = log_of(mean / len(each))
    known = bool((first.labels != UNKNOWN).all())
    metrics = count(logits, first.labels, split) if known else {}
    return first._replace(
        logits=logits, features=torch.empty(0), metrics=metrics, center_metrics={}, center_ranks=NO_RANKS
    )


def mean_metrics(each: Sequence[Predictions]) -> dict[str, float]:
    """The mean of each metric over the single runs."""
    return {name: sum(one.metrics[name] for one in each) / len(each) for name in each[0].metrics}


def _check_same(first: str, one: Predictions, name: str, other: Predictions) -> None:
    if one.class_names != other.class_names:
        missing = [known for known in one.class_names if known not in other.class_names]
        detail = f"`{missing[0]}` is unknown to {name}" if missing else "their order or number is different"
        raise RunError(f"an ensemble needs runs of the same classes: those of {first} and {name} differ ({detail})")
    if not torch.equal(one.indices, other.indices) or not torch.equal(one.labels, other.labels):
        raise RunError(
            f"an ensemble needs runs that are tested on the same images: those of {first} and {name} differ "
            f"({len(one.labels):,} and {len(other.labels):,} images; another data set, val_seed or test_seed?)"
        )
