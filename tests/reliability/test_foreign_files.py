"""Files from elsewhere: what they ask for is not done."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from commands import call
from PIL import Image

from alexnet_lab.base.errors import ConfigError, DataError, RunError
from alexnet_lab.base.targets import KINDS, build, check_target, locate
from alexnet_lab.config import check_saved, check_train
from alexnet_lab.data.download import unpack
from alexnet_lab.data.images import centre_square, read_image
from alexnet_lab.run import train
from alexnet_lab.training import Classifier
from alexnet_lab.training.checkpoint_io import load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

SGD = {"_target_": "alexnet_lab.training.optimizers.sgd"}
LENET = {"_target_": "alexnet_lab.models.LeNet5"}


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A file that appears if something was run that should not have been."""
    return tmp_path / "trap"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that is not trusted, and leaves a mark when it is imported."""
    folder = tmp_path / "packages" / "mine_of_tests"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "from pathlib import Path\n"
        "from alexnet_lab.models import LeNet5\n"
        "(Path(__file__).parent.parent.parent / 'trap').touch()\n"
        "class Net(LeNet5):\n"
        "    def __init__(self, *, num_classes: int = 10, in_channels: int = 1, image_size: int = 28):\n"
        "        super().__init__(num_classes=num_classes, in_channels=in_channels, image_size=image_size)\n"
        "def net(*, num_classes: int = 10, in_channels: int = 1, image_size: int = 28):\n"
        "    return 'no network'\n"
    )
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delitem(sys.modules, "mine_of_tests", raising=False)
    return "mine_of_tests"


# Targets


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("model", "torch.hub.load"),
        ("model", "torch.load"),
        ("model", "torch.jit.load"),
        ("model", "torch.nn.functional.relu"),
        ("model", "torch.nn.init.zeros_"),
        ("model", "torch.utils.cpp_extension.load"),
        ("model", "torchvision.models.get_model"),
        ("model", "torchvision.models.resnet18"),
        ("model", "alexnet_lab.run.launcher.train"),
        ("model", "alexnet_lab.data.download.fetch"),
        ("model", "alexnet_lab.training.optimizers.sgd"),
        ("loss", "alexnet_lab.training.checkpoint_io.load_checkpoint"),
        ("data", "torch.utils.data.DataLoader"),
        ("data", "lightning.pytorch.demos.boring_classes.BoringDataModule"),
        ("optimizer", "torch.optim.lr_scheduler.StepLR"),
        ("optimizer", "alexnet_lab.models.LeNet5"),
        ("schedule", "torch.optim.lr_scheduler.LambdaLR"),
        ("augment", "alexnet_lab.data.DigitsDataModule"),
        ("logger", "lightning.pytorch.loggers.CSVLogger"),
        ("logger", "alexnet_lab.base.files.write_text"),
    ],
)
def test_target_of_another_kind_is_refused_by_its_name(group, target):
    with pytest.raises(ConfigError, match=r"_target_.*(; allowed: names of alexnet_lab|is outside the trusted pack)"):
        check_target(target, group)


@pytest.mark.parametrize(
    ("group", "target", "message"),
    [
        ("model", "torch.nn.Parameter", "is no class derived from torch.nn.Module"),
        ("model", "torchvision.models.ResNet18_Weights", "is no class derived from torch.nn.Module"),
        ("optimizer", "alexnet_lab.training.optimizers.build", "is not defined in alexnet_lab.training"),
        ("model", "alexnet_lab.models.zoo.OmegaConf", "is not defined in alexnet_lab.models"),
        ("data", "alexnet_lab.data.download.tarfile", "is a module, which cannot be called"),
        ("model", "alexnet_lab.models.nothing", "was not found"),
    ],
)
def test_target_of_another_kind_is_refused_when_it_is_located(group, target, message):
    with pytest.raises(ConfigError, match=message):
        locate(target, group)


def test_what_is_built_must_be_of_the_kind(mine):
    with pytest.raises(ConfigError, match=r"`model._target_: mine_of_tests.net` gives a str, not a torch.nn.Module"):
        build({"_target_": f"{mine}.net"}, "model", trusted=(mine,))
    with pytest.raises(ConfigError, match=r"`model`: torch.nn.Linear does not take these fields: .*in_featurs"):
        build({"_target_": "torch.nn.Linear", "in_featurs": 3}, "model")


def test_classes_of_the_kind_are_taken(mine):
    assert locate("torch.optim.AdamW", "optimizer") is torch.optim.AdamW
    assert isinstance(build({"_target_": "torch.nn.Flatten"}, "model"), torch.nn.Flatten)
    assert isinstance(build({"_target_": f"{mine}.Net"}, "model", trusted=(mine,)), torch.nn.Module)


def test_each_group_with_a_target_has_a_kind():
    from alexnet_lab.config.validate import TARGET_GROUPS

    assert {key for key in KINDS if not key.startswith("trainer.")} == set(TARGET_GROUPS)


# Checkpoints


class Bomb:
    """Code in a pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)


