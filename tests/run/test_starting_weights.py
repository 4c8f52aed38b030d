"""`init_from` and `freeze`: what a run starts from, what it leaves alone, and what is refused before it writes."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import shutil
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torchvision
from commands import refused
from PIL import Image
from safetensors.torch import load_file, save_file

from alexnet_lab.base.files import sha256
from alexnet_lab.config.weights_source import BEST
from alexnet_lab.run import starting_weights, train
from alexnet_lab.training.checkpoint_io import load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=3", "trainer.accelerator=cpu")

STILL = (*SHORT, "optimizer.learning_rate=1e-30")
"""Steps too small to change a weight of float32."""


def state_of(run_dir: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    state = load_checkpoint(run_dir / "checkpoints" / name)["state_dict"]
    return {key.removeprefix("net."): tensor for key, tensor in state.items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], *parts: str) -> bool:
    """Whether the tensors whose names contain one of `parts` have equal bits."""
    names = [name for name in one if any(part in name for part in parts or ("",))]
    assert names
    return all(torch.equal(one[name], other[name]) for name in names)


@pytest.mark.parametrize("kind", ["run", "safetensors", "ckpt", "foreign", "state dict"])
def test_the_same_network_starts_from_the_weights(kind, digits_run, compose, tmp_path):
    source = digits_run / BEST[0]
    if kind == "foreign":
        save_file(load_file(source), tmp_path / "foreign.safetensors")
    torch.save(load_file(source), tmp_path / "state.pt")
    source = {
        "run": digits_run,
        "safetensors": source,
        "ckpt": digits_run / BEST[1],
        "foreign": tmp_path / "foreign.safetensors",
        "state dict": tmp_path / "state.pt",
    }[kind]
    place = tmp_path / "run"
    train(compose(f"init_from={source}", f"run_dir={place}", *STILL))
    assert equal(state_of(place), state_of(digits_run, "best.ckpt"))
    record = json.loads((place / "manifest.json").read_text())["init_from"]
    file = source / BEST[0] if kind == "run" else source
    assert record == {"source": str(source), "file": file.name, "sha256": sha256(file), "new_layer": None}
    assert f"init_hash: {sha256(file)}" in (place / "config.yaml").read_text()


def test_another_normalisation_than_that_of_the_weights_is_warned_of(digits_run, compose, tmp_path, capfd):
    for name, word in {"same": (), "other": ("data.normalization=unit",)}.items():
        train(compose(f"init_from={digits_run}", f"run_dir={tmp_path / name}", *STILL, *word))
        warned = "were trained with data.normalization=standardize, and this run has unit"
        assert (warned in capfd.readouterr().err) == bool(word)


def test_a_run_is_the_same_but_for_its_start(digits_run, compose, tmp_path):
    """The order of the images and their augmentation are those of the run from scratch."""
    for name, words in {"one": ("init_from=null",), "two": (f"init_from={digits_run}",)}.items():
        train(compose(f"run_dir={tmp_path / name}", *words, *SHORT, "optimizer.learning_rate=1e-30"))
    seen = [load_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["loops"] for name in ("one", "two")]
    assert str(seen[0]) == str(seen[1])
    scratch = state_of(tmp_path / "one")
    assert not equal(scratch, state_of(tmp_path / "two"), "weight")


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Words for a data set of three classes that LeNet-5 reads."""
    root, rng = tmp_path_factory.mktemp("three"), np.random.default_rng(0)
    for folder in (root / part / label for part in ("train", "val") for label in "abc"):
        folder.mkdir(parents=True)
        for number in range(10):
            Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(folder / f"{number}.png")
    fields = ("channels=1", "stored_size=28", "image_size=28", "num_classes=3", "val_fraction=0.2", "batch_size=4")
    return (
        "data=image_folder",
        "augment=none",
        f"data.root={root}",
        f"data.dir={root / 'data'}",
        *(f"data.{item}" for item in fields),
    )


def test_another_number_of_classes_gets_a_new_last_layer(digits_run, three_classes, compose, tmp_path):
    for name, start in {"new": f"init_from={digits_run}", "scratch": "init_from=null"}.items():
        train(compose(start, f"run_dir={tmp_path / name}", *STILL, *three_classes))
    found, before = state_of(tmp_path / "new"), state_of(digits_run, "best.ckpt")
    last = ["classifier.output.weight", "classifier.output.bias"]
    assert found[last[0]].shape == (3, 84)
    assert all(torch.equal(found[name], before[name]) for name in found if name not in last)
    assert all(torch.equal(found[name], state_of(tmp_path / "scratch")[name]) for name in last)
    log = (tmp_path / "new" / "train.log").read_text()
    assert log.count("; its last layer classifier.output is new: 3 classes instead of 10") == 1
    assert json.loads((tmp_path / "new" / "manifest.json").read_text())["init_from"]["new_layer"] == "classifier.output"


