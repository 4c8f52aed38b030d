"""Compares the runs of a sweep, or any runs: `python report.py sweep=logs/sweeps/NAME`."""

import sys
from pathlib import Path
from typing import Any

try:
    from alexnet_lab.base.memory import importing
    from alexnet_lab.config import check_report
    from alexnet_lab.config.main import main
except ModuleNotFoundError as error:
    sys.exit(f"error: {error}; run `source .venv/bin/activate`, or `make train`, which sets up .venv on a fresh clone")


def report(config: dict[str, Any]) -> None:
    """Checks the config, then reads the runs."""
    checked = check_report(config)

    with importing():
        from alexnet_lab.report import make_report  # noqa: PLC0415 - nothing heavy before the config is valid

    make_report(checked)


# Not in configs/: `sweep` is a group there, and sweep=DIR would have to be one of its choices.
CONFIG_DIR = Path(__file__).parent / "src" / "alexnet_lab" / "report" / "config"

if __name__ == "__main__":
    main(report, CONFIG_DIR, "report")
