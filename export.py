"""Turns a trained network into one file that needs neither torch nor this repository: `export.py run=RUN_DIR`."""

import sys
from pathlib import Path
from typing import Any

try:
    from alexnet_lab.base.memory import importing
    from alexnet_lab.config import check_export
    from alexnet_lab.config.main import main
except ModuleNotFoundError as error:
    sys.exit(f"error: {error}; run `source .venv/bin/activate`, or `make train`, which sets up .venv on a fresh clone")


def export(config: dict[str, Any]) -> None:
    """Checks the config before any heavy import, then exports."""
    checked = check_export(config)

    with importing():
        from alexnet_lab.export.command import export_checked  # noqa: PLC0415 - importing torch takes seconds

    export_checked(checked)


if __name__ == "__main__":
    main(export, Path(__file__).parent / "configs", "export")