MISFITS = {
    "init_from=nowhere": "and there is no such run or file; allowed: a finished run, a file (.safetensors, .ckpt",
    "init_from={folder}": "which is no run with a best checkpoint; allowed: a finished run",
    "init_from={other}": "a file of another kind; allowed: a finished run",
    "init_from={run} model.activation=tanh": "its network has `model.activation` 'relu', and this one 'tanh'; set",
    "init_from={run} model=lenet5_1998 loss=lenet5_1998": "it holds LeNet5, and this network is LeNet51998; choose",
    "init_from={bare} model.c5=conv": "its classifier.c5.weight has the shape (120, 400), and this network's (120, 16",
    "init_from={run} model=lenet5_seed002 model.pool=max": "its network has `model.activation`",
    "init_from={bare} model=alexnet": "it holds the weights of another network: it lacks classifier.fc6.bias, ",
    "init_from={bare} init_hash=abc": "`init_hash` is abc, but the SHA-256 of ",
    "init_hash=abc": "`init_hash` is abc, but `init_from` is null; leave init_hash out",
    "init_from={broken}": "is damaged, or no safetensors file",
    "init_from={nan}": "holds NaN or infinite numbers",
    "init_from={code}": "holds more than tensors, numbers and strings; it is not loaded",
    "init_from={numbered}": "it holds no state dict of tensors",
    "init_from={unfinished}": "the run has not finished; resume it, or name the file itself: init_from=",
    "init_from={changed}": "is not the file that the run wrote",
    "init_from=torchvision": "torchvision publishes weights for model=alexnet_owt and model=torchvision; set one",
    "init_from={bare} freeze=[conv9]": "`freeze` names `conv9`, which matches no layer with weights; ",
    "freeze=[*]": "which leaves nothing to train; leave a layer out",
    "freeze=conv1": "`freeze` is 'conv1' (str); allowed: list",
}


