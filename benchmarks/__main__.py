"""Benchmarks: `python benchmarks` (`make bench`) runs all scripts and prints one table; `... start lenet5_epoch` two.

The table is also written to benchmarks/results/table.md and results.json, with the machine it was measured on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compare import HEADER, Row, line

FOLDER = Path(__file__).parent

SCRIPTS = (
    "response_norm", "alexnet_step", "augmentation", "lenet5_epoch", "processes", "threads", "start", "memory",
    "scaling", "onnx_speed",
)  # fmt: skip


def measured(script: str) -> list[Row]:
    """Returns the rows of one script; none if it fails (the script prints why)."""
    with TemporaryDirectory() as folder:
        kept = Path(folder) / "rows.json"
        done = subprocess.run([sys.executable, str(FOLDER / f"{script}.py"), "--json", str(kept)], check=False)
        if done.returncode != 0:
            print(f"{script} ended with {done.returncode}", flush=True)
            return []
        return [Row(**row) for row in json.loads(kept.read_text())]


def machine() -> str:
    """Describes the machine and the versions."""
    import torch  # noqa: PLC0415 - only after the measurements

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((text.split(":")[1].strip() for text in lines if text.startswith("model name")), "unknown processor")
    return f"{os.cpu_count()} cores ({model}), torch {torch.__version__}, Python {sys.version.split()[0]}"


def markdown(rows: list[Row], title: str) -> str:
    """Formats the table for docs/speed.md."""
    lines = [title, "", f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row.cells())} |" for row in rows)]) + "\n"


def write(rows: list[Row], seconds: float) -> None:
    """Writes the table and the JSON file."""
    folder = FOLDER / "results"
    folder.mkdir(exist_ok=True)
    title = f"{machine()}; {seconds:.0f} s in all"
    (folder / "table.md").write_text(markdown(rows, title))
    content: dict[str, Any] = {"machine": title, "rows": [row._asdict() for row in rows]}
    (folder / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    print(f"{title}; also in {folder / 'table.md'}")


def main() -> None:
    """Runs the scripts that the command line names, or all; the exit code is 0 if all of them succeed."""
    scripts = sys.argv[1:] or list(SCRIPTS)
    print(line(HEADER), flush=True)
    start = time.perf_counter()
    found = [measured(script) for script in scripts]
    write([row for rows in found for row in rows], time.perf_counter() - start)
    sys.exit(0 if all(found) else 1)


if __name__ == "__main__":
    main()
