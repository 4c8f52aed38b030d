"""What eval.py prints and writes: errors and the confusion matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torchmetrics.functional.classification import multiclass_confusion_matrix

from alexnet_lab.base.files import write_json
from alexnet_lab.base.log import start_log
from alexnet_lab.evaluation.predict import Predictions, finished_run, predict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMAT_VERSION = 1
"""Of eval/<name>.json."""

WIDEST_MATRIX = 20
"""Classes; more do not fit a terminal, so the most frequent confusions are listed instead."""


def evaluate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluates a finished run, prints the errors and the confusion matrix, and writes `eval/<name>.json`.

    Args:
        config: A checked config of eval.py.

    Returns:
        What the file holds.

    Raises:
        RunError: `run` is no finished run, or its checkpoint is damaged.
        DataError: Its data is missing or damaged.
    """
    start_log()
    directory, run_config = finished_run(config["run"], config["trusted_packages"])
    if config["data"]["dir"] is not None:
        run_config = run_config | {"data": run_config["data"] | {"dir": config["data"]["dir"]}}
    predictions = predict(
        directory, run_config, config["split"], views=config["views"], num_threads=config["num_threads"]
    )
    name = config["name"] or f"{config['split']}_{config['views']}"
    evaluation = {
        "version": FORMAT_VERSION,
        "run": directory.path.name,
        "checkpoint": str(directory.best.relative_to(directory.path)),
        "split": config["split"],
        "views": config["views"],
        "images": len(predictions.labels),
        "metrics": predictions.metrics,
        "class_names": predictions.class_names,
        "confusion": confusion(predictions),
    }
    path = directory.path / "eval" / f"{name}.json"
    write_json(path, evaluation)
    show(evaluation, path)
    return evaluation


def confusion(predictions: Predictions) -> list[list[int]]:
    """Images of class i that were called class j, in row i and column j."""
    matrix = multiclass_confusion_matrix(
        predictions.logits.argmax(1), predictions.labels, num_classes=len(predictions.class_names)
    )
    return matrix.tolist()


def show(evaluation: Mapping[str, Any], path: Path) -> None:
    """Prints the evaluation, for a terminal or a file."""
    console = Console(markup=False)
    for name, value in evaluation["metrics"].items():
        shown = f"{value:.2%}" if "error" in name else f"{value:.4f}"
        console.print(f"{name:<16} {shown}", highlight=False)
    table = _matrix(evaluation) if len(evaluation["class_names"]) <= WIDEST_MATRIX else _confusions(evaluation)
    console.print(table, crop=False)
    console.print(f"{evaluation['images']:,} images, written to {path}", highlight=False, soft_wrap=True)


def _matrix(evaluation: Mapping[str, Any]) -> Table:
    table = Table(title="rows: true class, columns: predicted class")
    names = evaluation["class_names"]
    table.add_column("")
    widest = max(len(str(count)) for row in evaluation["confusion"] for count in row)
    for name in names:
        table.add_column(name[:5], justify="right", no_wrap=True, min_width=widest)  # digits are never cut off
    for index, (name, row) in enumerate(zip(names, evaluation["confusion"], strict=True)):
        cells = [Text(str(count), "bold") if column == index else str(count or "") for column, count in enumerate(row)]
        table.add_row(name, *cells)
    return table


def _confusions(evaluation: Mapping[str, Any]) -> Table:
    names = evaluation["class_names"]
    pairs = [
        (count, names[true], names[called])
        for true, row in enumerate(evaluation["confusion"])
        for called, count in enumerate(row)
        if called != true and count
    ]
    table = Table(title="the most frequent confusions")
    for column in ("images", "true class", "predicted class"):
        table.add_column(column)
    for count, true, called in sorted(pairs, reverse=True)[:WIDEST_MATRIX]:
        table.add_row(str(count), true, called)
    return table
