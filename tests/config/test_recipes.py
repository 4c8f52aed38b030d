"""What the recipes resolve to: images, order, size, augmentation, rule and schedule, as their sources have them."""

from __future__ import annotations

import csv
import math
import re
from typing import Any

import pytest
import torch
from commands import CONFIGS, QUICK, compose_raw
from PIL import Image

from alexnet_lab.config import check_train
from alexnet_lab.data import MNISTDataModule
from alexnet_lab.data.sources.mini_imagenet_files import GUIDE16
from alexnet_lab.models.counts import num_parameters
from alexnet_lab.run import train
from alexnet_lab.run.engine import build_data
from alexnet_lab.run.own_module import build_network
from alexnet_lab.training.published import by_pass
from alexnet_lab.training.schedules import Duration

ETA = [5e-4] * 2 + [2e-4] * 3 + [1e-4] * 3 + [5e-5] * 4 + [1e-5] * 8
"""LeCun et al. 1998, sec. III.B, pass by pass."""


def resolved(*words: str) -> dict[str, Any]:
    return check_train(compose_raw(*words)).model_dump()


def picked(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    found = {}
    for key in keys:
        group, field = key.split(".")
        found[key] = config[group][field]
    return found


def test_lenet5_1998_is_trained_as_its_paper_says():
    config = resolved("experiment=lenet5_1998")
    wanted = {
        "data.batch_size": 1, "data.order": "constant", "data.val_fraction": 0.0, "data.image_size": 28,
        "data.normalization": "unit", "model.init": "paper", "loss.form": "map", "optimizer.learning_rate": 5e-4,
        "optimizer.samples": 500, "optimizer.every_images": None, "trainer.max_epochs": 20,
    }  # fmt: skip
    assert picked(config, *wanted) == wanted
    assert config["augment"] is None
    assert config["optimizer"]["damping"] == pytest.approx(84 * 0.02)


def test_the_rates_of_lenet5_1998_are_the_printed_ones_pass_by_pass():
    config = resolved("experiment=lenet5_1998")
    fields: Any = {name: value for name, value in config["schedule"].items() if name != "_target_"}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config["optimizer"]["learning_rate"])
    scheduler = by_pass(optimizer, Duration(20 * 60, 20), **fields)["scheduler"]
    rates = []
    for _ in range(20 * 60):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([eta for eta in ETA for _ in range(60)])


def test_lenet5_1998_sees_60000_images_in_each_pass_in_one_order(real_data, tmp_path):
    config = resolved("experiment=lenet5_1998")["data"]
    fields: Any = {name: value for name, value in config.items() if name != "_target_"}
    module = MNISTDataModule(**(fields | {"dir": str(real_data)}), seed=0)
    module.prepare_data()
    module.setup()
    order = module.train_dataloader().batch_sampler
    passes = []
    for epoch in (0, 19):
        order.set_epoch(epoch)
        passes.append(order.positions().tolist())
    assert passes[0] == passes[1] != sorted(passes[0])
    assert sorted(passes[0]) == list(range(60_000))
    assert (module.num_train, module.num_val, module.num_test, module.steps_per_epoch) == (60_000, 0, 10_000, 60_000)


@pytest.mark.slow
def test_lenet5_1998_learns_more_in_each_pass(real_data, tmp_path):
    """With the printed mu, .02, it answers 9 of 10 images wrongly in both passes: it saturates at once."""
    short = ("trainer.limit_train_batches=1500", "trainer.max_epochs=2", "trainer.limit_test_batches=500")
    train(
        resolved("experiment=lenet5_1998", f"data.dir={real_data}", f"run_dir={tmp_path / 'run'}", *QUICK[1:], *short)
    )
    with (tmp_path / "run" / "metrics.csv").open() as file:
        first, second = (float(row["train/top1_error"]) for row in csv.DictReader(file))
    assert second < 0.6 < first


