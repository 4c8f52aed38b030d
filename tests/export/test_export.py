"""export.py: its files give the probabilities of the run, and nothing of the user's is overwritten."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commands import REPOSITORY, Outcome, call
from PIL import Image

from alexnet_lab.config import check_evaluate, check_export, export_checks
from alexnet_lab.evaluation import evaluate as evaluation
from alexnet_lab.evaluation.load import load
from alexnet_lab.export import export, onnx_file
from alexnet_lab.export.command import export_checked
from alexnet_lab.run.run_directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path


def export_py(*words: object) -> Outcome:
    return call(lambda config: export_checked(check_export(config)), "export", *map(str, words))


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)


def probabilities(path: Path, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probabilities"], {"pixels": pixels})[0])


def test_an_onnx_file_gives_the_probabilities_of_the_run(run):
    """The digits are stored at 8 px and enlarged to 28 px within the file."""
    outcome = export_py(f"run={run}")
    assert outcome.code == 0, outcome.err
    path = run / "export" / "run.onnx"
    assert outcome.err.startswith(f"{path} (")
    assert "its logits differ from the run's by at most " in outcome.err
    for count in (1, 5):
        assert probabilities(path, noise(count)) == pytest.approx(load(run).predict(noise(count)).numpy(), abs=1e-6)
    entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(entries["class_names"]) == [str(digit) for digit in range(10)]
    assert entries["input"] == "pixels: uint8 (batch, 1, 8, 8), grey, 0 to 255"
    assert entries["run"] == "run"
    result = RunDirectory(run).read_result() or {}
    assert json.loads(entries["metrics"])["test/top1_error"] == result["metrics"]["test/top1_error"]
    before = path.read_bytes()
    assert str(run).encode() not in before
    assert export_py(f"run={run}").code == 0  # again, in place of the former
    assert path.read_bytes() == before


def test_a_pt2_file_and_a_weights_file_without_data(run, tmp_path, monkeypatch):
    wanted = load(run).predict(noise(3)).numpy()
    monkeypatch.setenv("ALEXNET_LAB_DATA", str(tmp_path / "nothing"))
    weights = run / "checkpoints" / "best.safetensors"
    path = export(weights, format="torch_export")
    assert path == weights.with_suffix(".pt2")
    extra = {"description.json": ""}
    found = torch.export.load(path, extra_files=extra).module()(torch.from_numpy(noise(3)))[1]
    assert found.detach().numpy() == pytest.approx(wanted, abs=1e-6)
    assert json.loads(extra["description.json"])["class_names"] == [str(digit) for digit in range(10)]
    outcome = export_py(f"run={weights}", "format=torch_export")
    assert (outcome.code, "which exists; choose another file, or set overwrite=true" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["format=onx"], "`format` is 'onx' (str); allowed: 'onnx', 'torch_export' or 'demo'"),
        (["run=[a,b]"], "`run` is ['a', 'b'] (list); allowed: string"),
        (["dir=a"], "unknown key `dir`; did you mean `data.dir`?"),
        (["fromat=onnx"], "unknown key `fromat`; did you mean `format`?"),
        (["out=FOLDER/net.pt"], "FOLDER/net.pt; a file of format=onnx ends in .onnx: out=FOLDER/net.onnx"),
        (["out=FOLDER"], "FOLDER, a folder; allowed: a file of format=onnx: out=FOLDER/NAME.onnx"),
        (["out=FOLDER/kept.onnx"], "kept.onnx, which exists; choose another file, or set overwrite=true to replace it"),
        (["out=FOLDER/kept.onnx/net.onnx"], "net.onnx, which cannot be written: "),
        (["out=''"], "`out` is '' (str)"),
        (["format=demo", "response_norm=convolution"], "`response_norm` is convolution, which only format=onnx has"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_read(words, message, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "kept.onnx").write_text("mine")
    outcome = export_py("run=no-such-run", *(word.replace("FOLDER", str(folder)) for word in words))
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert message.replace("FOLDER", str(folder)) in outcome.err
    assert [path.name for path in folder.iterdir()] == ["kept.onnx"]
    assert (folder / "kept.onnx").read_text() == "mine"


def test_missing_packages_are_named_with_their_extra(monkeypatch):
    monkeypatch.setattr(export_checks, "FORMATS", {"onnx": export_checks.Format(".onnx", ("onnx", "no_such_package"))})
    outcome = export_py("run=no-such-run")
    assert outcome.code == 2
    assert outcome.err == "error: format=onnx needs no_such_package: pip install 'alexnet-lab[export]'\n"


def test_an_unfinished_run_is_refused(run):
    (run / "result.json").unlink()
    outcome = export_py(f"run={run}")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "is unfinished; export.py takes finished runs; resume it: python train.py resume=" in outcome.err
    assert not (run / "export").exists()


def test_a_file_that_differs_from_its_run_is_not_written(run, tmp_path, monkeypatch):
    out = tmp_path / "net.onnx"
    out.write_text("former")
    exact = onnx_file.logits
    monkeypatch.setattr(onnx_file, "logits", lambda path, pixels: 1.001 * exact(path, pixels))
    outcome = export_py(f"run={run}", f"out={out}", "overwrite=true")
    assert outcome.code == 1
    assert "the logits of the file differ from the run's by 1.0e-03 of the largest one, allowed: 0.0001" in outcome.err
    assert out.read_text() == "former"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "run"]


def test_the_example_serves_what_eval_py_predicts(run, tmp_path):
    """In a process without torch and without this package."""
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for number, (size, mode) in enumerate([((8, 8), "L"), ((31, 20), "RGB"), ((9, 40), "RGBA"), ((12, 12), "P")]):
        shape = (size[1], size[0], *([len(mode)] if mode in ("RGB", "RGBA") else []))
        picture = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), None if mode == "P" else mode)
        exif = Image.Exif()
        exif[0x0112] = 6  # turned
        (picture.convert("P") if mode == "P" else picture).save(images / f"{number}.png", exif=exif)
    deep = rng.integers(0, 256, (30, 20), dtype=np.uint16) * 256 + 255
    Image.fromarray(deep).save(images / "sixteen_bits.png")
    assert export_py(f"run={run}", f"out={tmp_path / 'net.onnx'}").code == 0
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules.update(dict.fromkeys(['torch', 'alexnet_lab']))\n"
    )
    done = subprocess.run(
        [sys.executable, REPOSITORY / "examples" / "serve_onnx.py", "net.onnx", "images"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    evaluation.evaluate(check_evaluate({"run": str(run), "num_threads": 1, "data": {"root": str(images)}}))
    with (run / "eval" / "own_images_center_images.csv").open(newline="") as file:
        wanted = [(row["file"], row["class 1"], float(row["probability 1"])) for row in csv.DictReader(file)]
    with (tmp_path / "predictions.csv").open(newline="") as file:
        found = [(row["file"], row["class"], float(row["probability"])) for row in csv.DictReader(file)]
    assert [row[:2] for row in found] == [row[:2] for row in wanted]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in wanted], abs=1.01e-4)
    lines = (REPOSITORY / "examples" / "serve_onnx.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60


def test_half_precision_training_is_compared_in_float32(compose: Any, tmp_path):
    from alexnet_lab.run import train

    run = tmp_path / "half"
    train(
        compose(f"run_dir={run}", "trainer.precision=bf16-mixed", "debug=fast", "model=lenet5_1998", "loss=lenet5_1998")
    )
    assert export_py(f"run={run}", "format=torch_export").code == 0
