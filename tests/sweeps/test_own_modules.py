"""A sweep over the fields of a LightningModule of one's own: every launcher runs it, and report.py shows it."""

from __future__ import annotations

import csv

import pytest
from commands import QUICK, command, finished

from alexnet_lab.sweeps.sweep_directory import SweepDirectory

SHORT = (*QUICK, "trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2")

OWN = """
import torch
from lightning import LightningModule
from torch import nn
from torch.nn import functional as F


class Plain(LightningModule):
    def __init__(self, num_classes: int, width: int = 16):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(49, width), nn.ReLU(), nn.Linear(width, num_classes))

    def forward(self, images):
        return self.net(images[:, :, ::4, ::4])

    def step(self, batch, stage):
        logits = self(batch[0])
        loss, wrong = F.cross_entropy(logits, batch[1]), (logits.argmax(1) != batch[1]).float().mean()
        self.log_dict({f"{stage}/loss": loss, f"{stage}/top1_error": wrong}, on_epoch=True, on_step=False)
        return loss, logits

    def training_step(self, batch, batch_idx):
        return self.step(batch, "train")[0]

    def validation_step(self, batch, batch_idx):
        return self.step(batch, "val")[1]

    def test_step(self, batch, batch_idx):
        return self.step(batch, "test")[1]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)
"""


@pytest.mark.timeout(900)  # two commands
@pytest.mark.parametrize("launcher", ["local", pytest.param("joblib", marks=pytest.mark.slow)])
def test_a_sweep_over_a_module_of_ones_own(launcher, digits_dir, tmp_path):
    (tmp_path / "own_module.py").write_text(OWN)
    place, start = tmp_path / "sweep", {"cwd": tmp_path, "PYTHONPATH": str(tmp_path)}
    words = ("module._target_=own_module.Plain", "+module.width=8,16", f"launcher={launcher}", f"data.dir={digits_dir}")
    outcome = finished(command("train.py", "-m", *words, *SHORT, f"hydra.sweep.dir={place}", **start), timeout=500)
    assert outcome.code == 0, outcome.err
    assert [line["status"] for line in SweepDirectory(place).latest().values()] == ["completed"] * 2
    with (place / "summary.csv").open() as file:
        assert [(row["level"], row["n"]) for row in csv.DictReader(file)] == [("8", "1"), ("16", "1")]
    assert "\n\nModel: LeNet5 (module Plain)\n\n" in (place / "summary.md").read_text()

    outcome = finished(command("report.py", f"sweep={place}", cwd=tmp_path))  # which need not import the module
    assert outcome.code == 0, outcome.err
    assert "LeNet5 (module Plain)" in (place / "report.html").read_text()
