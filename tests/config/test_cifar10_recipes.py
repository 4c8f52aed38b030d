"""What cuda-convnet's recipes for CIFAR-10 resolve to: images, order, size, augmentation, rates and their drops.

The numbers are those of its layer files, layer parameter files and wiki.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from commands import CONFIGS, call, compose_raw

from alexnet_lab.base.targets import build
from alexnet_lab.config import check_train
from alexnet_lab.data import CIFAR10DataModule
from alexnet_lab.training.krizhevsky import krizhevsky_sgd
from alexnet_lab.training.schedules import Duration, step

if TYPE_CHECKING:
    from torch import nn

    from alexnet_lab.data.augment import Augment


class Recipe(NamedTuple):
    """Of one network: its fields, the images, and the epochs of its drops."""

    model: dict[str, Any]
    side: int  # pixels that it sees
    decays: dict[str, float]  # by layer
    drops: list[int]  # epochs
    epochs: int
    lower_biases: bool
    before_fold: int | None = None  # epochs on four fifths of the images; None: all from the start


CONV = {"conv1": 0.004, "conv2": 0.004, "conv3": 0.004}
LOCAL = {"conv1": 0.0, "conv2": 0.0, "local3": 0.004, "local4": 0.004}
RECIPES = {
    "80sec": Recipe({"norm": "none", "hidden": 64}, 32, CONV | {"fc64": 0.03, "fc10": 0.03}, [8], 11, True),
    "19pct": Recipe({"norm": "none", "hidden": None}, 32, CONV | {"fc10": 3.0}, [120, 130], 140, True),
    "18pct": Recipe({"norm": "spatial", "hidden": None}, 32, CONV | {"fc10": 1.0}, [120, 130], 140, True),
    "13pct": Recipe({"norm": "none", "local3": 32}, 24, LOCAL | {"fc10": 0.004}, [140, 150], 160, False, 100),
    "11pct": Recipe({"norm": "across", "local3": 64}, 24, LOCAL | {"fc10": 0.01}, [500, 510], 520, False, 350),
}

HEADERS = {path.stem: path.read_text().partition("defaults:")[0] for path in (CONFIGS / "experiment").glob("*.yaml")}
MEASURED = [name for name, header in HEADERS.items() if re.search(r"Result: (?!not run)", header)]


def resolved(name: str, *words: str) -> dict[str, Any]:
    return check_train(compose_raw(f"experiment=cuda_convnet_{name}", *words)).model_dump()


def folded(name: str) -> dict[str, Any]:
    """The config of a recipe after the second command of its header."""
    words = re.search(r"train\.py resume=RUN (data\.val_fraction=0 \S+)", HEADERS[f"cuda_convnet_{name}"])
    assert words is not None
    return resolved(name, *words[1].split())


def fields_of(node: dict[str, Any]) -> Any:
    return {key: value for key, value in node.items() if key != "_target_"}


@pytest.mark.parametrize("name", RECIPES)
def test_images_and_augmentation_are_the_sources(name):
    config, recipe = resolved(name), RECIPES[name]
    fraction = 0.2 if recipe.before_fold else 0
    data = {"batch_size": 128, "order": "constant", "val_fraction": fraction, "normalization": "mean_image",
            "stored_size": 32, "image_size": recipe.side}  # fmt: skip
    assert {key: config["data"][key] for key in data} == data
    assert {key: config["model"][key] for key in recipe.model} == recipe.model
    assert (config["model"]["init"], config["model"]["dropout"]) == ("published", 0.0)
    if recipe.side == 32:
        assert config["augment"] is None
        return
    augment: Augment = build(config["augment"], "augment")
    geometry = augment.geometry(32, recipe.side)
    statistics: Any = None  # of colours, which stay as they are
    draws = augment.draw(np.random.default_rng(0), 20_000, geometry, statistics)
    places = {(int(top), int(left)) for top, left in zip(draws.top, draws.left, strict=True)}
    assert places == {(top, left) for top in range(9) for left in range(9)}  # 81, none of them padded
    assert draws.mirror.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert draws.shift is None


@pytest.mark.parametrize("name", RECIPES)
def test_rates_and_decays_are_the_sources_epoch_by_epoch(name):
    config, recipe = resolved(name), RECIPES[name]
    net: nn.Module = build(config["model"], "model")
    optimizer = krizhevsky_sgd(net, **fields_of(config["optimizer"]))
    first = {group["name"].partition(".")[2]: dict(group) for group in optimizer.param_groups}
    assert {name: first[f"{name}.weights"]["weight_decay"] for name in recipe.decays} == recipe.decays
    assert all(first[f"{name}.biases"]["weight_decay"] == 0.0 for name in recipe.decays)
    assert all(group["momentum"] == 0.9 for group in first.values())
    epochs = config["trainer"]["max_epochs"]
    if recipe.before_fold:
        assert epochs == recipe.before_fold
        epochs = folded(name)["trainer"]["max_epochs"]
    assert epochs == recipe.epochs
    scheduler = step(optimizer, Duration(epochs * 3, epochs), **fields_of(config["schedule"]))["scheduler"]
    for number in range(epochs * 3):
        fallen = 0.1 ** sum(number >= 3 * drop for drop in recipe.drops)
        rates = {"weights": 0.001 * fallen, "biases": 0.002 * (fallen if recipe.lower_biases else 1.0)}
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(rates[group["kind"]], rel=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("config", "counts"),
    [
        (lambda: resolved("18pct"), (50_000, 0, 10_000, 391)),
        (lambda: resolved("13pct"), (40_000, 10_000, 10_000, 313)),
        (lambda: folded("13pct"), (50_000, 0, 10_000, 391)),
    ],
    ids=["all", "four_fifths", "folded_in"],
)
def test_they_train_on_all_images_in_one_order(config, counts, real_data):
    fields = fields_of(config()["data"]) | {"dir": str(real_data)}
    module = CIFAR10DataModule(**fields, seed=0)
    module.prepare_data()
    module.setup()
    order = module.train_dataloader().batch_sampler
    passes = []
    for epoch in (0, 139):
        order.set_epoch(epoch)
        passes.append(order.positions().tolist())
    assert passes[0] == passes[1] != sorted(passes[0])
    assert sorted(passes[0]) == list(range(counts[0]))
    assert (module.num_train, module.num_val, module.num_test, module.steps_per_epoch) == counts


def test_the_variant_of_19pct_in_its_header_is_valid():
    header = " ".join(HEADERS["cuda_convnet_19pct"].replace("\n# ", " ").split())
    words = re.search(r"To try it, add (.*?) and evaluate", header)
    assert words is not None
    config = resolved("19pct", *words[1].split())
    assert (config["data"]["image_size"], config["augment"]["padding"]) == (24, 0)
    assert config["optimizer"]["weight_decay"] == config["optimizer"]["layers"]["fc10"]["weight_decay"] == 0


def test_the_rate_of_biases_stays_only_where_they_are_groups_of_their_own():
    words = ("model=alexnet", "data=cifar10", "optimizer=sgd", "schedule=step", "schedule.lower_biases=false")
    outcome = call(check_train, "train", *words)
    assert outcome.code == 2
    assert outcome.err.startswith(
        "error: `schedule.lower_biases=false` needs parameter groups for weights and for biases"
    )


@pytest.mark.parametrize("name", MEASURED)
def test_a_header_with_a_result_names_epoch_runs_and_hardware(name):
    header = HEADERS[name]
    assert re.search(r"\b(epoch|pass(es)?) \d|(last|best) (epoch|pass)|epoch with the lowest", header), "of which epoch"
    assert re.search(r"\bn = \d|\d+ runs?\b", header), "of how many runs"
    assert re.search(r"\bcores?\b|\bGPU\b|H100|H200|EPYC", header.partition("Result:")[2]), "on which hardware"