@pytest.fixture
def unfinished(digits_run: Path, tmp_path: Path) -> Path:
    """A run directory that somebody sent, to be resumed."""
    run = shutil.copytree(digits_run, tmp_path / "run")
    (run / "result.json").unlink()
    return run


@pytest.mark.parametrize("key", ["state_dict", "callbacks", "loops", "optimizer_states", "extra"])
def test_code_in_a_checkpoint_is_not_run_on_resume(key, unfinished, trap):
    last = unfinished / "checkpoints" / "last.ckpt"
    rewritten(last, lambda checkpoint: checkpoint.update({key: Bomb(trap)}))
    with pytest.raises(RunError, match="holds more than tensors, numbers and strings; it is not loaded"):
        train({"resume": str(unfinished)})
    assert not trap.exists()


def test_code_in_a_checkpoint_is_not_run_from_python(unfinished, trap):
    best = unfinished / "checkpoints" / "best.ckpt"
    rewritten(best, lambda checkpoint: checkpoint.update(hyper_parameters=Bomb(trap)))
    with pytest.raises(RunError, match="holds more than tensors"):
        Classifier.load_from_checkpoint(best)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"_target_": "os.system", "command": "true"}}, "is outside the trusted packages"),
        ({"model": {"_target_": "torch.hub.load", "repo_or_dir": "x/y"}}, "allowed: names of alexnet_lab.models"),
        ({"loss": {"_target_": "torch.load", "f": "x"}}, "allowed: names of alexnet_lab.training.losses"),
        (
            {"model": {"_target_": "mine_of_tests.Net"}, "trusted_packages": ["mine_of_tests"]},
            "mine_of_tests.Net` is outside the trusted packages",
        ),
    ],
)
def test_fields_of_a_checkpoint_call_nothing(change, message, unfinished, mine, trap):
    best = unfinished / "checkpoints" / "best.ckpt"
    rewritten(best, lambda checkpoint: checkpoint["hyper_parameters"].update(change))
    with pytest.raises(ConfigError, match=message):
        Classifier.load_from_checkpoint(best)
    assert not trap.exists()


def test_lightnings_own_ways_to_call_something_are_ignored(unfinished):
    """An older Lightning called any function that `_instantiator` named."""
    best = unfinished / "checkpoints" / "best.ckpt"
    plain = Classifier.load_from_checkpoint(best)
    more = {"_instantiator": "os.system", "_class_path": "os.system", "unknown": 1}
    rewritten(best, lambda checkpoint: checkpoint["hyper_parameters"].update(more))
    found = Classifier.load_from_checkpoint(best)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in found.state_dict().items())


def test_trust_is_not_kept_in_a_checkpoint(mine, tmp_path, trap):
    classifier = Classifier(net={"_target_": f"{mine}.Net"}, num_classes=10, optimizer=SGD, trusted_packages=[mine])
    assert "trusted_packages" not in classifier.hparams
    path = tmp_path / "own.ckpt"
    torch.save({"state_dict": classifier.state_dict(), "hyper_parameters": dict(classifier.hparams)}, path)
    trap.unlink()
    del sys.modules[mine]
    with pytest.raises(ConfigError, match="is outside the trusted packages"):
        Classifier.load_from_checkpoint(path)
    assert not trap.exists()
    assert type(Classifier.load_from_checkpoint(path, trusted_packages=[mine]).net).__name__ == "Net"


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"hyper_parameters": {"model": LENET}}])
def test_checkpoint_of_something_else(content, tmp_path):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(RunError, match="is no checkpoint of a Classifier: it does not name its network"):
        Classifier.load_from_checkpoint(tmp_path / "a.ckpt")


