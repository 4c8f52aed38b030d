"""How far it is from a command to `trainer.fit`: few of our own frames, and the cluster's part is left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from commands import QUICK, REPOSITORY, finished, forked

if TYPE_CHECKING:
    from pathlib import Path

LOSS = """
import json, sys, traceback
from alexnet_lab.training.losses import CrossEntropy

class Loss(CrossEntropy):
    def forward(self, logits, labels):
        frames = [(frame.filename, frame.name) for frame in traceback.extract_stack()]
        if any(name == "fit" and file.endswith("pytorch/trainer/trainer.py") for file, name in frames):
            with open("frames.json", "w") as file:
                json.dump([frames, "alexnet_lab.run.multinode" in sys.modules], file)
        return super().forward(logits, labels)
"""
"""A loss that notes the stack on which it is computed."""


def frames(folder: Path, digits_dir: Path, *words: str) -> tuple[list[str], bool]:
    """Our own functions above `trainer.fit` in a run of `train.py`, and whether the cluster's part was imported."""
    (folder / "noting.py").write_text(LOSS)
    words = (
        *QUICK, f"data.dir={digits_dir}", "trainer.max_steps=2", "trainer.limit_val_batches=0", f"run_dir={folder}/run",
        "loss._target_=noting.Loss", "trusted_packages=[noting]", *words,
    )  # fmt: skip
    outcome = finished(forked("train.py", *words, cwd=folder, PYTHONPATH=str(folder)))
    assert outcome.code == 0, outcome.err
    stack, clustered = json.loads((folder / "frames.json").read_text())
    fit = next(at for at, (file, name) in enumerate(stack) if name == "fit" and file.endswith("trainer/trainer.py"))
    ours = (str(REPOSITORY / "src"), str(REPOSITORY / "train.py"))
    return [name for file, name in stack[:fit] if file.startswith(ours)], clustered


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        ("in_process", ["<module>", "main", "run", "train", "run", "fit", "fit_and_test"]),
        ("local", ["work", "fit_and_test"]),  # from the start of the worker process
    ],
)
def test_few_frames_lie_between_the_command_and_the_training(launcher, expected, digits_dir, tmp_path):
    words = (f"launcher={launcher}", *(["launcher.workers=true"] if launcher == "local" else []))
    assert frames(tmp_path, digits_dir, *words) == (expected, False)
