"""Continuous integration: one script, and no test that it requires is skipped."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

import pytest
import yaml
from commands import QUICK, REPOSITORY, skip_unless_required

import alexnet_lab
from alexnet_lab.config.main import main


@pytest.mark.parametrize(
    ("required", "outcome"), [("", "Skipped"), ("browser slurm", "Skipped"), ("data slurm", "Failed")]
)
def test_what_is_required_is_not_skipped(monkeypatch, required, outcome):
    monkeypatch.setenv("ALEXNET_LAB_REQUIRED", required)
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - pytest's outcomes are no Exceptions
        skip_unless_required("data", "ALEXNET_LAB_DATA is not set")
    assert type(raised.value).__name__ == outcome


def test_the_workflow_calls_the_script_that_everybody_calls():
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["test"]["steps"]
    assert [step["run"].split("#")[0].split()[-1] for step in steps if "run" in step] == [".ci/run"]
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)


def test_one_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    heading = next(
        line
        for line in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("## ") and line != "## Unreleased"
    )
    assert citation["version"] == alexnet_lab.__version__
    assert heading == f"## {alexnet_lab.__version__} ({citation['date-released']})"


def test_the_base_install_is_what_a_run_needs(tmp_path, digits_dir):
    """A run, its evaluation, its export and its report import no package of the extras."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = {requirement.split(">")[0] for requirement in project["dependencies"]}
    assert not base & {"onnx", "tensorboard", "wandb-workspaces", "playwright", "optuna", "submitit", "pytest"}
    blocked = (
        "onnx",
        "onnxscript",
        "onnxruntime",
        "tensorboard",
        "wandb_workspaces",
        "playwright",
        "optuna",
        "submitit",
        "joblib_launcher",
    )
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n", encoding="utf-8"
    )  # None in sys.modules: import raises ModuleNotFoundError
    run, report = tmp_path / "run", tmp_path / "report"
    commands = [
        ["train.py", f"data.dir={digits_dir}", f"run_dir={run}", *QUICK, "trainer.max_epochs=1", "debug=fast"],
        ["eval.py", f"run={run}"],
        ["export.py", f"run={run}", "format=torch_export"],
        ["report.py", f"runs={run}", f"out={report}"],
    ]
    script = f"""
import contextlib, runpy, sys
if __name__ == "__main__":
    sys.path.insert(0, {str(REPOSITORY)!r})
    for words in {commands!r}:
        sys.argv = words
        with contextlib.suppress(SystemExit):
            runpy.run_path({str(REPOSITORY)!r} + "/" + words[0], run_name="__main__")
"""
    path = tmp_path / "all.py"
    path.write_text(script, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, path], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (report / "report.html").is_file(), done.stderr
    assert (run / "export" / "run.pt2").is_file(), done.stderr


def test_windows_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as raised:
        main(lambda config: None, REPOSITORY / "configs", "train")
    assert str(raised.value) == (
        "error: AlexNet Lab runs on Linux and macOS, not on Windows; install WSL2: wsl --install"
    )
