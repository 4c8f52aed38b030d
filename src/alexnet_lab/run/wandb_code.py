"""`logger.save_code=true`: the source and config files of a run, in W&B's tab *Code*."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alexnet_lab.base.errors import one_line

log = logging.getLogger(__name__)

REPOSITORY = Path(__file__).parents[3]

PATTERNS = ("*.py", "src/**/*.py", "src/**/*.cpp", "configs/**/*.yaml", "pyproject.toml", "requirements.lock")
"""What is saved; data, runs and the environment lie elsewhere."""


def source_files(root: Path = REPOSITORY) -> Iterator[Path]:
    """The files that decide what a run does."""
    for pattern in PATTERNS:
        yield from sorted(root.glob(pattern))


def save_code(run: Any, run_dir: Path) -> None:
    """Logs the code to a W&B run; if that fails, the run continues without.

    Args:
        run: W&B's.
        run_dir: Keeps a copy in `wandb/code`, for `wandb sync`.
    """
    folder = run_dir / "wandb" / "code"
    try:
        for path in source_files():
            target = folder / path.relative_to(REPOSITORY)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        run.log_code(str(folder), include_fn=lambda path: True)
    except Exception as error:  # of the disk, or of W&B
        log.warning("W&B: the code is not saved (%s: %s)", type(error).__name__, one_line(error))