def test_packed_checkpoint_is_refused(tmp_path):
    """Four gigabytes of zeros pack into four megabytes."""
    path = tmp_path / "a.ckpt"
    torch.save({"weights": torch.zeros(100_000)}, tmp_path / "plain.ckpt")
    with zipfile.ZipFile(tmp_path / "plain.ckpt") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(RunError, match="is compressed, which torch never does; it is not loaded"):
        load_checkpoint(path)


# Configs


def test_resumed_run_cannot_grant_trust_to_itself(unfinished, mine, trap):
    config = yaml.safe_load((unfinished / "config.yaml").read_text())
    config["model"] = {"_target_": f"{mine}.Net"}
    config["trusted_packages"] = [mine]
    (unfinished / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"config\.yaml: `model`: `_target_: mine_of_tests\.Net` is outside"):
        train({"resume": str(unfinished)})
    assert not trap.exists()
    words = (f"resume={unfinished}", f"trusted_packages=[{mine}]")
    outcome = call(train, "train", *words)
    assert (
        "is not the config of its checkpoint: `model._target_` is 'mine_of_tests.Net'" in outcome.err
    )  # the next check


YAML_OBJECTS = ["!!python/object/apply:os.system ['touch TRAP']", "!!python/name:os.system", "!!python/module:os"]


@pytest.mark.parametrize("value", YAML_OBJECTS)
def test_yaml_that_asks_for_objects_in_a_run(value, unfinished, trap):
    with (unfinished / "config.yaml").open("a") as file:
        file.write(f"\nmore: {value.replace('TRAP', str(trap))}\n")
    with pytest.raises(RunError, match=r"config\.yaml cannot be read: could not determine a constructor"):
        train({"resume": str(unfinished)})
    assert not trap.exists()


def foreign(folder: Path, text: str, *words: str, name: str = "experiment/theirs") -> Any:
    """`train.py --config-dir=folder experiment=theirs`, that file holding `text`."""
    file = folder / "configs" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"# @package _global_\n{text}\n")
    chosen = () if name.startswith("hydra") else ("experiment=theirs",)
    return call(check_train, "train", f"--config-dir={folder / 'configs'}", *chosen, *words)


@pytest.mark.parametrize("value", YAML_OBJECTS)
def test_yaml_that_asks_for_objects_beside_ours(value, tmp_path, trap):
    outcome = foreign(tmp_path, f"notes: {value.replace('TRAP', str(trap))}")
    assert outcome.code == 2
    assert outcome.err.startswith("error: a config file cannot be read: could not determine a constructor for the tag")
    assert outcome.err.count("\n") == 1
    assert not trap.exists()


def remaining_fields() -> list[str]:
    """Overrides that take away the fields of LeNet-5 that `Net` does not have."""
    fields = yaml.safe_load((Path(__file__).parents[2] / "configs" / "model" / "lenet5.yaml").read_text())
    known = {"_target_", "num_classes", "in_channels", "image_size"}
    return [f"~model.{name}" for name in fields if name not in known]


def test_config_file_named_on_the_command_line_is_code(mine, tmp_path, trap):
    """It may name any package; whether the package holds what is asked for is checked all the same."""
    text = f"model: {{_target_: {mine}.Net}}\nhydra: {{job: {{env_set: {{SET_BY_A_TEST: yes}}}}}}"
    assert foreign(tmp_path, text, *remaining_fields()) == (0, "", "")
    assert not trap.exists()  # it is read before anything is imported
    outcome = foreign(tmp_path, f"model: {{_target_: {mine}.Nett}}")
    assert outcome.err == (
        f"error: `model`: `_target_: {mine}.Nett` does not exist: {mine} has no `Nett`; did you mean `Net`?\n"
    )
    outcome = foreign(tmp_path, f"model: {{_target_: {mine}.Net, num_clases: 3}}", *remaining_fields())
    assert outcome.err == "error: unknown key `model.num_clases`; did you mean `num_classes`?\n"


