"""Prints an evaluation, 80 columns wide unless the terminal has another width; names and numbers are never cut."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from alexnet_lab.base.formats import p_value
from alexnet_lab.base.printable import printable, printable_texts
from alexnet_lab.evaluation.predict import Predictions
from alexnet_lab.run.run_files import error_names
from alexnet_lab.training.metrics import NO_CLASS, predicted_classes

MOST_LINES = 20
"""The rows of a table on the terminal; the files contain all rows."""

text_column = partial(Column, overflow="fold")
number_column = partial(Column, justify="right", no_wrap=True)

NARROWEST_NAME = 8
"""The minimum width of class names beside the matrix; longer names are wrapped."""


def show(evaluation: Mapping[str, Any], predictions: Predictions, path: Path) -> None:
    """Prints the evaluation, for a terminal or a file."""
    evaluation = printable_texts(evaluation)
    console = Console(markup=False, highlight=False)
    show_metrics(console, evaluation)
    show_comparisons(console, evaluation)
    if "confusion" in evaluation:
        console.print(classes_table(evaluation["classes"], evaluation.get("macro")))
        lines = matrix_lines(evaluation["confusion"], evaluation["class_names"], console.width)
        if lines is None:
            console.print(confusions_table(evaluation["confusion"], evaluation["class_names"]))
        for line in lines or ():
            console.print(line, crop=False, soft_wrap=True)
    else:
        console.print(images_table(predictions))
    console.print(f"{evaluation['images']:,} images{views_note(evaluation)}, written to {path}", soft_wrap=True)
    for figure in evaluation.get("figures", ()):
        if figure.endswith(".png"):
            console.print(f"figure {path.parent / figure}", soft_wrap=True)


def show_metrics(console: Console, evaluation: Mapping[str, Any]) -> None:
    """Prints each metric with its interval, and the gain from several views or runs."""
    for name, value in evaluation["metrics"].items():
        interval = evaluation.get("intervals", {}).get(name)
        surely = f"  (95 %: {interval[0]:.2%} to {interval[1]:.2%})" if interval else ""
        console.print(f"{name:<16} {value:.2%}{surely}" if interval else f"{name:<16} {value:.4f}")
    if "calibration_error" in evaluation:
        console.print(f"{'calibration':<16} {evaluation['calibration_error']:.2%} expected calibration error")
    for key, what in (("center_metrics", "the centre view alone"), ("single_metrics", "the mean single run")):
        if evaluation.get(key):
            for line in gains(evaluation["metrics"], evaluation[key], what):
                console.print(line)


def show_comparisons(console: Console, evaluation: Mapping[str, Any]) -> None:
    """Prints the comparisons with their intervals; with several runs, only those of all runs together."""
    rows = [row for row in evaluation.get("comparisons", ()) if len(row["runs"]) == len(evaluation["runs"])]
    if not rows:
        return
    columns = [text_column("compared"), *map(number_column, ("mean", "base", "diff.", "95 %", "p"))]
    table = Table(*columns, title="comparisons in percent, differences in points", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for row in rows:
        name = f"{row['metric']}, {row['n']:,} {row['over']}\n{row['compared']}"
        means = (f"{100 * row[key]:.2f}" for key in ("mean", "base"))
        table.add_row(Text(name), *means, f"{100 * row['difference']:+.2f}", interval_of(row), p_value(row["p"]) or "-")
    console.print(table)
    for method, speaks_of in dict.fromkeys((row["method"], row["speaks_of"]) for row in rows):
        console.print(f"{method}: covers {speaks_of}", soft_wrap=True)


def interval_of(row: Mapping[str, Any]) -> str:
    """The interval of a comparison, in points; `-` for none."""
    if row["ci95_low"] is None:
        return "-"
    return f"{100 * row['ci95_low']:+.2f} to {100 * row['ci95_high']:+.2f}"


def views_note(evaluation: Mapping[str, Any]) -> str:
    """The number of averaged views per image, if there are several; for an ensemble, of each run.

    Example:
        >>> views_note({"views": "ten", "num_views": [5]})
        ', 5 views of each (views=ten; trained without mirroring, so none is mirrored)'
    """
    counts = list(dict.fromkeys(evaluation.get("num_views", [1])))
    if counts == [1]:
        return ""
    views = evaluation["views"]
    note = "; trained without mirroring, so none is mirrored" if views == "ten" and counts == [5] else ""
    return f", {' and '.join(map(str, counts))} views of each (views={views}{note})"


def gains(metrics: Mapping[str, float], before: Mapping[str, float], what: str) -> Iterator[str]:
    """A line for each error rate: how many points it lies below or above the value before."""
    for name in error_names(metrics):
        points = 100 * (before[name] - metrics[name])
        word = "below" if points >= 0 else "above"
        yield f"{name:<16} {abs(points):.2f} points {word} {what} ({before[name]:.2%})"


def classes_table(classes: Sequence[Mapping[str, Any]], macro: Mapping[str, float] | None = None) -> Table:
    """The classes in order, or if they are many those with the highest error; the last row is the mean over all."""
    title = "classes, rates in percent"
    if len(classes) > MOST_LINES:
        title = f"the {MOST_LINES} of {len(classes)} classes with the highest error, rates in percent"
        classes = sorted(classes, key=lambda row: -(row["error"] or 0))[:MOST_LINES]
    numbers = map(number_column, ("images", "error", "95 %", "precision", "recall", "F1"))
    columns = [text_column("class"), *numbers, text_column("most often taken for")]
    table = Table(*columns, title=title, box=box.SIMPLE, padding=0)
    for row in classes:
        low, high = (f"{100 * bound:.1f}" for bound in row["interval"])
        taken = f"{row['taken_for']} ({row['times']})" if row["taken_for"] is not None else "-"
        rates = (percent(row[key]) for key in ("precision", "recall", "f1"))
        table.add_row(
            Text(row["name"]), f"{row['images']:,}", percent(row["error"]), f"{low}-{high}", *rates, Text(taken)
        )
    if macro:
        table.add_section()
        table.add_row("mean", "", "", "", *(percent(macro[key]) for key in ("precision", "recall", "f1")), "")
    return table


def percent(rate: float | None) -> str:
    """A rate in percent; `-` for none."""
    return "-" if rate is None else f"{100 * rate:.1f}"


def matrix_lines(matrix: Sequence[Sequence[int]], class_names: Sequence[str], width: int) -> list[Text] | None:
    """Formats the confusion matrix; its columns are headed by the numbers that stand before the class names.

    Args:
        matrix: True classes in rows, predicted ones in columns.
        class_names: In order; long names continue on further lines.
        width: Columns of the terminal.

    Returns:
        The lines, or None if the matrix does not fit.
    """
    count = len(class_names)
    cell = max(len(str(number)) for row in matrix for number in (*row, count - 1)) + 1
    index = len(str(count - 1))
    room = width - count * cell - index - 1
    if room < NARROWEST_NAME:
        return None
    if list(class_names) == [str(number) for number in range(count)]:
        class_names = [""] * count  # digits are their own numbers
    names = [textwrap.wrap(name, room, drop_whitespace=False) or [""] for name in class_names]
    left = max(len(part) for name in names for part in name)
    heads = "".join(f"{number:>{cell}}" for number in range(count))
    lines = [
        Text("rows: true class; columns: number of the predicted class"),
        Text(" " * (index + 1 + left) + heads, "dim"),
    ]
    for number, (name, row) in enumerate(zip(names, matrix, strict=True)):
        line = Text(f"{number:>{index}} {name[0]:<{left}}")
        for column, times in enumerate(row):
            line.append(f"{times or '.':>{cell}}", "bold" if column == number else "")
        lines += [line, *(Text(" " * (index + 1) + more) for more in name[1:])]
    return lines


def confusions_table(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> Table:
    """The most frequent confusions, for many classes."""
    pairs = [
        (times, class_names[true], class_names[column])
        for true, row in enumerate(matrix)
        for column, times in enumerate(row)
        if column != true and times
    ]
    columns = (number_column("images"), text_column("true class"), text_column("predicted"))
    table = Table(*columns, title="the most frequent confusions")
    for times, true, column in sorted(pairs, reverse=True)[:MOST_LINES]:
        table.add_row(f"{times:,}", Text(true), Text(column))
    return table


def images_table(predictions: Predictions) -> Table:
    """The predicted classes of the first of the user's own images."""
    columns = (text_column("file"), text_column("predicted"), number_column("probability"))
    table = Table(*columns, title="predictions only")  # there are no labels
    guesses, shares = predicted_classes(predictions.logits).tolist(), predictions.probabilities.amax(1).tolist()
    for name, guess, share in list(zip(predictions.names, guesses, shares, strict=True))[:MOST_LINES]:
        answer = "none: the outputs are NaN" if guess == NO_CLASS else predictions.class_names[guess]
        table.add_row(Text(printable(name)), Text(printable(answer)), f"{share:.1%}")
    if len(predictions.names) > MOST_LINES:
        table.caption = f"the first {MOST_LINES} of {len(predictions.names):,}; the CSV file contains all"
    return table
