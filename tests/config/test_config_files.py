"""Every yaml file: it composes, is valid, has a header, and names exactly the fields of its target."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from commands import CONFIGS, call, compose_raw

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.config import check_train
from alexnet_lab.config.schema import Callbacks, Evaluate, Launcher, Sweep, Trainer
from alexnet_lab.config.signatures import read_signature
from alexnet_lab.config.validate import SUPPLIED

FILES = sorted(CONFIGS.rglob("*.yaml"))
TARGETS = [path for path in FILES if "_target_:" in path.read_text() and path.parent.name != "model"]
"""Those of models are held against their fields in tests/models."""

CHOICES = [
    path for path in FILES if path.parent != CONFIGS and path.parent.name not in ("model", "data", "trainer", "debug")
]
NEEDS = {
    "loss=lenet5_1998": ("model=lenet5_1998",),
    "optimizer=diagonal_lm": ("model=lenet5", "model.activation=tanh"),
    "schedule=recorded_145": ("optimizer=krizhevsky_sgd",),
    "schedule=dexp": ("optimizer=krizhevsky_sgd",),
    "augment=alexnet": ("data=imagenette", "model=alexnet"),
    "sweep=ideas": ("data=cifar10", "model=alexnet"),
}
"""What a choice needs beside it."""


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_has_a_header(path):
    lines = path.read_text().splitlines()
    start = 1 if lines[0].startswith("# @package") else 0
    assert lines[start].startswith("# ")
    assert len(lines[start]) > 8


@pytest.mark.parametrize("path", FILES, ids=name)
def test_lines_fit_and_end_as_they_should(path):
    text = path.read_text()
    assert "\t" not in text
    assert text.endswith("\n")


@pytest.mark.parametrize("path", TARGETS, ids=name)
def test_names_every_field_of_its_target_and_no_other(path):
    group = path.parent.name
    fields = yaml.safe_load(path.read_text())
    if "defaults" in fields and group != "data":
        pytest.skip("takes its fields from another file")
    fields.pop("defaults", None)
    signature = read_signature(fields.pop("_target_"))
    assert signature is not None
    assert set(fields) == set(signature.fields) - SUPPLIED.get(group, set())


def test_names_every_key_of_its_section():
    files = {name: yaml.safe_load((CONFIGS / name / "default.yaml").read_text()) for name in ("trainer", "callbacks")}
    assert list(files["trainer"]) == list(Trainer.model_fields)
    files["callbacks"] |= yaml.safe_load((CONFIGS / "train.yaml").read_text())["callbacks"]  # which files switch on
    assert files["callbacks"].keys() == Callbacks.model_fields.keys()


def test_launcher_and_sweep_name_every_key_of_their_section():
    local = yaml.safe_load((CONFIGS / "launcher" / "local.yaml").read_text())
    assert list(local["launcher"]) == list(Launcher.model_fields)
    train = yaml.safe_load((CONFIGS / "train.yaml").read_text())
    assert list(train["sweep"]) == list(Sweep.model_fields)


def test_eval_names_every_key():
    keys = yaml.safe_load((CONFIGS / "eval.yaml").read_text())
    assert set(keys) - {"defaults", "hydra"} == set(Evaluate.model_fields)


@pytest.mark.parametrize("path", CHOICES, ids=name)
def test_choice_is_valid(path, tmp_path):
    word = f"{path.parent.name}={path.stem}"
    config = check_train(compose_raw(word, *NEEDS.get(word, ()), f"data.dir={tmp_path}"))
    assert config.overrides[0] == word


@pytest.mark.parametrize("path", sorted((CONFIGS / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_data_is_valid_with_alexnet(path, tmp_path):
    for name in ("apple", "pear"):
        (tmp_path / "train" / name).mkdir(parents=True)
    root = (f"data.root={tmp_path}",) if path.stem == "image_folder" else ()
    config = check_train(compose_raw("model=alexnet", f"data={path.stem}", *root))
    assert config.model["num_classes"] == config.data["num_classes"]
    if root:
        assert config.data["num_classes"] == 2


@pytest.mark.parametrize("path", sorted((CONFIGS / "debug").glob("*.yaml")), ids=lambda path: path.stem)
def test_debug_is_valid(path):
    config = check_train(compose_raw(f"debug={path.stem}"))
    assert config.logger is None


@pytest.mark.parametrize("path", sorted((CONFIGS / "trainer").glob("*.yaml")), ids=lambda path: path.stem)
def test_trainer_is_valid(path):
    config = check_train(compose_raw(f"trainer={path.stem}"))
    assert set(config.trainer.model_dump()) == set(Trainer.model_fields)


def test_augmentation_follows_the_data_unless_chosen():
    assert compose_raw("data=mnist")["augment"]["mirror"] is False
    assert (
        compose_raw("data=cifar10", "model=alexnet")["augment"] | {}
        == compose_raw("data=cifar10", "model=alexnet", "augment=flip_crop")["augment"]
    )
    assert compose_raw("data=imagenette", "model=alexnet")["augment"]["pca_colour"] == "code2012"
    assert compose_raw("augment=none")["augment"] is None


@pytest.mark.parametrize(("epochs", "end"), [(91, 67), (10, 7)])
def test_colour_noise_of_run_145_ends_at_the_same_share_of_any_run(epochs, end):
    config = compose_raw("experiment=alexnet_2012", f"trainer.max_epochs={epochs}")
    assert config["augment"]["pca_epochs"] == end


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model=alexnet", "data=imagenette", "schedule=plateau", "logger=csv", "callbacks=early_stopping"),
        ("data=mini_imagenet", "model=alexnet", "optimizer=adam", "schedule=step", "tags=[a,b]"),
    ],
    ids=["default", "imagenette", "mini_imagenet"],
)
def test_checking_twice_changes_nothing(overrides):
    config = check_train(compose_raw(*overrides))
    assert check_train(yaml.safe_load(yaml.safe_dump(config.model_dump()))) == config


def test_defaults_are_filled_in():
    config = check_train(
        {
            "seed": 0,
            "run_dir": "somewhere",
            "model": {"_target_": "alexnet_lab.models.LeNet5"},
            "data": {"_target_": "alexnet_lab.data.DigitsDataModule", "image_size": 28},
            "loss": {"_target_": "alexnet_lab.training.losses.CrossEntropy"},
            "optimizer": {"_target_": "alexnet_lab.training.optimizers.sgd"},
        }
    )
    assert config.optimizer["momentum"] == 0.9
    assert config.data["batch_size"] == 8
    assert config.trainer.devices == 1
    assert config.schedule is None


def test_missing_group_is_named():
    with pytest.raises(ConfigError, match="`optimizer` is missing"):
        check_train({"seed": 0, "run_dir": "x", "model": {}, "data": {}, "loss": {}})


def test_group_without_a_target_is_named():
    with pytest.raises(ConfigError, match=r"^`loss` is switched off or has no `_target_`; choose a loss=...$"):
        check_train(compose_raw() | {"loss": {}})


def test_data_module_of_another_package_states_what_a_run_reads():
    with pytest.raises(ConfigError, match=r"^`data.batch_size` is missing; every run needs it, with a data module of"):
        check_train(compose_raw() | {"data": {"_target_": "lightning.LightningDataModule"}})


def test_class_of_torch_is_checked_by_the_names_of_its_fields():
    words = ("optimizer._target_=torch.optim.AdamW", "~optimizer.learning_rate", "~optimizer.momentum",
             "~optimizer.nesterov", "~optimizer.decay_biases", "+optimizer.lr=0.1")  # fmt: skip
    config = check_train(compose_raw(*words))
    assert config.optimizer == {"_target_": "torch.optim.AdamW", "weight_decay": 5e-4, "lr": 0.1}
    outcome = call(check_train, "train", *words, "+optimizer.lrr=1")
    assert outcome.err.startswith("error: unknown key `optimizer.lrr`; did you mean `lr`?")
    outcome = call(check_train, "train", *words[:-1], "optimizer.lr=0.1")
    assert outcome.err == (
        "error: `optimizer.lr` is not set in the config; to pass it to torch.optim.AdamW, type +optimizer.lr=...\n"
    )


@pytest.mark.parametrize(
    ("mode", "folder"),
    [
        ((), "logs/runs/"),
        (("-m", "hydra/sweeper=basic", "seed=0,1", "model.activation=tanh", "hydra.sweep.dir=SWEEP"), "SWEEP/"),
    ],
    ids=["run", "multirun"],
)
def test_default_run_dir(mode, folder, tmp_path):
    seen: list[str] = []
    words = [word.replace("SWEEP", str(tmp_path)) for word in mode]
    assert call(lambda config: seen.append(config["run_dir"]), "train", *words).code == 0
    folder = folder.replace("SWEEP", str(tmp_path))
    assert all(path.startswith(folder) for path in seen)
    names = [Path(path).name for path in seen]
    assert not any("=" in item for item in names)
    if mode:
        assert names == ["model.activation-tanh_seed-0", "model.activation-tanh_seed-1"]
    else:
        assert names[0].endswith("_lenet5_digits")


def test_empty_variable_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("ALEXNET_LAB_DATA", "")
    assert compose_raw()["data"]["dir"] == "data"
