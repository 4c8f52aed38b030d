"""Executes the course: `python tools/course.py [--into FOLDER] [NOTEBOOK.py ...]`; `make course` does all of them.

The source of a notebook is text: `notebooks/*.py` in jupytext's percent format. Beside it lies the `.ipynb`, the same
cells with their outputs, which GitHub shows. The runs and data sets of the course go into the current directory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},  # knows lines such as !git clone
}


PERCENT = {"extension": ".py", "format_name": "percent", "comment_magics": True}
"""jupytext's format: lines such as `# %matplotlib inline` are commands of the notebook."""


def cells_of(source: Path) -> NotebookNode:
    """A text notebook without outputs."""
    return jupytext.read(source, fmt=PERCENT)


def executed(source: Path, seconds: int = 900) -> NotebookNode:
    """The cells of a text notebook with their outputs.

    Args:
        source: In percent format.
        seconds: That one cell may take.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed; the message holds its traceback.
    """
    notebook = cells_of(source)
    NotebookClient(notebook, timeout=seconds, kernel_name="python3", record_timing=False).execute()
    return notebook


def tidied(notebook: NotebookNode) -> NotebookNode:
    """The same without what differs from one execution to the next: random ids, and the training log on stderr."""
    notebook.metadata = nbformat.from_dict(KERNEL)
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", NotebookNode()
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main() -> None:
    """Executes notebooks and writes them as .ipynb."""
    parser = argparse.ArgumentParser(description="Executes the notebooks of the course and writes them as .ipynb.")
    parser.add_argument("sources", nargs="*", type=Path, metavar="NOTEBOOK.py", help="default: all of notebooks/")
    parser.add_argument("--into", type=Path, default=NOTEBOOKS, metavar="FOLDER", help="of the .ipynb (notebooks/)")
    arguments = parser.parse_args()
    for source in arguments.sources or sorted(NOTEBOOKS.glob("*.py")):
        target = arguments.into / f"{source.stem}.ipynb"
        nbformat.write(tidied(executed(source)), target)
        print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
