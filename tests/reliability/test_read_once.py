"""What is verified or loaded once is not read again: stores, checkpoints, data modules."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet_lab.base.errors import DataError, RunError
from alexnet_lab.base.files import sha256
from alexnet_lab.data import store as store_module
from alexnet_lab.data import verification
from alexnet_lab.data.verification import verified_store
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.run import engine, resuming, run_directory, train
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.training import checkpoint_io

SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=4", "trainer.limit_val_batches=1")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was read as a whole: hashed, checked, or loaded."""
    counts: Counter[str] = Counter()

    def counting(name: str, read: Any) -> Any:
        def counted(path: Any, *args: Any, **kwargs: Any) -> Any:
            counts[f"{name} {Path(path).name}"] += 1
            return read(path, *args, **kwargs)

        return counted

    hashing = counting("hash", sha256)
    monkeypatch.setattr(store_module, "damage_of_shards", counting("hash", store_module.damage_of_shards))
    for module in (store_module, run_directory, sys.modules[FinishedRun.__module__]):
        monkeypatch.setattr(module, "sha256", hashing)
    monkeypatch.setattr(checkpoint_io, "check_records", counting("check", checkpoint_io.check_records))
    monkeypatch.setattr(torch, "load", counting("load", torch.load))
    return counts


def of(reads: Counter[str], ending: str) -> dict[str, int]:
    return {key.split()[0]: count for key, count in sorted(reads.items()) if key.endswith(ending)}


def test_a_start_builds_the_data_once_and_hashes_no_store_that_was_verified(compose, tmp_path, monkeypatch, reads):
    built: list[str] = []
    make = engine.build_data
    monkeypatch.setattr(engine, "build_data", lambda config: built.append("data") or make(config))
    folder = f"data.dir={tmp_path / 'data'}"
    train(compose(folder, f"run_dir={tmp_path / 'one'}", *SHORT))
    assert built == ["data"]
    assert of(reads, "train_images.npy") == {
        "hash": 1
    }  # when it is verified; its checksums are computed while it is written
    train(compose(folder, f"run_dir={tmp_path / 'two'}", *SHORT))
    assert of(reads, "train_images.npy") == {"hash": 1}


@pytest.fixture
def store(typed, tmp_path) -> Path:
    data = engine.build_data(typed(f"data.dir={tmp_path}"))
    data.prepare_data()
    return data.store_path


@pytest.mark.parametrize("place", ["train_images.npy", "train_labels.npy", "meta.json"])
def test_a_changed_store_is_found_though_it_was_verified(place, store):
    file = store / place
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as some tools that copy
    with pytest.raises(DataError, match="is damaged"):
        verified_store(store)


def test_a_copied_store_is_verified_again(store, tmp_path, reads):
    shutil.copytree(store, tmp_path / "copy")
    verified_store(tmp_path / "copy")
    assert of(reads, "train_images.npy") == {"hash": 1}
    verified_store(tmp_path / "copy")
    assert of(reads, "train_images.npy") == {"hash": 1}


@pytest.mark.parametrize("text", ["", "[]", "null", "{"])
def test_a_stamp_that_is_none_verifies_again(text, store, reads):
    (store / verification.NAME).write_text(text)
    verified_store(store)
    assert of(reads, "train_images.npy") == {"hash": 1}


def test_a_store_is_verified_on_request(store):
    command = [sys.executable, "-m", "alexnet_lab.data.verification", str(store)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{store}: 1,797 images, intact\n")
    stamp = store / verification.NAME
    file = store / "train_images.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    stamp.write_text(stamp.read_text())
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "train_images.npy has changed" in done.stderr
    done = subprocess.run(command[:-1], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "usage: python -m alexnet_lab.data.verification data/store/*\n")


def _unfinished(compose: Any, run: Path) -> None:
    train(compose(f"run_dir={run}", *SHORT))


def test_a_resumed_run_reads_its_checkpoint_once(compose, tmp_path, reads):
    run = tmp_path / "run"
    _unfinished(compose, run)
    reads.clear()
    assert train({"resume": str(run), "changes": {"trainer.max_epochs": 3}})["epochs"] == 3
    assert reads["load last.ckpt"] == 1
    assert reads["check last.ckpt"] == 1


def test_worker_processes_receive_the_intact_checkpoint(compose, typed, tmp_path, reads):
    """The parent checks the file and leaves its tensors there; the worker loads it without checking it again."""
    run = tmp_path / "run"
    _unfinished(compose, run)
    directory, config = RunDirectory(run), typed(f"run_dir={run}", *SHORT, "trainer.max_epochs=3")
    reads.clear()
    known = resuming.newest_intact(directory, mapped=True)
    known.content = None
    path, checkpoint = resuming.prepared(directory, config, [], known)
    assert (path, checkpoint["global_step"]) == (directory.last, 8)
    assert of(reads, "last.ckpt") == {"check": 1, "load": 2}
    content = directory.last.read_bytes()
    directory.last.unlink()  # best.ckpt may be another name of the same file
    directory.last.write_bytes(content[:-100])
    path, _ = resuming.prepared(directory, config, [], known)
    assert path == directory.best


def test_a_loaded_checkpoint_is_released_when_it_is_passed_on(compose, tmp_path):
    run = tmp_path / "run"
    _unfinished(compose, run)
    known = resuming.newest_intact(RunDirectory(run))
    assert known.load() is not None
    assert known.content is None


def test_evaluation_reads_the_best_checkpoint_once_for_its_hash_and_once_for_its_weights(digits_run, reads):
    run = FinishedRun(str(digits_run))
    assert of(reads, "best.ckpt") == {"hash": 1, "load": 1}
    assert run.checkpoint_hash == sha256(digits_run / "checkpoints" / "best.ckpt")


def test_damaged_best_checkpoint_is_reported(digits_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    best = run / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:-1000])
    with pytest.raises(RunError, match="damaged or cut short"):
        FinishedRun(str(run))
