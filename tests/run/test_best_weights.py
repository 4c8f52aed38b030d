"""`best.safetensors`: the weights of best.ckpt with what describes them, and `load` from that file alone."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from alexnet_lab import load
from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.base.files import sha256
from alexnet_lab.run import train
from alexnet_lab.training.checkpoint_io import load_checkpoint
from alexnet_lab.training.weights_file import read_weights, write_weights

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def alone(digits_run: Path, tmp_path: Path) -> Path:
    """The weights file of a finished run, in a folder of its own."""
    return Path(shutil.copyfile(digits_run / "checkpoints" / "best.safetensors", tmp_path / "lenet5.safetensors"))


def net_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(checkpoint)["state_dict"]
    return {name.removeprefix("net."): tensor for name, tensor in state.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_file_has_the_weights_and_facts_of_the_best_checkpoint(digits_run):
    file = digits_run / "checkpoints" / "best.safetensors"
    result = json.loads((digits_run / "result.json").read_text())
    tensors, facts = read_weights(file)
    assert same(tensors, net_of(digits_run / "checkpoints" / "best.ckpt"))
    assert same(tensors, load_file(file))
    assert result["files"]["checkpoints/best.safetensors"] == sha256(file)
    assert facts["epoch"] == result["best_epoch"]
    assert facts["metrics"]["val/loss"] == result["metrics"]["val/loss"]
    assert facts["images"]["store_hash"] == result["store_hash"]
    assert (
        facts["manifest"]["packages"]["torch"]
        == json.loads((digits_run / "manifest.json").read_text())["packages"]["torch"]
    )
    with safe_open(file, framework="pt") as content:
        assert len(content.metadata()["sha256"]) == 64


def test_the_file_names_no_folder_of_its_machine(digits_run, digits_dir):
    content = (digits_run / "checkpoints" / "best.safetensors").read_bytes()
    for path in (str(digits_run), str(digits_dir), str(Path.home())):
        assert path.encode() not in content


def test_predictions_of_the_file_are_those_of_the_run(digits_run, alone, monkeypatch):
    monkeypatch.setenv("ALEXNET_LAB_DATA", str(alone.parent / "no data here"))
    images = torch.randint(0, 256, (9, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole, file = load(digits_run), load(alone)
    assert torch.equal(file.predict(images), whole.predict(images))
    assert file.class_names == whole.class_names
    assert same(file.net.state_dict(), whole.net.state_dict())
    assert not file.net.training
    assert {path.name for path in alone.parent.iterdir()} == {alone.name}


def test_ten_views_and_another_normalisation(compose, tmp_path):
    run = tmp_path / "run"
    words = ("data.normalization=standardize", "augment=crop", "augment.padding=1", "augment.mirror=true")
    train(compose(f"run_dir={run}", *words, "trainer.max_epochs=1", "trainer.limit_train_batches=2"))
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    whole = load(run).predict(images, views="ten")
    assert torch.equal(load(run / "checkpoints" / "best.safetensors").predict(images, views="ten"), whole)
    assert not torch.equal(load(run).predict(images), whole)


def test_a_run_of_an_older_version_gets_its_file_at_its_end(compose, tmp_path):
    run = tmp_path / "run"
    train(compose(f"run_dir={run}", "trainer.max_epochs=1", "trainer.limit_train_batches=3"))
    folder = run / "checkpoints"
    (folder / "best.safetensors").unlink()
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    checkpoint["callbacks"]["Checkpoints"]["best_score"] = 0.0  # no later epoch is better
    torch.save(checkpoint, folder / "last.ckpt")  # a link to best.ckpt
    before = sha256(folder / "best.ckpt")
    train({"resume": str(run), "changes": {"trainer.max_epochs": 2}})
    assert sha256(folder / "best.ckpt") == before
    tensors, facts = read_weights(folder / "best.safetensors")
    assert (facts["epoch"], same(tensors, net_of(folder / "best.ckpt"))) == (1, True)


def faulty(content: bytes) -> Iterator[bytes]:
    """The file cut short, and with one bit flipped: anywhere, and among its texts."""
    rng = random.Random(0)
    for most in (len(content), 6000):
        yield content[: rng.randrange(most)]
        for _ in range(20):
            bad = bytearray(content)
            bad[rng.randrange(most)] ^= 1 << rng.randrange(8)
            yield bytes(bad)


def outcome(file: Path) -> str:
    """The tensors of a file by their bytes, or the message."""
    try:
        return str({name: tensor.numpy().tobytes() for name, tensor in sorted(read_weights(file).tensors.items())})
    except RunError as error:
        return str(error)


def test_damage_is_one_line(alone):
    content, whole = alone.read_bytes(), outcome(alone)
    found = []
    for bad in faulty(content):
        alone.write_bytes(bad)
        found.append(outcome(alone))
    messages = [text for text in found if text != whole]
    assert len(messages) > 35
    assert all(str(alone) in text and "\n" not in text for text in messages)


def test_what_the_file_lacks_is_one_line(tmp_path, alone):
    net = load_file(alone)
    save_file(net, tmp_path / "foreign.safetensors")
    with pytest.raises(RunError, match=r"foreign.safetensors does not describe its network; start a run from it"):
        load(tmp_path / "foreign.safetensors")
    with pytest.raises(RunError, match=r"there is no file .*missing.safetensors"):
        load(tmp_path / "missing.safetensors")
    with pytest.raises(ConfigError, match=r"`data_dir` is data, but .* needs no data set; leave it out"):
        load(alone, data_dir="data")
    facts = read_weights(alone).facts
    for name, value, message in (
        ("statistics", None, "does not say how images are normalised"),
        ("statistics", {"mean_image": {"dtype": "|O", "shape": [1], "base64": ""}}, "its statistics cannot be read"),
        ("class_names", ["a"], "its statistics or class names do not fit its config"),
        ("config", 3, r"cannot be read: `config` is 3 \(int\)"),
        ("metrics", "x", r"cannot be read: `metrics` is 'x' \(str\)"),
        ("metrics", {"test/top1_error": "x"}, r"cannot be read: `metrics.test/top1_error` is 'x' \(str\)"),
        ("images", [1], r"cannot be read: `images` is \.\.\. \(list\)"),
    ):
        write_weights(tmp_path / "odd.safetensors", net, {**facts, name: value})
        with pytest.raises(RunError, match=message):
            load(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("target", ["os.system", "subprocess.run", "torch.hub.load", "mine.Net"])
def test_the_config_in_the_file_starts_nothing(target, tmp_path, alone):
    tensors, facts = read_weights(alone)
    facts["config"]["model"] = {"_target_": target}
    facts["config"]["trusted_packages"] = ["os", "subprocess", "torch", "mine"]
    write_weights(tmp_path / "bad.safetensors", tensors, facts)
    with pytest.raises(ConfigError, match=rf"bad.safetensors: `model`: `_target_: {target}` is outside the trusted"):
        load(tmp_path / "bad.safetensors")
