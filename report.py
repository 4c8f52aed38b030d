"""Puts the runs of a sweep, or any runs, side by side: `python report.py sweep=logs/sweeps/NAME`."""

from pathlib import Path
from typing import Any

from alexnet_lab.config import check_report
from alexnet_lab.config.entry import main


def report(config: dict[str, Any]) -> None:
    """Checks the config, and only then reads the runs."""
    checked = check_report(config)

    from alexnet_lab.report import make_report  # noqa: PLC0415 - nothing heavy before the config is valid

    make_report(checked)


# Not in configs/, where `sweep` is a group: there sweep=DIR would have to be one of its choices.
CONFIG_DIR = Path(__file__).parent / "src" / "alexnet_lab" / "report" / "config"

if __name__ == "__main__":
    main(report, CONFIG_DIR, "report")
