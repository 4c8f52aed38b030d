"""What W&B shows of a run besides its metrics: pictures, tables, a confusion matrix, histograms, the code."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from alexnet_lab.base.errors import one_line

log = logging.getLogger(__name__)

REPOSITORY = Path(__file__).parents[3]

PATTERNS = ("*.py", "src/**/*.py", "src/**/*.cpp", "configs/**/*.yaml", "pyproject.toml", "requirements.lock")
"""The saved files, which decide what a run does; data, runs and the environment lie elsewhere."""

MOST_CELLS = 10_000
"""The most cells that W&B draws of a table."""


def drawn(histograms: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Histograms of W&B."""
    import wandb  # noqa: PLC0415

    pairs = {name: (counts.numpy(), edges.numpy()) for name, (counts, edges) in histograms.items()}
    return {name: wandb.Histogram(np_histogram=pair) for name, pair in pairs.items()}


def shown(
    pictures: Sequence[Path],
    epochs: Sequence[Mapping[str, Any]] = (),
    confusion: Sequence[Sequence[int]] | None = None,
    class_names: Sequence[str] = (),
) -> dict[str, Any]:
    """Pictures, the table of epochs and the confusions of a run, by their names at W&B.

    Args:
        pictures: PNG files; existing ones appear under their name without `.png`.
        epochs: The rows of metrics.csv, which become the table `epochs`.
        confusion: Images of class i predicted as class j, in row i and column j. With up to 100 classes they become
            the chart `confusion_matrix`, and always the table `confusions` of mistakes, most frequent first.
        class_names: Of the rows and columns.
    """
    import wandb  # noqa: PLC0415 - takes 0.3 s

    logged: dict[str, Any] = {path.stem: wandb.Image(str(path)) for path in pictures if path.is_file()}
    if epochs:
        columns: list[Any] = list(dict.fromkeys(name for row in epochs for name in row))
        logged["epoch"] = epochs[-1].get("epoch")  # the x axis
        logged["epochs"] = wandb.Table(columns, [[_number(row.get(name, "")) for name in columns] for row in epochs])
    if confusion is not None:
        logged |= _confusion(confusion, class_names)
    return logged


def _confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> dict[str, Any]:
    """W&B's own chart of a confusion matrix, and a table of the mistakes."""
    import wandb  # noqa: PLC0415

    cells = [
        [true, called, count] for true, row in zip(names, counts, strict=True)
        for called, count in zip(names, row, strict=True)
    ]  # fmt: skip
    mistakes = sorted((cell for cell in cells if cell[0] != cell[1] and cell[2]), key=lambda cell: -cell[2])
    logged: dict[str, Any] = {"confusions": wandb.Table(["true", "predicted", "images"], mistakes[:MOST_CELLS])}
    if len(cells) <= MOST_CELLS:
        fields = ("Actual", "Predicted", "nPredictions")  # the names in W&B's chart
        logged["confusion_matrix"] = wandb.plot_table(
            "wandb/confusion_matrix/v1", wandb.Table(list(fields), cells), {field: field for field in fields}
        )
    return logged


def _number(text: Any) -> float | None:
    """A cell of metrics.csv; an empty one is None."""
    return None if text == "" else float(text)


def log_code(run: Any, run_dir: Path) -> None:
    """Logs the code to a W&B run; if that fails, the run continues without.

    Args:
        run: W&B's.
        run_dir: Keeps a copy in `wandb/code`, for `wandb sync`.
    """
    folder = run_dir / "wandb" / "code"
    try:
        for path in chain.from_iterable(map(REPOSITORY.glob, PATTERNS)):
            target = folder / path.relative_to(REPOSITORY)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        run.log_code(str(folder), include_fn=lambda path: True)
    except Exception as error:  # of the disk, or of W&B
        log.warning("W&B: the code is not saved (%s: %s)", type(error).__name__, one_line(error))
