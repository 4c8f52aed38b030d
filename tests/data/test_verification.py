"""`data.verify=full`: one process reads every byte of the store at the start of a run; nothing else changes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from commands import CONFIGS, call

from alexnet_lab.base.checked_files import read_yaml
from alexnet_lab.base.files import write_json
from alexnet_lab.config import check_train
from alexnet_lab.data import array_writer, verification
from alexnet_lab.data.identity import Result, on_other_images
from alexnet_lab.run import launcher, train

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Compose

SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1")
FULL = "data.verify=full"


@pytest.fixture
def store(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A verified store of the digits in `<tmp_path>/data` with 29 shards of 64 images."""
    monkeypatch.setattr(array_writer, "SHARD_BYTES", 64 * 8 * 8)
    launcher.prepare(check_train(compose(f"data.dir={tmp_path / 'data'}")))
    return tmp_path / "data" / "store" / "digits-8"


def rot(store: Path, image: int) -> None:
    """Flips a bit of an image as a failing disk does: time, size and inode stay the same."""
    file = store / "train_images.npy"
    content = bytearray(file.read_bytes())
    content[-(1797 - image) * 64] ^= 1
    file.write_bytes(content)
    files = [store / "meta.json", *sorted(store.glob("train_*.npy"))]
    write_json(store / verification.NAME, verification._stamps(files))


def start(tmp_path: Path, *words: str) -> Any:
    """`python train.py` on the digits in `<tmp_path>/data`."""
    return call(train, "train", f"data.dir={tmp_path / 'data'}", f"run_dir={tmp_path / 'run'}", *words)


def test_a_damaged_shard_is_reported_in_one_line_before_anything_is_written(store, tmp_path):
    rot(store, 130)
    for words in ([FULL], []):  # once found, the damage is no longer hidden by the stamp
        outcome = start(tmp_path, *words)
        assert outcome.code == 1
        assert re.fullmatch(
            rf"error: the store {store} is damaged: train_images\.npy has changed \(the checksum of shard 3 of 29 "
            rf"differs: images 128 to 191\); delete {store}, the next start makes it again\n",
            outcome.err,
        )
        assert not (tmp_path / "run").exists()


def test_an_intact_store_is_read_by_the_first_process_only(store, compose, tmp_path, capsys):
    run = tmp_path / "run"
    config = compose(FULL, f"data.dir={tmp_path / 'data'}", f"run_dir={run}", "launcher.workers=true", *SHORT)
    assert train(config)["status"] == "completed"
    assert capsys.readouterr().err.count(f"every byte of {store} is intact") == 1
    assert "is intact" not in (run / "train.log").read_text()  # which has the messages of the worker process
    assert read_yaml(run / "config.yaml")["data"]["verify"] == "full"
    rot(store, 130)
    assert train({"resume": str(run), "changes": {"data.verify": "stamp", "trainer.max_epochs": 2}})["epochs"] == 2


def test_the_key_does_not_hide_other_images():
    results = [
        Result(name, {"verify": verify}, {"store_hash": name}) for name, verify in (("a", "stamp"), ("b", "full"))
    ]
    assert list(on_other_images(results)) == ["b"]


@pytest.mark.parametrize("data", sorted(path.stem for path in (CONFIGS / "data").glob("*.yaml")))
def test_help_shows_values_and_default_for_each_data_set(data, tmp_path):
    outcome = call(train, "train", f"data={data}", f"data.dir={tmp_path}", "--help", "data")
    (line,) = [line for line in outcome.out.splitlines() if line.strip().startswith("verify:")]
    assert "verify: stamp" in line
    assert "full" in outcome.out.partition("verify:")[2]


def test_reading_a_large_store_shows_its_progress(store, monkeypatch):
    shown: list[tuple[str, int]] = []
    monkeypatch.setattr(array_writer, "progress_bar", lambda title, total: shown.append((title, total)) or bar(shown))
    verification.verified_store(store, again=True)
    assert shown == [("verifying train_images.npy", 1797), *[("done", 64)] * 28, ("done", 5)]


class bar:  # noqa: N801 - stands for a function
    """A progress bar that notes its steps."""

    def __init__(self, shown: list[tuple[str, int]]) -> None:
        self.shown = shown

    def __enter__(self) -> Any:
        return lambda count: self.shown.append(("done", count))

    def __exit__(self, *error: object) -> None:
        pass
