"""Damaged files of a run: it is resumed or evaluated exactly as before, or refused."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from commands import evaluated
from faults import faults, survey

from alexnet_lab.base.errors import RunError
from alexnet_lab.base.files import is_whole, sealed
from alexnet_lab.base.flatten import flat, within
from alexnet_lab.config import check_evaluate
from alexnet_lab.config.continuing import FREE, differences
from alexnet_lab.evaluation.evaluate import evaluate
from alexnet_lab.run import train
from alexnet_lab.run.request import requested
from alexnet_lab.run.resuming import begin
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(digits_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return shutil.copytree(digits_run, tmp_path / "run")


@pytest.fixture
def unfinished(run: Path) -> Path:
    """As if it had been killed at its last step."""
    (run / "result.json").unlink()
    return run


def experiment(run: Path) -> dict[str, Any]:
    """What a resumed run computes; where and how it does may change between its parts."""
    config = requested({"resume": str(run)})
    begin(RunDirectory(run), config)
    return {key: value for key, value in flat(config.model_dump()).items() if not within(key, FREE)}


def test_config_of_a_resumed_run(unfinished):
    other = (unfinished / "config.yaml").read_bytes().replace(b"seed: 0", b"seed: 1")
    tally = survey(unfinished / "config.yaml", lambda: experiment(unfinished), other=other)
    assert tally.reported > 5 * tally.harmless


def test_checkpoint_of_a_resumed_run(unfinished):
    """Without effect means here: torch would load the same."""
    path = unfinished / "checkpoints" / "last.ckpt"
    survey(path, lambda: experiment(unfinished), flips=30, naming="checkpoint")


def test_checkpoint_of_another_run_is_refused_with_the_difference(unfinished, compose, tmp_path):
    short = ("trainer.max_epochs=1", "trainer.limit_train_batches=1")
    train(compose(f"run_dir={tmp_path / 'other'}", "seed=3", *short))
    shutil.copy(tmp_path / "other" / "checkpoints" / "last.ckpt", unfinished / "checkpoints")
    with pytest.raises(RunError, match=r"config\.yaml is not the config of its checkpoint: `seed` is 0, "):
        train({"resume": str(unfinished)})


def test_differences():
    one, other = {"seed": 0, "run_dir": "a", "model": {"norm": "lrn"}}, {"seed": 0, "run_dir": "b", "model": {"x": 1}}
    assert [item.kind for item in differences(one, one | {"trusted_packages": ["mine"]})] == ["free"]
    assert [(item.kind, str(item)) for item in differences(one, other)] == [
        ("free", "run_dir: 'a' -> 'b'"), ("other", "model.norm: 'lrn' -> 'nothing'"),
        ("other", "model.x: 'nothing' -> 1"),
    ]  # fmt: skip
    assert list(differences({"limit": 1}, {"limit": 1.0})) == [("limit", 1, 1.0)]  # a batch, and all of them


def test_result(run):
    directory = RunDirectory(run)
    right = directory.read_result() or {}

    def read() -> Any:
        found = directory.read_result() or {}
        return {key: found.get(key) for key in right if key != "checksum"}

    tally = survey(run / "result.json", read, other=b"{}\n", naming="result.json")
    assert tally.reported > 5 * tally.harmless


def test_a_sealed_record_differs_from_a_changed_one():
    record = sealed({"metrics": {"val/loss": 0.5}, "nothing": float("nan"), "list": (1, 2)})
    read = json.loads(json.dumps(record | {"nothing": None}))
    assert is_whole(record)
    assert is_whole(read)
    assert not is_whole(read | {"metrics": {"val/loss": 0.25}})
    assert is_whole({"of": "an older version"})


def test_metrics_of_a_resumed_run_do_not_depend_on_the_file(unfinished, digits_run):
    """The rows are in the checkpoint; the file is rewritten."""
    right = (digits_run / "metrics.csv").read_text()
    for damage in (b"", b"\xff\xfe", right[: len(right) // 2].encode(), b"epoch,step\nx,y\n"):
        copy = shutil.copytree(unfinished, unfinished.parent / "copy", dirs_exist_ok=True)
        (copy / "metrics.csv").write_bytes(damage)
        train({"resume": str(copy)})
        assert (copy / "metrics.csv").read_text() == right
        found, expected = (json.loads((path / "result.json").read_text()) for path in (copy, digits_run))
        assert found["metrics"] == expected["metrics"]
        shutil.rmtree(copy)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "checkpoints/best.ckpt"])
def test_files_of_a_finished_run(run, name):
    directory = RunDirectory(run)

    def read() -> bytes:
        directory.check_file(run / name)
        return (run / name).read_bytes()

    tally = survey(run / name, read, flips=20)
    assert tally.harmless == 0


def test_weights_of_another_run_are_not_evaluated(run):
    """They fit and load; but they are not what result.json was written for."""
    path = run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"] = {name: value + 1 for name, value in checkpoint["state_dict"].items()}
    torch.save(checkpoint, path)
    outcome = evaluated(f"run={run}")
    assert outcome.code == 1
    assert "best.ckpt is not the file that the run wrote (its SHA-256 differs from that in result.json)" in outcome.err


def test_changed_config_is_not_evaluated(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["val_seed"] = 7
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(RunError, match=r"config\.yaml is not the file that the run wrote"):
        evaluate(check_evaluate({"run": str(run)}))


def test_ledger_of_a_sweep(tmp_path, caplog):
    """A line that is not what was written counts as missing and is reported; the others stay."""
    sweep = SweepDirectory(tmp_path)
    for job in ("a", "b", "c"):
        sweep.append({"job": job, "status": "completed", "metrics": {"test/top1_error": 0.125}})
    content, right = sweep.ledger.read_bytes(), sweep.entries()
    lines = content.count(b"\n")
    for name, bad in faults(content, b'{"seed": 0}\n'):
        sweep.ledger.write_bytes(bad)
        caplog.clear()
        found = [{key: value for key, value in entry.items() if key in right[0]} for entry in sweep.entries()]
        whole = [entry for entry in found if entry in right or "checksum" not in entry]
        assert whole == found, name
        assert len(found) == lines or caplog.records or name.startswith(("cut", "emptied")), name
    sweep.ledger.unlink()
    sweep.ledger.mkdir()
    with pytest.raises(RunError, match=r"ledger\.jsonl cannot be read: Is a directory"):
        sweep.entries()