def test_alexnet_2012_is_trained_as_run_145():
    config = resolved("experiment=alexnet_2012", "data=image_folder", "data.root=X", "data.num_classes=1000")
    wanted = {
        "data.batch_size": 128, "data.order": "constant", "data.val_fraction": 0.0, "data.stored_size": 256,
        "data.image_size": 224, "data.normalization": "mean_image", "augment.mirror": True, "augment.crop": True,
        "augment.crop_starts": "code2012", "augment.pca_colour": "code2012", "augment.pca_epochs": 67,
        "optimizer.learning_rate": 0.01, "optimizer.bias_factor": 2.0, "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 5e-4, "schedule.run": 145, "trainer.max_epochs": 91, "model.order": "code2012",
    }  # fmt: skip
    assert picked(config, *wanted) == wanted


def test_the_costs_in_the_header_of_alexnet_2012_are_right():
    header = (CONFIGS / "experiment" / "alexnet_2012.yaml").read_text().partition("defaults:")[0]
    epochs, images = (int(text.replace(",", "")) for text in re.findall(r"(\d+) x ([\d,]+) =", header)[0])
    assert f"= {epochs * images / 1e6:.0f} million images" in header
    assert f"{epochs * images / 1000 / 3600:.0f} hours at 1,000 images/s" in header
    stored = images + 50_000  # with the test set
    assert f"{stored:,} x 256 x 256 x 3 bytes = {stored * math.prod((256, 256, 3)) / 1e9:.0f} GB" in header


ADAM = {"optimizer._target_": "alexnet_lab.training.optimizers.adam", "optimizer.learning_rate": 1e-3}
SEEDS = {
    "lenet5_seed000": ADAM | {
        "data.batch_size": 64, "trainer.max_epochs": 10, "data.val_fraction": 0, "data.normalization": "unit",
        "data.image_size": 28, "model.activation": "relu", "model.pool": "max", "model.c1_padding": "valid",
    },
    "lenet5_seed001": ADAM | {
        "data.batch_size": 64, "trainer.max_epochs": 10, "data.val_fraction": 0.2, "data.normalization": "unit",
        "data.image_size": 28, "model.pool": "average", "model.c5": "conv_same", "model.c1_padding": "valid",
    },
    "lenet5_seed002": ADAM | {
        "data.batch_size": 64, "trainer.max_epochs": 10, "data.val_fraction": 0, "data.normalization": "symmetric",
        "data.image_size": 28, "model.activation": "sigmoid", "model.pool": "average",
    },
    "lenet5_seed003": ADAM | {
        "data.batch_size": 32, "trainer.max_epochs": 5, "data.val_fraction": 0, "data.normalization": "unit",
        "data.image_size": 32, "model.activation": "tanh", "model.pool": "average",
    },
    "alexnet_seed001": ADAM | {
        "data.batch_size": 64, "trainer.max_epochs": 10, "data.val_fraction": 0.2, "data.normalization": "unit",
        "data.image_size": 32, "model.stem": "small", "model.norm": "none", "model.towers": 1, "model.dropout": 0.5,
    },
    "alexnet_seed002": {
        "optimizer._target_": "alexnet_lab.training.optimizers.sgd", "optimizer.learning_rate": 1e-3,
        "optimizer.momentum": 0.9, "optimizer.weight_decay": 0.0, "optimizer.nesterov": False, "data.batch_size": 64,
        "trainer.max_epochs": 5, "data.val_fraction": 0, "data.normalization": "unit", "data.image_size": 224,
    },
    "alexnet_seed003": ADAM | {
        "data.batch_size": 32, "trainer.max_epochs": 3, "data.val_fraction": 0, "data.normalization": "unit",
        "data.image_size": 64, "model.hidden": 1024, "model.maps": [48, 128, 192, 192, 128], "model.norm": "none",
    },
    "alexnet_seed004": {
        "optimizer._target_": "alexnet_lab.training.optimizers.sgd", "optimizer.learning_rate": 0.01,
        "optimizer.momentum": 0.0, "optimizer.weight_decay": 5e-4, "optimizer.decay_biases": True,
        "data.batch_size": 2, "trainer.max_epochs": 50, "data.val_fraction": 0.1, "data.val_seed": 123,
        "data.test_fraction": 0, "data.image_size": 224, "data.stored_size": 224, "model.norm": "batch",
        "schedule.monitor": "val/loss", "schedule.factor": 0.1, "schedule.patience_epochs": 10,
        "schedule.min_learning_rate": 1e-6,
    },
}  # fmt: skip
"""By recipe: what the notebook or guide prints."""


