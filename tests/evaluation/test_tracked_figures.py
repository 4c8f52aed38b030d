"""The figures of eval.py in the run's own W&B run, read back from the file of that."""

from __future__ import annotations

from pathlib import Path

import wandb_file
from evaluating import run_eval

from alexnet_lab.run import train

FEW = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1")


def test_figures_go_to_the_runs_own_wandb_run(compose, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    train(compose(f"run_dir={run}", *FEW, "logger=wandb"))
    (trained,) = run.glob("wandb/offline-run-*")
    run_eval(run, figures=["confusion", "kernels"])
    (later,) = set(run.glob("wandb/offline-run-*")) - {trained}
    (file,) = later.glob("*.wandb")
    found = wandb_file.read_file(file)
    assert file.stem == next(trained.glob("*.wandb")).stem  # the same id: the server adds it to the run
    assert found.exit_code == 0
    for name in ("confusion", "kernels"):
        (picture,) = [path for path in found.files if Path(path).name.startswith(f"{name}_")]
        assert (found.folder / picture).read_bytes() == (run / "eval" / "figures" / f"{name}.png").read_bytes()
    (row,) = [row for row in found.history if any("kernels" in name for name in row)]
    assert any("confusion" in name for name in row)
    run_eval(run, figures="confusion", split="val")  # pictures of another evaluation would hide those of the test set
    assert set(run.glob("wandb/offline-run-*")) == {trained, later}
