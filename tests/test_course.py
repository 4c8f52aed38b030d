"""The course runs offline from top to bottom, GitHub shows its present text, and it answers all of its sources."""

from __future__ import annotations

import itertools
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from commands import REPOSITORY

NOTEBOOKS = REPOSITORY / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("*.py"))
LIMIT = 3_000_000
"""Bytes of all .ipynb together."""

TOPICS = {"1": 4, "2": 4, "3": 4}
"""Questions of each topic of the course notebooks 000 to 003: pooling and padding, LeNet-5, AlexNet."""

GUIDE = (
    "Background", "Motivation", "Key Breakthroughs", "ImageNet Dataset", "AlexNet Architecture", "Data Augmentation",
    "ReLU", "Convolutional Layer", "MaxPooling", "Overlapping Max Pooling", "Fully Connected Layers", "SoftMax Layer",
    "Local Response Normalization", "DropOut", "Output Dimension Calculation", "Batch Size",
    "SGD Optimizer and Learning Rate Scheduler", "Training the Model", "A Real World Example", "Evaluation",
    "Observations", "AlexNet Limitations",
)  # fmt: skip
"""Headings of the annotated guide 004."""

by_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading of docs/course.md."""
    section = text(REPOSITORY / "docs" / "course.md").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def sections(number: str) -> set[str]:
    """The headings of notebook `number`."""
    (source,) = NOTEBOOKS.glob(f"{number}_*.py")
    return set(re.findall(r"^# #+ (.+)$", text(source), re.MULTILINE))


@by_notebook
@pytest.mark.course
@pytest.mark.timeout(900)  # seconds; where trainings use the cores, all of it takes ten times as long
def test_it_runs_offline_without_a_warning(source, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "ALEXNET_LAB_DATA"}
    command = [sys.executable, REPOSITORY / "tools" / "course.py", "--into", tmp_path, source]
    settings = {"PYTHONWARNINGS": "error:::__main__", "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment | settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / f"{source.stem}.ipynb").exists()


@by_notebook
def test_github_shows_the_cells_of_the_text_with_their_outputs(source):
    shown = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    written = runpy.run_path(str(REPOSITORY / "tools" / "course.py"))["cells_of"](source)
    assert [(cell.cell_type, cell.source) for cell in shown.cells] == [
        (cell.cell_type, cell.source) for cell in written.cells
    ], "run `make course`"
    code = [cell for cell in shown.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 4
    content = text(source.with_suffix(".ipynb"))
    assert str(REPOSITORY) not in content
    assert str(Path.home()) + "/" not in content


def test_they_are_small():
    assert sum(path.stat().st_size for path in NOTEBOOKS.glob("*.ipynb")) < LIMIT


@by_notebook
def test_its_colab_button_opens_it(source):
    address = yaml.safe_load(text(REPOSITORY / "CITATION.cff"))["repository-code"]
    colab = address.replace("github.com", "colab.research.google.com/github")
    assert f"({colab}/blob/main/notebooks/{source.stem}.ipynb)" in text(source)
    assert f"!git clone -q {address} " in text(source)


def test_every_question_of_the_sources_is_mapped():
    asked = {(source, question) for source, question, _ in table("Where each question is answered")}
    numbered = {("000 to 003", f"{topic}.{number + 1}") for topic, count in TOPICS.items() for number in range(count)}
    mapped = {(source, question.split(" ")[0]) for source, question in asked if source == "000 to 003"}
    assert mapped == numbered
    headings = [question.split("; ") for source, question in asked if source == "004"]
    assert sorted(itertools.chain(*headings)) == sorted(GUIDE)


def test_every_mapped_section_exists():
    rows = table("Where each question is answered")
    places = [place for *_, answer in rows for place in answer.split("; ")]
    named = [re.fullmatch(r"(\d), (\*.+\*)", place) for place in places if not place.startswith("`")]
    assert all(named)
    for match in filter(None, named):
        missing = set(match[2].strip("*").split("*, *")) - sections(match[1])
        assert not missing, f"notebook {match[1]} has no section {missing}"


def test_every_mistake_names_its_notebook():
    for source, *_, right in table("What the sources got wrong"):
        assert re.match(r"00[0-4](, 00[0-4])*$", source)
        assert re.search(r"\(([1-5], )*[1-5]\)$", right), right
