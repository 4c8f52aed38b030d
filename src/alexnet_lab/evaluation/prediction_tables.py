"""The tables of an evaluation as CSV: confusion matrix, classes, and each of the user's own images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alexnet_lab.base.csv_tables import csv_lines
from alexnet_lab.base.files import write_text
from alexnet_lab.base.printable import printable
from alexnet_lab.evaluation.evaluated import Evaluated
from alexnet_lab.evaluation.file_names import TABLES
from alexnet_lab.evaluation.predict import UNKNOWN, Predictions
from alexnet_lab.training.metrics import best_classes


def write(subject: Evaluated, evaluation: Mapping[str, Any]) -> None:
    """Writes `<name>_confusion.csv` and `<name>_classes.csv`; for the user's own images also `<name>_images.csv`."""
    confusion, classes, images = (f"{subject.folder / subject.name}{end}" for end in TABLES)
    if "confusion" in evaluation:
        write_text(confusion, confusion_csv(evaluation["confusion"], evaluation["class_names"]))
        write_text(classes, classes_csv(evaluation["classes"]))
    if subject.own is not None:
        write_text(images, images_csv(subject.predictions))


def confusion_csv(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> str:
    """True classes in rows, predicted ones in columns."""
    rows = ([name, *counts] for name, counts in zip(class_names, matrix, strict=True))
    return csv_lines([["true class", *class_names], *rows])


def classes_csv(classes: Sequence[Mapping[str, Any]]) -> str:
    """One row per class; see `error_rates.ClassErrors`."""
    names = (
        "class", "images", "wrong", "error", "low", "high", "taken_for", "times", "false_alarms",
        "precision", "recall", "f1",
    )  # fmt: skip
    cells = ({**row, "class": row["name"], "low": row["interval"][0], "high": row["interval"][1]} for row in classes)
    return csv_lines([names, *([row[name] for name in names] for row in cells)])


def images_csv(predictions: Predictions) -> str:
    """One row per file: its class if known, and the most probable classes."""
    classes = predictions.class_names
    best = best_classes(predictions.logits)
    values = predictions.probabilities.gather(1, best)
    header = ["file", "true class"]
    header += [word for rank in range(1, best.shape[1] + 1) for word in (f"class {rank}", f"probability {rank}")]
    rows = []
    for name, label, labels, shares in zip(
        predictions.names, predictions.labels.tolist(), best.tolist(), values.tolist(), strict=True
    ):
        guesses = [word for pair in zip(labels, shares, strict=True) for word in (classes[pair[0]], f"{pair[1]:.4f}")]
        rows.append([printable(name), "" if label == UNKNOWN else classes[label], *guesses])
    return csv_lines([header, *rows])
