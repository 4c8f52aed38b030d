"""`sweep=search` as a command: Ctrl-C in the midst, the same command again, a dry run, a wrong request."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from commands import REPOSITORY, finished, forked

if TYPE_CHECKING:
    from pathlib import Path

optuna = pytest.importorskip("optuna")

WORDS = (
    "-m", "sweep=search", "hydra.sweeper.params={}", "hydra.sweeper.sampler=random", "data.batch_size=16",
    "logger=csv", "trainer.accelerator=cpu", "trainer.max_epochs=4", "trainer.limit_train_batches=6",
    "callbacks.augmentation_preview=false", "callbacks.pruning={startup_trials:1,warmup_epochs:1}",
    "schedule=constant",
)  # fmt: skip
DECAY = "optimizer.weight_decay=tag(log,interval(0.00001,0.01))"  # of search.yaml
RATES = "optimizer.learning_rate=choice(0.05,1e18)"
"""One that learns, one that diverges."""


def search(place: Path, data: Path, trials: int, *words: str) -> Any:
    return forked("train.py", *WORDS, RATES, f"hydra.sweeper.trials={trials}", f"data.dir={data}",
                  f"hydra.sweep.dir={place}", *words, cwd=place.parent, group=True)  # fmt: skip


def states(place: Path) -> list[tuple[str, str]]:
    """Each trial's rate and state."""
    from alexnet_lab.run.pruning import JOURNAL, STUDY, open_journal

    study = optuna.load_study(study_name=STUDY, storage=open_journal(str(place / JOURNAL)))
    return [(trial.params["optimizer.learning_rate"], trial.state.name) for trial in study.trials]


@pytest.mark.slow
def test_a_search_survives_what_its_trials_do(digits_dir, tmp_path):
    place = tmp_path / "search"
    process = search(place, digits_dir, 6)
    end = time.monotonic() + 120
    while not list(place.glob("*/checkpoints/last.ckpt")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert finished(process).code == 130
    before = states(place)
    assert 1 <= len(before) < 6
    done = finished(search(place, digits_dir, 6))
    assert done.code == 0, done.err
    after = states(place)
    assert len(after) == 6
    assert [rate for rate, _ in after[: len(before)]] == [rate for rate, _ in before]
    assert {state for rate, state in after if rate == "1e18"} <= {"FAIL"}
    assert {state for rate, state in after if rate == "0.05"} <= {"COMPLETE", "PRUNED"}
    assert ("0.05", "COMPLETE") in after
    lines = done.out.splitlines()
    best = lines.index("val/top1_error of the best trials") + 1
    assert "optimizer.learning_rate=0.05" in lines[best]
    again = f"{sys.executable} {REPOSITORY / 'train.py'} -m data.batch_size=16 "
    assert lines[-1].startswith(f"the best with several seeds: {again}")
    assert "optimizer.learning_rate=0.05" in lines[-1]
    assert lines[-1].endswith("'seed=range(0,5)'")
    assert json.loads((place / "sweep.json").read_text())["name"] == "search"
    again = finished(search(place, digits_dir, 6))
    assert (again.code, states(place)) == (0, after)


def test_a_dry_run_lists_the_ranges_and_leaves_nothing(digits_dir, tmp_path):
    done = finished(search(tmp_path / "search", digits_dir, 6, "--dry-run"))
    assert (done.code, done.out) == (0, f"6 trials over\n  {RATES}\n  {DECAY}\n")
    assert not (tmp_path / "search").exists()


def test_an_impossible_search_is_refused(digits_dir, tmp_path):
    done = finished(search(tmp_path / "search", digits_dir, 6, "hydra.sweeper.sampler=grid"))
    assert (done.code, done.err) == (2, "error: `hydra.sweeper.sampler` is 'grid' (str); allowed: 'tpe' or 'random'\n")
