"""Error rates, their intervals, classes, mistakes and calibration, against formulas and by hand."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from alexnet_lab.base.errors import RunError
from alexnet_lab.evaluation import error_rates, prediction_tables, printout
from alexnet_lab.evaluation.comparisons import error_comparisons
from alexnet_lab.evaluation.evaluated import ensemble, mean_metrics
from alexnet_lab.evaluation.predict import UNKNOWN, Predictions


def made(logits: torch.Tensor, labels: list[int], names: str = "abc", **fields: object) -> Predictions:
    """Predictions of given logits."""
    known = torch.tensor(labels)
    each = Predictions(
        logits.float(), torch.empty(0), known, torch.arange(len(known)), [], list(names), {"test/top1_error": 0.0}, {}
    )
    return each._replace(**fields)


@pytest.mark.parametrize(
    ("wrong", "images", "interval"),
    [
        (0, 0, (0.0, 1.0)),
        (0, 10, (0.0, 0.2775)),  # z^2 / (n + z^2)
        (10, 10, (0.7225, 1.0)),
        (5, 10, (0.2366, 0.7634)),
        (81, 263, (0.2553, 0.3662)),  # Newcombe 1998, table I, method 3
        (1, 29, (0.0061, 0.1718)),  # the same
        (0, 20, (0.0, 0.1611)),  # the same
    ],
)
def test_wilson_interval(wrong, images, interval):
    assert error_rates.wilson(wrong, images) == pytest.approx(interval, abs=5e-5)


def test_wilson_bounds_are_where_the_score_test_turns():
    low, high = error_rates.wilson(37, 200)
    for bound in (low, high):
        assert abs(37 / 200 - bound) == pytest.approx(1.959964 * (bound * (1 - bound) / 200) ** 0.5, rel=1e-6)


def test_intervals_are_of_the_error_rates_alone():
    metrics = {"test/loss": 1.0, "test/top1_error": 0.1, "test/calibration_error": 0.2, "test/max_error": 7.0}
    predictions = made(torch.zeros(50, 3), [0] * 50, metrics=metrics)
    assert error_rates.intervals(predictions) == {"test/top1_error": error_rates.wilson(5, 50)}
    lines = list(printout.gains(metrics, {"test/top1_error": 0.1}, "X"))
    assert lines == ["test/top1_error  0.00 points below X (10.00%)"]
    single = predictions._replace(center_ranks=torch.zeros(50, dtype=torch.int64))
    compared = error_comparisons(["run"], [single], single, "ten")
    assert [row.metric for row in compared] == ["test/top1_error"]


def test_confusion_has_true_classes_in_its_rows():
    predictions = made(torch.eye(3)[torch.tensor([2, 0, 1, 1])], [0, 0, 1, 2])
    assert error_rates.confusion(predictions) == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]


def test_class_errors():
    first, second, third = error_rates.class_errors([[8, 1, 3], [0, 5, 0], [0, 0, 0]], list("abc"))
    assert (first.images, first.wrong, first.taken_for, first.times, first.false_alarms) == (12, 4, "c", 3, 0)
    assert first.error == pytest.approx(1 / 3)
    assert first.interval == error_rates.wilson(4, 12)
    assert (second.error, second.taken_for, second.false_alarms) == (0.0, None, 1)
    assert (third.error, third.images, third.false_alarms) == (None, 0, 3)


def test_precision_recall_and_f1_are_those_of_scikit_learn():
    rng = np.random.default_rng(8)
    labels, guesses = rng.integers(0, 6, 300), rng.integers(0, 5, 300)  # nothing is called class 5
    labels[labels == 4] = 3  # no image is of class 4
    matrix = sklearn.metrics.confusion_matrix(labels, guesses, labels=range(6)).tolist()
    rows = error_rates.class_errors(matrix, list("abcdef"))
    score: Any = sklearn.metrics.precision_recall_fscore_support  # whose annotations allow too little
    wanted = score(labels, guesses, labels=range(6), zero_division=0)
    for name, values in zip(("precision", "recall", "f1"), wanted, strict=False):
        assert [getattr(row, name) or 0.0 for row in rows] == pytest.approx(list(values))
    assert (rows[5].precision, rows[4].recall, rows[4].f1) == (None, None, None)
    macro = score(labels, guesses, labels=[0, 1, 2, 3, 5], zero_division=0, average="macro")
    assert list(error_rates.macro_averages(rows).values()) == pytest.approx(macro[:3])


def test_confident_mistakes_come_first():
    logits = torch.tensor([[5.0, 0, 0], [0, 1, 0], [0, 3, 0], [9, 0, 0], [0, 0, 4]])
    labels = [0, 2, 0, 1, UNKNOWN]
    assert error_rates.confident_mistakes(made(logits, labels), 5).tolist() == [3, 2, 1]
    assert error_rates.confident_mistakes(made(logits, labels), 1).tolist() == [3]


def test_confusion_csv_keeps_names_with_commas():
    rows = list(csv.reader(io.StringIO(prediction_tables.confusion_csv([[1, 2], [3, 4]], ["a, b", '"c"']))))
    assert rows == [["true class", "a, b", '"c"'], ["a, b", "1", "2"], ['"c"', "3", "4"]]


def test_classes_csv():
    row = error_rates.class_errors([[8, 2], [0, 0]], ["x", "y"])[0]._asdict()
    text = prediction_tables.classes_csv([row])
    low, high = error_rates.wilson(2, 10)
    assert text.splitlines()[1] == f"x,10,2,0.2,{low},{high},y,2,0,1.0,0.8,{16 / 18}"


def random_probabilities(images: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(3)
    logits = torch.from_numpy(3 * rng.standard_normal((images, classes)))
    return logits.softmax(1).float(), torch.from_numpy(rng.integers(0, classes, images))


def test_calibration_error_against_a_loop():
    probabilities, labels = random_probabilities(500, 7)
    confidence, guess = probabilities.max(1)
    error = 0.0
    for low in range(15):
        inside = (confidence >= low / 15) & (confidence < (low + 1) / 15)
        if inside.any():
            accuracy = (guess == labels)[inside].double().mean()
            error += float(inside.double().mean() * (accuracy - confidence[inside].double().mean()).abs())
    assert error_rates.reliability(probabilities, labels).calibration_error == pytest.approx(error, abs=1e-6)


def test_reliability_bins_agree_with_torchmetrics():
    probabilities, labels = random_probabilities(300, 4)
    for bins in (1, 2, 10):
        found = error_rates.reliability(probabilities, labels, bins)
        expected = multiclass_calibration_error(probabilities, labels, num_classes=4, n_bins=bins)
        assert found.images.sum() == 300
        assert found.calibration_error == pytest.approx(float(expected), abs=1e-6)


def test_certainty_falls_into_the_last_bin():
    found = error_rates.reliability(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert found.images.tolist() == [0] * 14 + [1]
    assert found.calibration_error == 0
    assert error_rates.reliability(torch.tensor([[1.0 + 1e-7, 0.0]]), torch.tensor([0])).calibration_error == 0


def test_ensemble_is_the_mean_of_probabilities():
    logits = torch.tensor([[[4.0, 0, -9]], [[0, 1.5, 0]], [[0, 1.5, 0]]])  # fidelity, check 32
    each = [made(one, [1]) for one in logits]
    found = ensemble(["A", "B", "C"], each, "test")
    assert found.probabilities[0].tolist() == pytest.approx([0.4302, 0.4670, 0.1029], abs=5e-5)
    assert found.metrics["test/top1_error"] == 0
    assert torch.equal(each[0].logits, logits[0])


def test_gain_is_over_the_mean_single_run():
    each = [made(torch.eye(3), [0, 1, 2], metrics={"test/top1_error": value}) for value in (0.2, 0.4)]
    assert mean_metrics(each) == pytest.approx({"test/top1_error": 0.3})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            made(torch.zeros(2, 3), [0, 1], "abd"),
            r"same classes: those of A and B differ \(`c` is unknown to B\)",
        ),
        (made(torch.zeros(2, 3), [0, 1], "acb"), "their order or number is different"),
        (made(torch.zeros(3, 3), [0, 1, 1]), r"on the same images: those of A and B differ \(2 and 3 images"),
        (made(torch.zeros(2, 3), [1, 1]), "on the same images"),
        (made(torch.zeros(2, 3), [0, 1], indices=torch.tensor([0, 2])), "on the same images"),
    ],
)
def test_ensemble_of_what_does_not_fit(other, message):
    with pytest.raises(RunError, match=message):
        ensemble(["A", "B"], [made(torch.zeros(2, 3), [0, 1]), other], "test")
