"""The commands of the README do what it says: each is run, with `debug=fast` and narrow networks."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from commands import REPOSITORY
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from alexnet_lab.data.sources.cifar10 import NAMES
from alexnet_lab.evaluation.figures import registry
from alexnet_lab.run.run_directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
LINES = [line.strip() for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
SHORT = ("debug=fast", "trainer.num_threads=1")
"""Added to each training command."""


def commands(start: str) -> list[str]:
    return [line for line in LINES if line.startswith(start)]


def run_script(script: str, *words: str) -> int:
    """`python script words` in this process, where torch is loaded already."""
    before, sys.argv = sys.argv, [script, *words]
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()
    return ended.value.code if isinstance(ended.value.code, int) else 1


def finished_runs(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in folder.glob("logs/**/result.json")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_dir: Path) -> Path:
    """A working directory of its own, with the digits where no other data is."""
    monkeypatch.chdir(tmp_path)
    if not os.environ.get("ALEXNET_LAB_DATA"):
        monkeypatch.delenv("ALEXNET_LAB_DATA", raising=False)
        (tmp_path / "data").symlink_to(digits_dir)
    return tmp_path


@pytest.fixture(scope="session")
def small_cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder copy of CIFAR-10 of 20 and 4 random images in each class."""
    folder, rng = tmp_path_factory.mktemp("cifar10"), np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 4)):
        for name in NAMES:
            (folder / "cifar10" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "cifar10" / part / name / f"{number:04}.png")
    return folder


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_dir: Path):
    """As it stands: the data set is where `compose` looks for it."""
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALEXNET_LAB_DATA", str(digits_dir))
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert (RunDirectory("logs/runs/first").read_result() or {})["status"] == "completed"
    assert names["probabilities"].shape == (8, 10)
    assert names["probabilities"].sum(1).numpy() == pytest.approx(np.ones(8), abs=1e-5)
    alone = names["run"].predict(names["test"].images[names["test"].indices[:8]])
    assert torch.equal(alone, names["probabilities"])
    assert names["net"](torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_every_line_is_known():
    assert len(README.splitlines()) < 200
    known = ("python train.py", "python eval.py", "python report.py", "python export.py", "make ", "source ", "#")
    assert [line for line in LINES if line and not line.startswith(known)] == []
    assert len(commands("python train.py")) >= 5


@pytest.mark.parametrize("line", [line for line in commands("python train.py") if "resume=" not in line])
def test_train(line, here, monkeypatch, small_cifar10):
    words = shlex.split(line)[2:]
    if "--help" in words:
        assert run_script("train.py", *words) == 0
        return
    if "cifar10" in line:
        monkeypatch.setenv("ALEXNET_LAB_DATA", str(small_cifar10))
    elif "mnist" in line and not os.environ.get("ALEXNET_LAB_DATA"):
        pytest.skip("needs MNIST")
    if "trainer=gpu" in words and not torch.cuda.is_available():
        words.remove("trainer=gpu")
    narrow = ["model.width=0.0625", "data.batch_size=64"] if any("alexnet" in word for word in words) else []
    one_seed = ["seed=0"] if "-m" in words else []
    assert run_script("train.py", *words, *narrow, *one_seed, *SHORT) == 0
    sweeps = [json.loads(path.read_text()) for path in here.glob("logs/sweeps/*/sweep.json")]
    jobs = sum(len(sweep["jobs"]) for sweep in sweeps) if "-m" in words else 1
    assert jobs >= (2 if "-m" in words else 1)
    results = finished_runs(here)
    assert [result["status"] for result in results] == ["completed"] * jobs


def make_another_run(copy: Path) -> None:
    """Makes a copied run one of other weights: a run is not averaged with itself."""
    directory = RunDirectory(copy)
    checkpoint = torch.load(directory.best, weights_only=True)
    checkpoint["state_dict"]["net.classifier.output.bias"] += 1.0
    torch.save(checkpoint, directory.best)
    directory.write_result(directory.read_result() or {})


@pytest.mark.parametrize("line", [line for line in LINES if "logs/runs/" in line and "report.py" not in line])
def test_commands_on_a_run(line, here, digits_run, monkeypatch):
    for name in ("NAME", "A", "B"):
        shutil.copytree(digits_run, here / "logs" / "runs" / name)
    make_another_run(here / "logs" / "runs" / "B")
    (here / "FOLDER").mkdir()
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(here / "FOLDER" / "image.png")
    run = here / "logs" / "runs" / "NAME"
    _, script, *words = shlex.split(line)
    if "resume=" in line:
        (run / "result.json").unlink()
    if "figures=all" in words:  # tests/evaluation/test_figures.py draws all of them
        monkeypatch.setattr(registry, "FIGURES", {name: registry.FIGURES[name] for name in ("kernels", "retrieval")})
    assert run_script(script, *words) == 0
    assert json.loads((run / "result.json").read_text())["status"] == "completed"
    if script == "eval.py":
        assert len(list(here.glob("logs/runs/*/eval/*.json"))) == 1
    if "views=ten" in words:
        assert (run / "eval" / "test_ten.json").is_file()
    if "figures=all" in words:
        assert (run / "eval" / "figures" / "retrieval.svg").is_file()


@pytest.mark.parametrize("line", commands("python report.py"))
def test_report(line, here, digits_run):
    run = here / "logs" / "runs" / "NAME"
    sweep = here / "logs" / "sweeps" / "NAME"
    shutil.copytree(digits_run, run)
    shutil.copytree(digits_run, sweep / "seed-0")
    job = {"job": "seed-0", "run_dir": "seed-0", "overrides": ["seed=0"], "config": {}}
    about = {"name": "seeds", "factor": [], "base": [], "metric": "test/top1_error", "command": "", "overrides": []}
    (sweep / "sweep.json").write_text(json.dumps(about | {"config": {}, "jobs": [job]}))
    assert run_script(*shlex.split(line)[1:]) == 0
    (report,) = here.glob("logs/**/report.html")
    assert "1 of 1 run completed" in report.read_text()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("line", commands("make "))
def test_make(line):
    done = subprocess.run(
        ["make", "-n", *shlex.split(line)[1:]], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "python" in done.stdout
