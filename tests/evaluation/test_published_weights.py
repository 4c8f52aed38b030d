"""The files of results/weights: small, described by their page, and as good on MNIST as it says."""

from __future__ import annotations

import re

import numpy as np
import pytest
from commands import REPOSITORY

from alexnet_lab import load
from alexnet_lab.data import MNISTDataModule
from alexnet_lab.models.counts import num_parameters

FOLDER = REPOSITORY / "results" / "weights"

FILES = sorted(path.stem for path in FOLDER.glob("*.safetensors"))

ROW = re.compile(r"^\| `(\w+)\.safetensors` \| `experiment=(\w+)` \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", re.MULTILINE)


def rows() -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in ROW.findall((FOLDER / "README.md").read_text())}


def test_the_page_lists_each_file():
    assert FILES
    assert sorted(rows()) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_small_and_what_its_row_says(name):
    recipe, _, parameters, size = rows()[name]
    file = FOLDER / f"{name}.safetensors"
    assert file.stat().st_size == int(size.replace(",", "")) < 300_000
    run = load(file)
    assert num_parameters(run.net) == int(parameters.replace(",", ""))
    assert run.config["experiment"] == recipe
    assert run.class_names == list("0123456789")


@pytest.mark.parametrize("name", FILES)
def test_the_error_on_mnist_is_that_of_its_row(name, real_data):
    data = MNISTDataModule(dir=str(real_data))
    data.prepare_data()
    data.setup()
    test = data.rows("test")
    images, labels = np.asarray(test.images)[test.indices], test.labels[test.indices]
    found = load(FOLDER / f"{name}.safetensors").predict(images).argmax(1).numpy()
    assert int((found != labels).sum()) == pytest.approx(int(rows()[name][1]), abs=1)  # another processor may round