def test_config_with_a_package_of_ones_own_cannot_be_read_from_a_run_without_trust(mine, compose, tmp_path):
    """The command decides once; what it wrote down in the run does not count for the next command."""
    config = compose(f"model._target_={mine}.Net", *remaining_fields())
    assert config["trusted_packages"] == [mine]
    with pytest.raises(ConfigError, match=f"add 'trusted_packages=.{mine}.' to the command"):
        check_saved(config)
    assert check_saved(config, [mine]).model_dump() == config


@pytest.mark.parametrize("words", [("--experimental-rerun=a.pickle",), ("--experimental-re", "a.pickle")])
def test_hydras_rerun_of_a_pickle_is_refused(words, tmp_path, trap):
    file = tmp_path / "a.pickle"
    file.write_bytes(pickle.dumps(Bomb(trap)))
    outcome = call(check_train, "train", *(word.replace("a.pickle", str(file)) for word in words))
    assert outcome.code == 2
    assert outcome.err.startswith("error: --experimental-rerun unpickles a file, which can run code; use ")
    assert outcome.err.count("\n") == 1
    assert not trap.exists()


# Archives


def archive(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            content = b"x" * 3 if member.isreg() else b""
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


@pytest.mark.parametrize(
    "bad",
    [
        [member("../trap")],
        [member("data/../../trap")],
        [member("TRAP")],
        [member("data/link", tarfile.SYMTYPE, "/etc")],
        [member("data/link", tarfile.SYMTYPE, "../../.."), member("data/link/trap")],
        [member("data/link", tarfile.LNKTYPE, "../../trap")],
        [member("data/null", tarfile.CHRTYPE)],
        [member("data/pipe", tarfile.FIFOTYPE)],
    ],
    ids=["up", "down_and_up", "absolute", "link_out", "through_a_link", "hard_link", "device", "pipe"],
)
def test_archive_stays_in_its_folder(bad, tmp_path, trap):
    for info in bad:
        info.name = info.name.replace("TRAP", str(trap))
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    path = archive(folder / "a.tar.gz", member("data/good"), *bad)
    with contextlib.suppress(DataError):  # what is not refused is made harmless
        unpack(path, "data", folder / "data")
    outside = {entry.name for entry in (*tmp_path.iterdir(), *(tmp_path / "a").iterdir(), *folder.iterdir())}
    assert outside <= {"a", "b", "a.tar.gz", "data"}
    assert not trap.exists()
    assert all(entry.is_file() and not entry.is_symlink() for entry in (folder / "data").glob("*"))


# Pictures


def png_head(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, and brings next to none."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_image_bomb_is_not_decoded(name, tmp_path):
    (tmp_path / name).write_bytes(png_head(100_000, 100_000))
    with pytest.raises(Image.DecompressionBombError, match="exceeds limit"):
        read_image(tmp_path / name, 32, 3)


def test_image_bomb_in_a_folder_is_reported_by_its_name(tmp_path, compose):
    for label in ("one", "two"):
        folder = tmp_path / "root" / "train" / label
        folder.mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (32, 32)).save(folder / f"{number}.png")
    (tmp_path / "root" / "train" / "two" / "bomb.png").write_bytes(png_head(100_000, 100_000))
    words = ("data=image_folder", f"data.root={tmp_path / 'root'}", "data.image_size=28", "data.stored_size=32")
    with pytest.raises(DataError, match=r"cannot read train/two/bomb\.png: .*exceeds limit"):
        train(compose(*words, f"data.dir={tmp_path}", f"run_dir={tmp_path / 'run'}", "data.batch_size=2"))
    assert not (tmp_path / "run").exists()


def test_long_strip_is_not_scaled_up():
    """Within Pillow's limit; but 256 pixels wide it would have 5 thousand million of them."""
    with pytest.raises(ValueError, match="1 x 80000 pixels are too long a strip to be scaled to 256"):
        centre_square(Image.new("L", (1, 80_000)), 256)


def test_postscript_is_not_passed_to_another_program(tmp_path, monkeypatch, trap):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {trap}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    with pytest.raises(Image.UnidentifiedImageError):
        read_image(tmp_path / "a.jpg", 8, 3)
    assert not trap.exists()
