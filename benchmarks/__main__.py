"""`python benchmarks` (`make bench`) runs all of them and prints one table; `python benchmarks start lenet5_epoch` two.

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
    "scaling",
)  # fmt: skip


def measured(script: str) -> list[Row]:
    """The rows of one script; none if it fails, which its own message tells."""
    with TemporaryDirectory() as folder:
        kept = Path(folder) / "rows.json"
        done = subprocess.run([sys.executable, str(FOLDER / f"{script}.py"), "--json", str(kept)], check=False)
        if done.returncode != 0:
            print(f"{script} ended with {done.returncode}", flush=True)
            return []
        return [Row(**row) for row in json.loads(kept.read_text())]


def machine() -> str:
    """What the numbers were measured on."""
    import torch  # noqa: PLC0415 - in the end, not beside what is measured

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((text.split(":")[1].strip() for text in lines if text.startswith("model name")), "unknown processor")
    return f"{os.cpu_count()} cores ({model}), torch {torch.__version__}, Python {sys.version.split()[0]}"


def markdown(rows: list[Row], title: str) -> str:
    """The table for docs/speed.md."""
    lines = [title, "", f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row.cells())} |" for row in rows)]) + "\n"


def write(rows: list[Row], seconds: float) -> None:
    """Both files."""
    folder = FOLDER / "results"
    folder.mkdir(exist_ok=True)
    title = f"{machine()}; {seconds:.0f} s in all"
    (folder / "table.md").write_text(markdown(rows, title))
    content: dict[str, Any] = {"machine": title, "rows": [row._asdict() for row in rows]}
    (folder / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    print(f"{title}; also in {folder / 'table.md'}")


def main() -> None:
    """Runs the scripts that the command line names, or all; the code tells whether all of them ran."""
    scripts = sys.argv[1:] or list(SCRIPTS)
    print(line(HEADER), flush=True)
    start = time.perf_counter()
    found = [measured(script) for script in scripts]
    write([row for rows in found for row in rows], time.perf_counter() - start)
    sys.exit(0 if all(found) else 1)


if __name__ == "__main__":
    main()
