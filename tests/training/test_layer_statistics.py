"""Update-to-weight ratio and dead units: against formulas and loops, and without a trace in the weights."""

from __future__ import annotations

import csv
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch import nn

from alexnet_lab.run import train
from alexnet_lab.training.layer_statistics import LayerStatistics, firing, short_names, update_ratio, weights

if TYPE_CHECKING:
    from pathlib import Path

SHORT = ("trainer.max_epochs=2", "trainer.limit_train_batches=6", "trainer.limit_val_batches=3")


def test_update_ratio():
    before = torch.tensor([[3.0, 4.0]])
    assert float(update_ratio(before, before + torch.tensor([[0.3, -0.4]]))) == pytest.approx(0.1)
    assert float(update_ratio(torch.zeros(2, 2), torch.zeros(2, 2))) == 0.0
    assert float(update_ratio(torch.zeros(2, 2), torch.ones(2, 2))) == float("inf")


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3, 3), (4, 7, 5)])
def test_firing_against_a_loop(shape):
    output = torch.relu(torch.randn(shape, generator=torch.Generator().manual_seed(0)) - 1.5)
    by_unit = output.movedim(2 if len(shape) == 3 else 1, 0)
    assert firing(output).tolist() == [any(value > 0 for value in unit.flatten().tolist()) for unit in by_unit]


def test_weights_are_tensors_of_two_axes_and_more():
    frozen = nn.Linear(2, 2)
    frozen.weight.requires_grad = False
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), frozen)
    assert list(weights(net)) == ["0"]


def test_float64_and_a_process_without_an_image_are_measured():
    one, other = torch.ones(2, dtype=torch.float64), torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64)
    assert update_ratio(one, other).item() == pytest.approx(1e-12 / 2**0.5, rel=1e-3)
    assert firing(torch.zeros(0, 6)).tolist() == [False] * 6


def test_names_are_short_where_they_differ():
    assert short_names(["features.conv1", "classifier.fc6"]) == {"features.conv1": "conv1", "classifier.fc6": "fc6"}
    assert short_names(["a.conv", "b.conv"]) == {"a.conv": "a.conv", "b.conv": "b.conv"}


def test_a_relu_used_for_several_widths_has_a_row_for_each():
    statistics, relu = LayerStatistics(), nn.ReLU().eval()
    for units in (3, 5, 5):
        statistics._listen("relu", relu, (), torch.eye(5)[:2, :units])
    assert {name: len(fires) for name, fires in statistics.active.items()} == {"relu": 3, "relu-5": 5}
    assert statistics.active["relu-5"].tolist() == [True, True, False, False, False]


def test_a_unit_fires_if_it_does_so_for_any_image():
    statistics, relu = LayerStatistics(), nn.ReLU().eval()
    statistics._listen("relu", relu, (), torch.eye(5)[:2])
    statistics._listen("relu", relu, (), torch.eye(5)[3:4])
    assert statistics.active["relu"].tolist() == [True, True, False, True, False]
    for _ in range(2):  # once more when all have fired
        statistics._listen("relu", relu, (), torch.eye(5))
    assert statistics.active["relu"].all()


def test_an_epoch_without_validation_has_no_dead_units_of_the_one_before():
    metrics = {"layers/act1/dead_share": 0.5, "val/loss": 1.0}
    trainer: Any = SimpleNamespace(num_training_batches=4, accumulate_grad_batches=1, callback_metrics=metrics)
    LayerStatistics().on_train_epoch_start(trainer, nn.Module())  # pyright: ignore[reportArgumentType] - not used
    assert metrics == {"val/loss": 1.0}


def test_a_step_that_computes_its_batch_several_times_counts_once():
    """As LBFGS does."""
    trainer: Any = SimpleNamespace(num_training_batches=4, accumulate_grad_batches=1, callback_metrics={})
    layer = nn.Linear(2, 2)
    statistics, net = LayerStatistics(), nn.Sequential(layer)
    statistics.on_train_epoch_start(trainer, cast("Any", net))
    for batch in range(4):
        for _ in range(3):
            statistics.on_before_optimizer_step(trainer, cast("Any", net), cast("Any", None))
            with torch.no_grad():
                layer.weight *= 2
        statistics.on_train_batch_end(trainer, cast("Any", net), None, None, batch)
    assert [float(ratio) for ratio in statistics.ratios["0"]] == pytest.approx([7.0] * 4)


@pytest.fixture(scope="module")
def runs(compose, tmp_path_factory):
    """The same run with and without the statistics."""
    folder = tmp_path_factory.mktemp("statistics")
    for name, on in (("with", "true"), ("without", "false")):
        train(compose(f"run_dir={folder / name}", *SHORT, f"callbacks.layer_statistics={on}"))
    return folder


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_columns_of_metrics_csv(runs):
    row = rows(runs / "with")[1]
    layers = {name: float(value) for name, value in row.items() if name.startswith("layers/")}
    ratios = [f"layers/{name}/update_ratio" for name in ("c1", "c3", "c5", "f6", "output")]
    shares = [f"layers/act{name}/dead_share" for name in (1, 3, 5, 6)]
    assert list(layers) == ratios + shares
    assert all(0 < layers[name] < 0.5 for name in ratios)
    assert all(0 <= layers[name] <= 1 for name in shares)
    assert layers["layers/act1/dead_share"] * 6 == pytest.approx(round(layers["layers/act1/dead_share"] * 6))


def test_leaves_no_trace(runs):
    without = rows(runs / "without")
    kept = [name for name in without[0] if name != "images_per_second"]
    assert [[row[name] for name in kept] for row in rows(runs / "with")] == [
        [row[name] for name in kept] for row in without
    ]
    one, other = (torch.load(runs / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("with", "without"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_result_holds_no_layers(runs):
    assert "layers/" not in (runs / "with" / "result.json").read_text()


def test_a_dead_network_is_reported(compose, tmp_path, monkeypatch):
    from alexnet_lab.models import LeNet5

    original = LeNet5.__init__

    def dying(self, **fields):
        original(self, **fields)
        with torch.no_grad():
            self.features.c1.bias[:3] = -1e6

    monkeypatch.setattr(LeNet5, "__init__", dying)
    train(compose(f"run_dir={tmp_path / 'run'}", *SHORT, "callbacks.layer_statistics=true"))
    assert float(rows(tmp_path / "run")[0]["layers/act1/dead_share"]) >= 0.5


@pytest.mark.slow
def test_compiled_network(compose, tmp_path):
    train(compose(f"run_dir={tmp_path / 'run'}", *SHORT, "callbacks.layer_statistics=true", "trainer.compile=true"))
    assert "layers/act6/dead_share" in rows(tmp_path / "run")[0]