@pytest.fixture(scope="module")
def sources(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    found = {name: folder / f"{name}.safetensors" for name in ("bare", "broken", "nan")}
    found |= {"folder": folder, "other": folder / "x.txt", "run": digits_run, "code": folder / "code.pt"}
    found["numbered"] = folder / "numbered.pt"
    found |= {name: folder / name for name in ("unfinished", "changed")}
    weights = load_file(digits_run / BEST[0])
    save_file(weights, found["bare"])
    found["broken"].write_bytes(found["bare"].read_bytes()[:1000])
    save_file({name: tensor * torch.nan for name, tensor in weights.items()}, found["nan"])
    found["other"].write_text("x")
    torch.save(functools.partial(print), found["code"])
    torch.save({0: torch.zeros(1)}, found["numbered"])
    for name in ("unfinished", "changed"):
        shutil.copytree(digits_run, found[name])
    (found["unfinished"] / "result.json").unlink()
    shutil.copyfile(found["bare"], found["changed"] / BEST[0])
    return found


@pytest.mark.parametrize("words", MISFITS)
def test_what_does_not_fit_is_refused_before_anything_is_written(words, sources, digits_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = words.format(**sources).split()
    assert MISFITS[words] in refused(*given, *SHORT, f"data.dir={digits_dir}", run_dir=tmp_path / "run")


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, silently."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its own name
        """Nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The address of a local server, and its folder; the cache of torch.hub is empty."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def offered(name: str, served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, *, right: bool = True) -> Any:
    """Serves weights for a network of torchvision, whose file has one number of each tensor."""
    address, folder = served
    torch.manual_seed(1)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in torchvision.models.get_model(name).state_dict().items()}
    state = {key: torch.randn(1).expand(shape) for key, shape in shapes.items()}
    torch.save(state, folder / "file")
    digest = hashlib.sha256((folder / "file").read_bytes()).hexdigest()[:8] if right else "0" * 8
    file = folder / f"{name}-{digest}.pth"
    (folder / "file").rename(file)
    weights = torchvision.models.get_model_weights(name).DEFAULT  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(weights.value, "url", f"{address}/{file.name}")
    return state


def test_torchvision_alexnet_is_fetched_once(served, monkeypatch, typed):
    state = offered("alexnet", served, monkeypatch)
    config = typed("model=alexnet_owt", "data=cifar10", "data.image_size=224", "init_from=torchvision")
    record = starting_weights.check(config)
    assert record is not None
    assert record["new_layer"] == "classifier.fc8"
    assert record["file"] == next(served[1].iterdir()).name
    assert record["sha256"].startswith(record["file"].rpartition("-")[2].removesuffix(".pth"))
    next(served[1].iterdir()).unlink()
    assert starting_weights.check(config) == record  # from the cache
    source = starting_weights._source("torchvision", config.model)
    assert torch.equal(source.state["features.conv1.weight"], state["features.0.weight"])


def test_any_network_of_torchvision_starts_from_its_weights(served, monkeypatch, compose, tmp_path):
    state = offered("squeezenet1_1", served, monkeypatch)
    words = ("model=torchvision", "model.name=squeezenet1_1", "data.image_size=32", "init_from=torchvision")
    train(compose(*words, f"run_dir={tmp_path / 'run'}", *STILL, "trainer.limit_train_batches=1"))
    found = state_of(tmp_path / "run")
    assert found["classifier.1.weight"].shape[0] == 10
    assert all(torch.equal(found[name], state[name]) for name in state if not name.startswith("classifier.1."))


@pytest.mark.parametrize("fault", ["hash", "gone", "cached"])
def test_a_bad_download_is_one_line(fault, served, monkeypatch, digits_dir, tmp_path):
    offered("squeezenet1_1", served, monkeypatch, right=fault != "hash")
    file = next(served[1].iterdir())
    if fault == "gone":
        file.unlink()
    elif fault == "cached":
        cached = tmp_path / "hub" / "checkpoints" / file.name
        cached.parent.mkdir(parents=True)
        torch.save({"a": torch.zeros(1)}, cached)
    words = ("model=torchvision", "model.name=squeezenet1_1", "data.image_size=32", "init_from=torchvision")
    message = refused(*words, *SHORT, f"data.dir={digits_dir}", run_dir=tmp_path / "run")
    expected = "does not begin with" if fault == "cached" else "cannot be fetched ("
    assert expected in message
    assert str(tmp_path / "hub" / "checkpoints") in message


def test_torchvisions_own_file_fits_its_alexnet_alone(served, monkeypatch, digits_dir, tmp_path):
    offered("alexnet", served, monkeypatch)
    file = next(served[1].iterdir())
    common = ("data=cifar10", "data.image_size=224", f"data.dir={digits_dir}", f"init_from={file}", *SHORT)
    message = refused("model=alexnet", *common, run_dir=tmp_path / "run")
    assert "its network has `model." in message
    message = refused("model=alexnet_owt", "model.activation=tanh", *common, run_dir=tmp_path / "run")
    assert "its network has `model.activation` 'relu', and this one 'tanh'" in message


FROZEN = {
    "sgd": ("optimizer=sgd",),
    "krizhevsky": ("optimizer=krizhevsky_sgd", "optimizer.layers={conv1:{learning_rate:0.1}}"),
    "adamw": ("optimizer=adam", "optimizer._target_=torch.optim.AdamW", "~optimizer.learning_rate", "~optimizer.beta1",
              "~optimizer.beta2", "~optimizer.epsilon", "~optimizer.decay_biases", "optimizer.weight_decay=0.5"),
}  # fmt: skip

BN = ("model=alexnet", "model.norm=batch", "model.width=0.0625", "data.image_size=32", "model.init=torch")


@pytest.mark.parametrize("optimizer", FROZEN)
def test_frozen_layers_keep_their_bits(optimizer, compose, tmp_path):
    words = (*BN, *FROZEN[optimizer], "trainer.gradient_clip_val=1.0", "callbacks.layer_statistics=true")
    for name, more in {"start": ("trainer.limit_train_batches=1", "freeze=[features,fc6,fc7]"),
                       "run": ("freeze=[conv1,norm1,fc6]",)}.items():  # fmt: skip
        place = tmp_path / name
        train(compose(*words, *SHORT, *more, f"run_dir={place}", "trainer.max_epochs=2"))
    start, found = state_of(tmp_path / "start"), state_of(tmp_path / "run")
    assert equal(start, found, "conv1.", "norm1.", "fc6.")
    assert "features.norm1.running_mean" in found
    for name in ("features.conv2.weight", "features.norm2.running_mean", "classifier.fc7.weight"):
        assert not equal(start, found, name)
    states = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["optimizer_states"][0]
    trained = [name for name in found if name.endswith(("weight", "bias")) and not equal(start, found, name)]
    assert sum(len(group["params"]) for group in states["param_groups"]) == len(trained)
    log = (tmp_path / "run" / "train.log").read_text()
    assert "frozen: features.conv1, features.norm1, classifier.fc6; " in log
    rows = (tmp_path / "run" / "metrics.csv").read_text()
    assert "layers/conv2/update_ratio" in rows
    assert "layers/conv1/update_ratio" not in rows


def test_two_processes_and_a_resume_keep_them_too(digits_run, compose, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(digits_run, source)
    short = ("trainer.limit_train_batches=4", "data.batch_size=18", "trainer.accelerator=cpu", "schedule=constant")
    words = (f"init_from={source}", "freeze=[c1]", *short)
    train(compose(*words, f"run_dir={tmp_path / 'one'}", "trainer.max_epochs=2"))
    train(compose(*words, f"run_dir={tmp_path / 'two'}", "trainer.max_epochs=1", "trainer.devices=2"))
    shutil.rmtree(source)  # it does not apply again
    train({"resume": str(tmp_path / "two"), "changes": {"trainer.max_epochs": 2}})
    one, two, start = state_of(tmp_path / "one"), state_of(tmp_path / "two"), state_of(digits_run, "best.ckpt")
    assert equal(start, one, "c1.")
    assert equal(start, two, "c1.")
    record = json.loads((tmp_path / "two" / "manifest.json").read_text())["init_from"]
    assert record["sha256"] == json.loads((tmp_path / "one" / "manifest.json").read_text())["init_from"]["sha256"]
    assert not equal(start, two, "c3.weight")
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
