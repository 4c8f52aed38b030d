"""An evaluation's inputs and predictions, from which tables and figures are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alexnet_lab.evaluation.calibration import reliability
from alexnet_lab.training.metrics import predicted_classes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from alexnet_lab.evaluation.calibration import Bins
    from alexnet_lab.evaluation.custom_images import OwnImages
    from alexnet_lab.evaluation.loaded_run import FinishedRun
    from alexnet_lab.evaluation.predict import Predictions, Views


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
