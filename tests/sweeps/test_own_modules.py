"""A sweep over the fields of a LightningModule of one's own: every launcher runs it, and report.py shows it."""

from __future__ import annotations

import csv

import pytest
from commands import QUICK, REPOSITORY, command, finished, forked

from alexnet_lab.sweeps.sweep_directory import SweepDirectory

SHORT = (*QUICK, "trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2")

PLAIN = REPOSITORY / "tests" / "plain_module.py"


@pytest.mark.timeout(900)  # two commands
@pytest.mark.parametrize("launcher", ["local", pytest.param("joblib", marks=pytest.mark.slow)])
def test_a_sweep_over_a_module_of_ones_own(launcher, digits_dir, tmp_path):
    (tmp_path / "own_module.py").write_text(PLAIN.read_text())
    place, start = tmp_path / "sweep", {"cwd": tmp_path, "PYTHONPATH": str(tmp_path)}
    words = ("module._target_=own_module.Plain", "+module.width=8,16", f"launcher={launcher}", f"data.dir={digits_dir}")
    outcome = finished(command("train.py", "-m", *words, *SHORT, f"hydra.sweep.dir={place}", **start), timeout=500)
    assert outcome.code == 0, outcome.err
    assert [line["status"] for line in SweepDirectory(place).latest().values()] == ["completed"] * 2
    with (place / "summary.csv").open() as file:
        assert [(row["level"], row["n"]) for row in csv.DictReader(file)] == [("8", "1"), ("16", "1")]
    assert "\n\nModel: LeNet5 (module Plain)\n\n" in (place / "summary.md").read_text()

    outcome = finished(forked("report.py", f"sweep={place}", cwd=tmp_path))  # which need not import the module
    assert outcome.code == 0, outcome.err
    assert "LeNet5 (module Plain)" in (place / "report.html").read_text()
