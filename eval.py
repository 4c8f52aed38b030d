"""Evaluates a finished run from its directory alone: `python eval.py run=logs/runs/NAME`."""

import sys
from pathlib import Path
from typing import Any

try:
    from alexnet_lab.base.memory import importing
    from alexnet_lab.config import check_evaluate
    from alexnet_lab.config.main import main
except ModuleNotFoundError as error:
    sys.exit(f"error: {error}; run `source .venv/bin/activate`, or `make train`, which sets up .venv on a fresh clone")


def evaluate(config: dict[str, Any]) -> None:
    """Checks the config before any heavy import, then evaluates."""
    checked = check_evaluate(config)

    with importing():
        from alexnet_lab.evaluation import evaluate as evaluation  # noqa: PLC0415 - importing torch takes seconds

    evaluation.evaluate(checked)


if __name__ == "__main__":
    main(evaluate, Path(__file__).parent / "configs", "eval")
