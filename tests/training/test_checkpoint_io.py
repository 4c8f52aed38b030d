"""Checkpoints: written whole or not at all, read without running what they hold."""

from __future__ import annotations

from collections import Counter, OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from torch import nn

from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.training import Classifier
from alexnet_lab.training.checkpoint_io import SafeCheckpointIO, load_checkpoint

CONTENT = {"weights": torch.arange(1000.0), "epoch": 3, "name": "x", "nested": {"list": [1, 2.5, None]}}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "some.ckpt"
    SafeCheckpointIO().save_checkpoint(CONTENT, path)
    return path


def test_what_is_saved_is_loaded(checkpoint):
    found = SafeCheckpointIO().load_checkpoint(checkpoint)
    assert torch.equal(found.pop("weights"), CONTENT["weights"])
    assert found == {key: value for key, value in CONTENT.items() if key != "weights"}
    assert [path.name for path in checkpoint.parent.iterdir()] == ["some.ckpt"]


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"h": np.float64(3)}, r"`callbacks\.Hist\.h`, a numpy\.float64"),
        ({"all": [1, (np.arange(3),)]}, r"`callbacks\.Hist\.all\.1\.0`, a numpy\.ndarray"),
        ({np.int64(1): 2}, r"`callbacks\.Hist\.keys`, a numpy\.int64"),
        ({"f": lambda: 0}, r"`callbacks\.Hist\.f`, a builtins\.function"),
        (Path("x"), r"`callbacks\.Hist`, a pathlib\.\w+"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(state, where, checkpoint):
    before = checkpoint.read_bytes()
    with pytest.raises(ConfigError, match=f"a checkpoint cannot hold {where}; allowed: tensors, numbers, strings"):
        SafeCheckpointIO().save_checkpoint({**CONTENT, "callbacks": {"Hist": state}}, checkpoint)
    assert checkpoint.read_bytes() == before


def test_what_torch_allows_is_saved(checkpoint):
    allowed = {"size": torch.Size([2, 3]), "type": torch.float16, "set": {1, "a"}, "counted": Counter("aab"),
               "ordered": OrderedDict(a=nn.Parameter(torch.tensor(1.0)))}  # fmt: skip
    SafeCheckpointIO().save_checkpoint(allowed, checkpoint)
    assert load_checkpoint(checkpoint) == allowed


@pytest.mark.parametrize("size", [0, 1, 50, 1000, 4000, -1])
def test_cut_short(checkpoint, size):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:size])
    with pytest.raises(RunError, match=r"is damaged or cut short \([\d,]+ bytes\)|is no checkpoint"):
        load_checkpoint(checkpoint)


def test_random_bytes_are_no_checkpoint(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for number in range(20):
        path = tmp_path / f"{number}.ckpt"
        path.write_bytes(bytes(torch.randint(0, 256, (300,), generator=generator).tolist()))
        with pytest.raises(RunError, match=r"is damaged or cut short|is no checkpoint"):
            load_checkpoint(path)


def test_missing(tmp_path):
    with pytest.raises(RunError, match=r"there is no checkpoint .*; has the run written one yet?"):
        load_checkpoint(tmp_path / "none.ckpt")


def test_weights_only_cannot_be_switched_off(tmp_path):
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "trap",)

    torch.save({"a": Trap()}, tmp_path / "bad.ckpt")
    with pytest.raises(RunError, match="holds more than tensors, numbers and strings; it is not loaded"):
        SafeCheckpointIO().load_checkpoint(tmp_path / "bad.ckpt", weights_only=False)
    assert not (tmp_path / "trap").exists()


def test_old_file_stays_if_writing_fails(checkpoint, monkeypatch):
    before = checkpoint.read_bytes()

    def half(content: object, file: IO[bytes]) -> None:
        file.write(before[:100])
        raise AttributeError("cannot be pickled")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(AttributeError, match="cannot be pickled"):
        SafeCheckpointIO().save_checkpoint({"epoch": 4}, checkpoint)
    assert checkpoint.read_bytes() == before
    assert [path.name for path in checkpoint.parent.iterdir()] == ["some.ckpt"]


def test_storage_options_are_refused(checkpoint):
    with pytest.raises(TypeError, match="checkpoints are local files"):
        SafeCheckpointIO().save_checkpoint({}, checkpoint, storage_options={"a": 1})


def test_checkpoint_of_a_run_needs_no_other_file(digits_run, tmp_path):
    path = tmp_path / "alone.ckpt"
    path.write_bytes((digits_run / "checkpoints" / "best.ckpt").read_bytes())
    classifier = Classifier.load_from_checkpoint(path)
    weights = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[name]) for name, value in classifier.state_dict().items())
    assert classifier.eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_compiled_network_is_saved_under_the_same_names():
    spec = {"_target_": "alexnet_lab.models.LeNet5"}
    optimizer = {"_target_": "alexnet_lab.training.optimizers.sgd"}
    plain = Classifier(net=spec, num_classes=10, optimizer=optimizer)
    compiled = Classifier(net=spec, num_classes=10, optimizer=optimizer)
    compiled.net.compile()
    assert list(compiled.state_dict()) == list(plain.state_dict())