@pytest.mark.parametrize("name", SEEDS)
def test_the_documents_recipes_resolve_to_what_they_print(name):
    config = resolved(f"experiment={name}")
    assert picked(config, *SEEDS[name]) == SEEDS[name]
    assert config["augment"] is None
    assert (config["schedule"] is None) == (name != "alexnet_seed004")
    assert config["data"]["order"] == "shuffled"


@pytest.mark.parametrize(("name", "images"), [("lenet5_seed000", 60_000), ("lenet5_seed001", 48_000),
                                              ("lenet5_seed002", 60_000), ("lenet5_seed003", 60_000),
                                              ("alexnet_seed001", 40_000), ("alexnet_seed002", 50_000),
                                              ("alexnet_seed003", 60_000)])  # fmt: skip
def test_the_documents_recipes_train_on_as_many_images(name, images, real_data):
    config = resolved(f"experiment={name}", f"data.dir={real_data}")
    module = build_data(check_train(config))
    module.prepare_data()
    module.setup()
    assert (module.num_train, module.num_test) == (images, 10_000)


def test_the_guides_513_images_are_parted_as_there(tmp_path):
    """462 to train on, 51 to validate on, no test set; its plateau and early stopping watch what it says."""
    root = tmp_path / "mini_imagenet"
    for number in range(513):
        folder = root / "train" / GUIDE16[number % 16]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (number % 256, number // 256, 0)).save(folder / f"{number}.png")
    config = resolved("experiment=alexnet_seed004", f"data.dir={tmp_path}")
    assert config["callbacks"]["early_stopping"] == {"monitor": "train/loss", "patience_epochs": 10, "min_delta": 0.0}
    assert config["callbacks"]["checkpoint"]["monitor"] is None
    small = config["data"] | {"stored_size": 8, "image_size": 8}
    module = build_data(check_train(config).model_copy(update={"data": small}))
    module.prepare_data()
    module.setup()
    assert (module.num_train, module.num_val, module.num_test) == (462, 51, 0)
    assert module.steps_per_epoch == 231


def test_the_table_of_recipes_lists_each_with_its_headers_result():
    page = (CONFIGS.parent / "docs" / "recipes.md").read_text()
    rows = {row[0]: row[1] for row in re.findall(r"^\| `(\w+)` \|(.*)\|$", page, re.MULTILINE)}
    headers = {
        path.stem: path.read_text().partition("defaults:")[0] for path in (CONFIGS / "experiment").glob("*.yaml")
    }
    assert rows.keys() == headers.keys()
    for name, header in headers.items():
        measured = re.search(r"Result[^:\n]*: ([\d.]+ %)", header)
        assert (measured[1] if measured else "not run") in rows[name].split("|")[2], name


def test_fine_tuning_has_the_network_that_it_starts_from():
    source, tuned, probe = (
        resolved(f"experiment={name}") for name in ("alexnet_cifar10_cpu", "finetune_imagenette", "probe_imagenette")
    )
    assert tuned["model"] == probe["model"] == source["model"]
    assert tuned["data"]["image_size"] == source["data"]["image_size"] == 32
    assert (tuned["freeze"], probe["freeze"]) == ([], ["features", "fc6", "fc7"])
    net = build_network(check_train(probe))
    assert num_parameters(net) == 2048 * 10 + 10
    assert sum(parameter.numel() for parameter in net.parameters()) == 7_156_938
