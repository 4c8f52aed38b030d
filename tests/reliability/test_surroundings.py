"""Faults around a run: it continues where it can, otherwise ends in one clear line, and leaves whole files."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from endings import assert_same_ending

from alexnet_lab.base.errors import RunError
from alexnet_lab.run import tracking, train, worker
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.sweeps.sweep_directory import SweepDirectory
from alexnet_lab.training import Classifier
from alexnet_lab.training.checkpoint_io import load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHORT = (
    "trainer.max_epochs=3", "trainer.limit_train_batches=4", "trainer.limit_val_batches=2",
    "trainer.limit_test_batches=2",
)  # fmt: skip


@contextlib.contextmanager
def room(size: int) -> Iterator[None]:
    """Within the block no file can grow beyond `size` bytes: to who writes, a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def at_step(monkeypatch: pytest.MonkeyPatch, actions: dict[int, Callable[[], Any]]) -> None:
    """Does something ahead of the n-th training step, counted from 1."""
    original, steps = Classifier.training_step, iter(range(1, 10**6))

    def step(self: Classifier, batch: Any, index: int) -> Any:
        actions.get(next(steps), lambda: None)()
        return original(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", step)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_disk_that_is_full_at_the_end_of_an_epoch(compose, tmp_path, monkeypatch):
    run, whole = tmp_path / "run", tmp_path / "whole"
    train(compose(f"run_dir={whole}", *SHORT))
    with contextlib.ExitStack() as limits, monkeypatch.context() as patch:
        at_step(patch, {6: lambda: limits.enter_context(room(100_000))})
        with pytest.raises(RunError, match=r"^\S+/checkpoints: File too large$|File too large$"):
            train(compose(f"run_dir={run}", *SHORT))
    assert json.loads((run / "result.json").read_text())["status"] == "failed"
    assert load_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 4
    assert not [name for name in names(run / "checkpoints") if name.endswith(".part")]
    train({"resume": str(run)})
    assert_same_ending(run, whole)


def test_disk_that_is_full_for_a_while(compose, tmp_path, monkeypatch, capsys):
    """A checkpoint within an epoch is left out."""
    with contextlib.ExitStack() as limits:
        at_step(monkeypatch, {6: lambda: limits.enter_context(room(100_000)), 8: limits.close})
        done = train(compose(f"run_dir={tmp_path / 'run'}", *SHORT, "callbacks.checkpoint.every_steps=2"))
    assert done["status"] == "completed"
    lines = [line for line in capsys.readouterr().err.splitlines() if "training continues" in line]
    assert len(lines) == 1
    assert lines[0].endswith("last.ckpt could not be written (File too large); training continues")


def test_ledger_on_a_full_disk(tmp_path):
    sweep = SweepDirectory(tmp_path)
    sweep.append({"job": "one", "status": "completed"})
    with room(sweep.ledger.stat().st_size + 20), pytest.raises(RunError, match=r"ledger.jsonl cannot be written: File"):
        sweep.append({"job": "two", "status": "completed"})
    assert list(sweep.latest()) == ["one"]
    sweep.append({"job": "three", "status": "completed"})
    assert list(sweep.latest()) == ["one", "three"]


def test_picture_that_cannot_be_written(compose, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(worker, "preview", lambda data, path: (_ for _ in ()).throw(OSError(28, "No space left")))
    words = ("debug=fast", "callbacks.augmentation_preview=true")
    assert train(compose(f"run_dir={tmp_path / 'run'}", *words))["status"] == "completed"
    assert "augmentation.png could not be written (No space left); training continues" in capsys.readouterr().err


READ_ONLY: list[Path] = []
"""Folders in which this process may not write at present."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not READ_ONLY or event not in ("open", "os.mkdir", "os.rename", "os.remove"):
        return
    writes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & WRITING)
    if writes and isinstance(arguments[0], str | Path) and READ_ONLY[0] in Path(arguments[0]).parents:
        raise OSError(30, "Read-only file system", str(arguments[0]))


@pytest.fixture(scope="module")
def read_only() -> Callable[[Path], Any]:
    """Makes a folder read-only within a block, for root too."""
    sys.addaudithook(_refuse)

    @contextlib.contextmanager
    def block(folder: Path) -> Iterator[None]:
        READ_ONLY.append(folder)
        try:
            yield
        finally:
            READ_ONLY.clear()

    return block


def test_data_that_can_only_be_read(compose, tmp_path, digits_dir, digits_run, read_only):
    data = shutil.copytree(digits_dir, tmp_path / "data")
    words = ("trainer.max_epochs=2", "trainer.limit_train_batches=12", f"data.dir={data}")
    with read_only(data):
        train(compose(f"run_dir={tmp_path / 'run'}", *words))
    first, second = (json.loads((run / "result.json").read_text())["metrics"] for run in (tmp_path / "run", digits_run))
    assert first == second


def test_place_that_can_only_be_read(compose, tmp_path, read_only):
    with read_only(tmp_path), pytest.raises(RunError, match=r"run_dir \S+ cannot be written: Read-only file system"):
        train(compose(f"run_dir={tmp_path / 'run'}", *SHORT))


def test_store_cannot_be_made_where_one_can_only_read(compose, tmp_path, read_only):
    (tmp_path / "data").mkdir()
    config = compose(f"run_dir={tmp_path / 'run'}", f"data.dir={tmp_path / 'data'}")
    with read_only(tmp_path / "data"), pytest.raises(Exception, match="Read-only file system") as caught:
        train(config)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_run_directory_that_is_removed(compose, tmp_path, monkeypatch):
    run = tmp_path / "run"
    at_step(monkeypatch, {6: lambda: shutil.rmtree(run)})
    with pytest.raises(RunError, match=r"the run directory \S+ was removed or moved while the run was going on"):
        train(compose(f"run_dir={run}", *SHORT))
    assert not run.exists()


def test_run_that_is_still_training_is_not_resumed(compose, digits_run, tmp_path):
    run = shutil.copytree(digits_run, tmp_path / "run")
    (run / "result.json").unlink()
    before = names(run)
    with (
        RunDirectory(run).claimed(resume=True),
        pytest.raises(RunError, match="is in use by another process"),
    ):
        train({"resume": str(run)})
    assert names(run) == before


def test_clock_that_goes_back(compose, tmp_path, monkeypatch):
    hours = iter(range(10**6))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600 * next(hours))
    done = train(compose(f"run_dir={tmp_path / 'run'}", *SHORT, "callbacks.checkpoint.every_minutes=1.0"))
    assert done["status"] == "completed"
    assert 0 < done["wall_seconds"] < 600


def wandb_services() -> list[int]:
    """The processes of W&B that this one has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"wandb-core" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the service there")
def test_home_that_cannot_be_written_no_git_and_a_wandb_service_that_dies(compose, tmp_path, monkeypatch, capfd):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("WANDB_CACHE_DIR", "")
    monkeypatch.delenv("WANDB_CACHE_DIR")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    killed: list[int] = []

    def kill() -> None:
        killed.extend(wandb_services())
        for number in killed:
            os.kill(number, signal.SIGKILL)
        time.sleep(0.2)

    at_step(monkeypatch, {6: kill})
    done = train(compose(f"run_dir={tmp_path / 'run'}", *SHORT, "logger=wandb"))
    assert killed
    assert done["status"] == "completed"
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["git"] is None
    err = capfd.readouterr().err
    assert err.count("warning: W&B is dropped") == 1
    assert "Traceback" not in err


def test_login_without_a_network(monkeypatch, capsys):
    import wandb
    from wandb.errors import AuthenticationError

    from alexnet_lab.base.log import start_log

    def fails(**_: Any) -> None:
        raise AuthenticationError("no\nanswer")

    start_log()
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "login", fails)
    assert tracking._mode("auto") == "offline"
    message = "warning: W&B cannot be reached, or refuses the login (no answer); this run is kept offline\n"
    assert capsys.readouterr().err == message
