"""A run of three or four processes that is resumed from a checkpoint ends as one that was not interrupted, bit for bit.

With two processes a wrong order of gradients in DDP's buckets would not show: a + b is b + a.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from endings import assert_same_ending

from alexnet_lab.run import train

WORDS = (
    "model=alexnet", "model.width=0.05", "model.towers=1", "trainer.max_epochs=2", "trainer.limit_train_batches=3",
    "trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "trainer.accelerator=cpu", "data.batch_size=12",
)  # fmt: skip


def train_keeping_the_first_checkpoint(config: dict[str, Any], copy: Path) -> None:
    """Trains; `copy` becomes the run directory as it was soon after the first checkpoint was written."""
    run, ended = Path(config["run_dir"]), threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            if (run / "checkpoints" / "last.ckpt").exists():
                shutil.copytree(run, copy)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        train(config)
    finally:
        ended.set()
        watcher.join()


@pytest.mark.parametrize("processes", [3, 4])
def test_resumed_run_of_several_processes_repeats_the_bits(processes, compose, tmp_path):
    whole, copy = tmp_path / "whole", tmp_path / "copy"
    config = compose(f"run_dir={whole}", *WORDS, f"trainer.devices={processes}")
    train_keeping_the_first_checkpoint(config, copy)
    train({"resume": str(copy)})
    assert_same_ending(copy, whole)
