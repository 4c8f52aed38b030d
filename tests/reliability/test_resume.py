"""Which checkpoint a run resumes from, and when it refuses to: damaged files, other configs, images and code."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from endings import assert_same_ending

from alexnet_lab.base.errors import ConfigError, DataError, RunError
from alexnet_lab.base.files import link_or_copy
from alexnet_lab.base.log import start_log
from alexnet_lab.base.signals import Terminated
from alexnet_lab.run import checkpoint_identity, train
from alexnet_lab.run.last_step import EndAfterStep
from alexnet_lab.training import per_rank_state
from alexnet_lab.training.checkpoint_io import MAY_FAIL, SafeCheckpointIO
from alexnet_lab.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def unfinished(digits_run: Path, tmp_path: Path) -> Path:
    """A copy of a run, as if it had been killed after its last step."""
    run = shutil.copytree(digits_run, tmp_path / "run")
    (run / "result.json").unlink()
    return run


@pytest.mark.parametrize("size", [0, 100_000])
def test_last_checkpoint_cut_short(unfinished, digits_run, size, capsys):
    folder = unfinished / "checkpoints"
    shutil.copy(folder / "last.ckpt", folder / "previous.ckpt")
    (folder / "last.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:size])
    train({"resume": str(unfinished)})
    lines = [line for line in capsys.readouterr().err.splitlines() if "last.ckpt" in line]
    assert len(lines) == 1
    assert f"last.ckpt is damaged or cut short ({size:,} bytes)" in lines[0]
    assert lines[0].endswith("resuming from previous.ckpt, of epoch 2, step 24")
    shutil.copy(digits_run / "checkpoints" / "last.ckpt", folder)  # the run had no step to do any more
    assert_same_ending(unfinished, digits_run)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, r"is damaged or cut short \(4 bytes\)"), ([1], "is no checkpoint of a run: it has no state_dict"),
        ({"state_dict": {}}, "is no checkpoint of a run: it has no optimizer_states"),
    ],
)  # fmt: skip
def test_best_is_resumed_from_where_nothing_else_is_whole(content, problem, unfinished, capsys):
    path = unfinished / "checkpoints" / "last.ckpt"
    path.write_bytes(b"PK\x03\x04")
    if content is not None:
        torch.save(content, path)
    assert train({"resume": str(unfinished)})["status"] == "completed"
    assert re.search(rf"last\.ckpt {problem}; resuming from best\.ckpt", capsys.readouterr().err)


def test_nothing_whole(unfinished):
    for name in ("last", "best"):
        (unfinished / "checkpoints" / f"{name}.ckpt").write_bytes(b"")
    with pytest.raises(RunError, match=r"last.ckpt is damaged or cut short \(0 bytes\)"):
        train({"resume": str(unfinished)})


def test_parts_that_a_killed_run_left_are_cleared(unfinished):
    part = unfinished / "checkpoints" / ".last.ckpt.x7.part"
    part.write_bytes(b"half")
    train({"resume": str(unfinished)})
    assert not part.exists()


def test_other_config_by_force(unfinished, capsys):
    path = unfinished / "config.yaml"
    path.write_text(path.read_text().replace("limit_test_batches: 1.0", "limit_test_batches: 3"))
    message = r"`trainer.limit_test_batches` is 3, the checkpoint has 1.0; .*or set resume_force=true"
    with pytest.raises(RunError, match=message):
        train({"resume": str(unfinished)})
    train({"resume": str(unfinished), "resume_force": True, "overrides": ["resume_force=true"]})
    assert "the checkpoint has 1.0; resume_force continues anyway" in capsys.readouterr().err


def test_force_needs_a_run(compose):
    with pytest.raises(ConfigError, match=r"`resume_force` only applies to a resumed run; add resume=RUN_DIR"):
        train(compose("resume_force=true"))


def test_other_images_by_force(unfinished, capsys):
    path = unfinished / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["DigitsDataModule"] = {"store_hash": "f" * 64, "num_train": 1200}
    torch.save(checkpoint, path)
    message = r"are not .* \(1,200 train images, store f{12}; now 1,294 train images, store [0-9a-f]{12}\); restore"
    with pytest.raises(DataError, match=message):
        train({"resume": str(unfinished)})
    train({"resume": str(unfinished), "resume_force": True})
    assert "resume_force=true continues" in capsys.readouterr().err


def test_other_code_is_a_warning(caplog):
    now = checkpoint_identity.provenance.code()
    assert set(now) == {"torch", "lightning", "numpy", "alexnet_lab"}
    start_log()
    logging.getLogger("alexnet_lab").addHandler(caplog.handler)
    checkpoint_identity.warn_of_other_code({"code": now})
    assert caplog.messages == []
    checkpoint_identity.warn_of_other_code({"code": now | {"torch": "1.0"}})
    assert caplog.messages == [
        f"the code has changed since the checkpoint: torch 1.0 -> {now['torch']}; the result may differ"
    ]


def test_same_run_after_the_store_was_rebuilt(compose, tmp_path):
    words = ("trainer.max_epochs=2", "trainer.limit_train_batches=4", f"data.dir={tmp_path / 'data'}")
    train(compose(f"run_dir={tmp_path / 'one'}", *words))
    shutil.rmtree(tmp_path / "data")
    train(compose(f"run_dir={tmp_path / 'two'}", *words))
    assert_same_ending(tmp_path / "two", tmp_path / "one")


# The parts


def test_counts_of_processes_are_given_back_or_added_up(monkeypatch):
    every = [[1, 2.5], [3, 4.0]]
    monkeypatch.setattr(per_rank_state, "rank_and_size", lambda: (1, 2))
    assert per_rank_state.own_part(every) == [3, 4.0]
    monkeypatch.setattr(per_rank_state, "rank_and_size", lambda: (0, 4))
    assert per_rank_state.own_part(every) == [4, 6.5]
    monkeypatch.setattr(per_rank_state, "rank_and_size", lambda: (3, 4))
    assert per_rank_state.own_part(every) == [0, 0]


@pytest.mark.parametrize("links", [True, False])
def test_second_name_of_a_file(links, tmp_path, monkeypatch):
    if not links:
        monkeypatch.setattr("pathlib.Path.hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(1, "not permitted")))
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("new")
    target.write_text("old")
    for _ in range(2):
        link_or_copy(source, target)
        assert (source.read_text(), target.read_text()) == ("new", "new")
    assert target.samefile(source) is links
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_file_that_can_be_done_without(tmp_path, caplog):
    start_log()
    logging.getLogger("alexnet_lab").addHandler(caplog.handler)
    (tmp_path / "file").write_text("")
    io = SafeCheckpointIO()
    with pytest.raises(OSError, match=r"exists|directory"):
        io.save_checkpoint({}, tmp_path / "file" / "a.ckpt")
    io.save_checkpoint({}, tmp_path / "file" / "a.ckpt", MAY_FAIL)
    assert "training continues" in caplog.text


def test_best_epoch(tmp_path):
    """Equal: the later one; not validated: no; NaN: only as long as there is no number."""
    keep = Checkpoints(tmp_path, "val/loss")
    found = [keep._is_best(score, epoch) for epoch, score in enumerate([None, float("nan"), 0.5, None, 0.6, 0.5, 0.4])]
    assert found == [True, True, True, False, False, True, True]
    assert (keep.best_score, keep.best_epoch) == (0.4, 6)


def test_minutes_are_counted_from_the_last_checkpoint(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("alexnet_lab.training.checkpoints.time.monotonic", lambda: clock[0])
    keep = Checkpoints(tmp_path, "val/loss", every_minutes=0.5)
    trainer: Any = type("T", (), {"world_size": 1, "global_step": 7})
    assert not keep._is_due(trainer)
    clock[0] = 30.0
    assert keep._is_due(trainer)


def test_a_checkpoint_that_a_validation_puts_off_follows_it(tmp_path):
    keep, saved = Checkpoints(tmp_path, "val/loss", every_steps=2), []
    trainer: Any = SimpleNamespace(
        num_training_batches=8, accumulate_grad_batches=1, max_steps=-1, fast_dev_run=False, is_global_zero=False,
        val_check_batch=2, enable_validation=True, check_val_every_n_epoch=1,
        save_checkpoint=lambda path, storage_options: saved.append(trainer.global_step),
    )  # fmt: skip
    for batch in range(8):
        trainer.global_step = batch + 1
        keep.end_batch(trainer, None, None, batch)
    assert saved == [3, 5, 7]


@pytest.mark.parametrize("cause", ["SIGTERM", "every_minutes"])
def test_processes_that_agree_before_a_validation_write_after_it(cause, tmp_path, monkeypatch):
    """They agree once in 20 steps; a validation every 4 steps would put off each of these checkpoints."""
    monkeypatch.setattr("alexnet_lab.training.checkpoints.time.monotonic", lambda: float(trainer.global_step))
    saved: list[int] = []
    strategy = SimpleNamespace(broadcast=lambda due: due, reduce_boolean_decision=lambda asked, **_: asked)
    trainer: Any = SimpleNamespace(
        num_training_batches=80, accumulate_grad_batches=1, max_steps=-1, fast_dev_run=False, is_global_zero=False,
        val_check_batch=4, enable_validation=True, check_val_every_n_epoch=1, world_size=2, strategy=strategy,
        global_step=0, save_checkpoint=lambda path, storage_options: saved.append(trainer.global_step),
    )  # fmt: skip
    keep = Checkpoints(tmp_path, "val/loss", every_minutes=0.5 if cause == "every_minutes" else None)
    callback = keep if cause == "every_minutes" else EndAfterStep(keep)
    vars(callback)["_asked"] = True
    with contextlib.suppress(Terminated):
        for batch in range(80):
            trainer.global_step = batch + 1
            callback.end_batch(trainer, None, None, batch)
    assert saved == ([41] if cause == "every_minutes" else [21])


def test_dropout_is_a_function_of_the_place():
    from alexnet_lab.training.step_seeds import StepSeeds

    def drawn(epoch: int, batch: int, rank: int = 0, seed: int = 0) -> float:
        strategy = type("S", (), {"root_device": torch.device("cpu")})
        trainer: Any = type(
            "T", (), {"current_epoch": epoch, "world_size": 2, "global_rank": rank, "strategy": strategy}
        )
        StepSeeds(seed).seed_for(trainer, batch)
        return torch.rand(()).item()

    places = [(0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 1, 1), (0, 0, 0, 1)]
    first = [drawn(*place) for place in places]
    assert [drawn(*place) for place in places] == first
    assert len(set(first)) == len(places)
