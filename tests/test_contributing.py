"""The examples of CONTRIBUTING.md, followed in a copy of the repository: what they add works as the text says."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from commands import REPOSITORY, Outcome, finished, forked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Outcome]

QUICK = (
    "logger=csv", "launcher=in_process", "trainer.num_threads=1", "callbacks.augmentation_preview=false",
    "trainer.progress_bar=false", "run_dir=run",
)  # fmt: skip


def code_blocks(heading: str) -> list[tuple[str, str]]:
    """The language and the text of each code block below a heading of CONTRIBUTING.md."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.search(rf"^### {re.escape(heading)}\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert section, f"CONTRIBUTING.md has no heading `{heading}`"
    return re.findall(r"^```(\w+)\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)


def write_files(heading: str, folder: Path) -> list[str]:
    """Writes the blocks that begin with a path; returns the lines of those in bash."""
    lines = []
    for language, text in code_blocks(heading):
        first, _, rest = text.partition("\n")
        if language == "bash":
            lines += text.splitlines()
        elif re.fullmatch(r"# [\w/.]+\.(py|yaml)", first):
            path = folder / first.removeprefix("# ")
            assert not path.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(rest, encoding="utf-8")
    return lines


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the repository's source and configs."""
    for name in ("src", "configs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "train.py", tmp_path)
    return tmp_path


@pytest.fixture
def run(clone: Path) -> Run:
    """Runs `python WORDS` in the copy, with its own source and without a login."""

    def started(line: str, *more: str) -> Outcome:
        python, *words = shlex.split(line)
        assert python == "python"
        if words[0] == "train.py":
            return finished(forked(str(clone / "train.py"), *words[1:], *more, cwd=clone))
        done = subprocess.run(
            [sys.executable, *words, *more], cwd=clone, capture_output=True, text=True, check=False, timeout=280,
            env=os.environ | {"PYTHONPATH": str(clone / "src"), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    return started


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("WANDB", "HYDRA", "ALEX"))]:
        monkeypatch.delenv(name)


def test_a_data_set_is_one_file_and_one_yaml(clone, run):
    (line,) = write_files("A data set", clone)
    outcome = run(line, *QUICK)
    assert outcome.code == 0, outcome.err
    assert json.loads((clone / "run" / "result.json").read_text())["metrics"]["test/top1_error"] <= 0.2
    assert sorted(path.name for path in (clone / "data" / "store").iterdir() if path.is_dir()) == ["stripes-16"]
    outcome = run(line, "data.stored_size=17", "run_dir=other")
    assert (outcome.code, "`data.stored_size` is 17 (int); allowed: 16" in outcome.err) == (2, True)
    assert not (clone / "other").exists()


def test_images_as_arrays_need_no_file(clone, run):
    ((language, text),) = code_blocks("Images as arrays")
    assert language == "python"
    (clone / "example.py").write_text(text)
    outcome = run("python example.py")
    assert outcome.code == 0, outcome.err
    assert "'test/top1_error': " in outcome.out


def test_a_model_is_one_file_and_one_yaml(clone, run):
    train, table = write_files("A model", clone)
    outcome = run(train, *QUICK)
    assert outcome.code == 0, outcome.err
    assert "run directory: run (7,890 parameters)" in outcome.err
    outcome = run(train, "model.activation=relo", "run_dir=other")
    assert outcome.code == 2
    assert "`model.activation` is 'relo' (str); allowed: 'relu' or 'tanh'" in outcome.err
    outcome = run(table)
    assert re.search(r"total .* 15,770 .* 29,792", outcome.out), outcome.out + outcome.err
    page = run("python -m alexnet_lab.models --markdown")
    assert "| `tiny` | 1x28x28 | 10 | 15,770 | 29,792 | 1,578 | One convolution and one dense layer" in page.out


def test_a_network_of_timm_is_one_yaml(clone, run):
    pytest.importorskip("timm")
    write_files("A model", clone)
    outcome = run("python train.py model=timm trainer.fast_dev_run=true", *QUICK)
    assert outcome.code == 0, outcome.err
    assert "run directory: run (4,927,186 parameters)" in outcome.err


def test_a_lightning_module_is_one_file_and_one_yaml(clone, run):
    (line,) = write_files("A LightningModule", clone)
    outcome = run(line, *QUICK)
    assert outcome.code == 0, outcome.err
    checkpoint = torch.load(clone / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["l1"] == 0.001
    assert checkpoint["config"]["module"]["_target_"].endswith("SparseClassifier")
    outcome = run(line, "module.l2=0.1", "run_dir=other")
    assert (outcome.code, "module.l2" in outcome.err) == (2, True), outcome.err
    assert not (clone / "other").exists()


def test_a_callback_is_one_file_and_one_yaml(clone, run):
    first, second = write_files("A callback", clone)
    outcome = run(first, *QUICK)
    assert outcome.code == 0, outcome.err
    with (clone / "run" / "metrics.csv").open() as file:
        rows = [float(row["layers/largest_weight"]) for row in csv.DictReader(file)]
    state = torch.load(clone / "run" / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["LargestWeight"]
    assert len(rows) == 2
    assert state["largest"] == pytest.approx(max(rows), rel=1e-6)
    outcome = run(first, "callbacks.largest_weight.scales=1.0", "run_dir=other")
    assert (outcome.code, "did you mean `scale`?" in outcome.err) == (2, True)
    outcome = run(second, *QUICK, "run_dir=averaged", "trainer.limit_train_batches=2")
    assert outcome.code == 0, outcome.err


def test_a_constructor_without_a_star_has_the_same_fields(clone, run):
    (line, _) = write_files("A callback", clone)
    file = clone / "src" / "alexnet_lab" / "training" / "largest_weight.py"
    file.write_text(file.read_text().replace("*, scale: float = 1.0", "scale: float = 1.0, top: float = float('inf')"))
    outcome = run(line, *QUICK, "trainer.limit_train_batches=2")
    assert outcome.code == 0, outcome.err
    config = (clone / "run" / "config.yaml").read_text()
    assert ("scale: 10.0" in config, "top:" in config) == (True, False)


def test_an_optimizer_of_torch_needs_no_file(clone, run):
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (words,) = re.findall(r"`(~optimizer [^`]*)`", text)
    outcome = run(f"python train.py {words}", *QUICK, "trainer.max_epochs=1", "trainer.limit_train_batches=2")
    assert outcome.code == 0, outcome.err
    checkpoint = torch.load(clone / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["config"]["optimizer"] == {"_target_": "torch.optim.AdamW", "lr": 0.001}
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["decoupled_weight_decay"] is True


def test_a_logger_is_one_yaml(clone, run):
    first, second = write_files("A logger", clone)
    quick = [word for word in QUICK if not word.startswith("logger")] + ["trainer.limit_train_batches=2"]
    outcome = run(first, *quick)
    assert outcome.code == 0, outcome.err
    assert "test/loss" in (clone / "run" / "rows" / "version_0" / "metrics.csv").read_text()
    outcome = run(second, *quick, "run_dir=two")
    assert outcome.code == 0, outcome.err
    assert (clone / "two" / "more" / "version_0" / "metrics.csv").is_file()
    assert list(clone.glob("two/tensorboard/events*"))
