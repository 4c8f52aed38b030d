"""The sources' schedules: the rates they recorded, at the places they recorded."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models import AlexNet
from alexnet_lab.training.krizhevsky import KrizhevskySGD, krizhevsky_sgd
from alexnet_lab.training.optimizers import sgd
from alexnet_lab.training.published import RUNS, by_pass, caffe_inv, caffe_step, dexp, recorded
from alexnet_lab.training.schedules import Duration, one_cycle, plateau


def tiny_alexnet() -> nn.Sequential:
    """Two layers with AlexNet's names, without its size."""
    net = nn.Sequential()
    net.add_module("conv1", nn.Conv2d(1, 1, 1))
    net.add_module("fc8", nn.Linear(1, 1))
    return net


def rates(optimizer: torch.optim.Optimizer, schedule: dict[str, Any], steps: int) -> list[list[float]]:
    """The rates of all groups at each of `steps` steps."""
    assert schedule["interval"] == "step"
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule["scheduler"].step()
    return seen


def by_name(optimizer: KrizhevskySGD, schedule: dict[str, Any], steps: int) -> dict[str, list[float]]:
    columns = zip(*rates(optimizer, schedule, steps), strict=True)
    return dict(zip([group["name"] for group in optimizer.param_groups], map(list, columns), strict=True))


def test_check_25_dexp_at_progress_1_3_6_9_tenths():
    optimizer = krizhevsky_sgd(tiny_alexnet())
    found = by_name(optimizer, dexp(optimizer, Duration(1000, 10)), 1000)
    weights = [found["fc8.weights"][step] for step in (100, 300, 600, 900)]
    assert weights == pytest.approx([0.01, 0.0015874010519682, 0.000251984209979, 0.00004], rel=1e-12)
    assert sorted(set(found["fc8.weights"]), reverse=True) == pytest.approx(
        [0.01, 0.00158740105, 0.000251984210, 0.00004], rel=1e-8
    )
    assert [found["fc8.weights"].index(rate) for rate in dict.fromkeys(found["fc8.weights"])] == [0, 251, 501, 751]
    assert [found["fc8.biases"][step] for step in (0, 500, 501, 999)] == pytest.approx([0.02, 0.02, 0.002, 0.002])


def lr_cu(progress: float, target_factor: float, steps: int) -> float:
    """`DiscreteExpParameterSchedule::getValue` of cuda-convnet2's lr.cu, for a base rate of 1."""
    rates = [(1 / target_factor) ** (index / (steps - 1)) for index in range(steps - 1)] + [1 / target_factor]
    return next(rate for index, rate in enumerate(rates) if progress <= (index + 1) / steps)


@pytest.mark.parametrize("steps", [7, 12, 30, 49, 1000])
@pytest.mark.parametrize("levels", [2, 3, 4, 7])
def test_dexp_is_lr_cu_at_every_step_boundaries_included(steps: int, levels: int):
    optimizer = sgd(tiny_alexnet())
    schedule = dexp(optimizer, Duration(steps, 1), levels=levels, target_factor=250.0, bias_target_factor=None)
    found = [row[0] for row in rates(optimizer, schedule, steps)]
    assert found == pytest.approx([0.01 * lr_cu(step / steps, 250.0, levels) for step in range(steps)], rel=1e-12)


def test_dexp_of_any_number_of_levels_takes_no_time():
    optimizer = sgd(tiny_alexnet())
    schedule = dexp(optimizer, Duration(10, 1), levels=2**31 - 1, target_factor=4.0, bias_target_factor=None)
    found = [row[0] for row in rates(optimizer, schedule, 10)]
    assert found == pytest.approx([0.01 * 4.0 ** (-step / 10) for step in range(10)], rel=1e-6)


def test_dexp_without_groups_needs_one_rule_for_all():
    optimizer = sgd(tiny_alexnet())
    with pytest.raises(ConfigError, match=r"`schedule.bias_target_factor` needs parameter groups .*=krizhevsky_sgd"):
        dexp(optimizer, Duration(10, 1))
    found = rates(optimizer, dexp(optimizer, Duration(10, 1), levels=2, target_factor=4.0, bias_target_factor=None), 10)
    assert found == [[0.01] * 2] * 6 + [[0.0025] * 2] * 4


def test_dexp_of_one_level_is_constant():
    optimizer = krizhevsky_sgd(tiny_alexnet())
    found = by_name(optimizer, dexp(optimizer, Duration(8, 1), levels=1, bias_levels=1), 8)
    assert set(found["fc8.weights"]) == {0.01}
    assert set(found["fc8.biases"]) == {0.02}


def test_run_145_at_its_own_length():
    """One step an epoch, 91 of them: the notes can be read off."""
    optimizer = krizhevsky_sgd(tiny_alexnet())
    found = by_name(optimizer, recorded(optimizer, Duration(91, 91)), 91)
    expected = [1e-2] * 25 + [1e-3] * 26 + [1e-4] * 28 + [1e-5] * 12
    assert found["fc8.weights"] == pytest.approx(expected)
    assert found["fc8.biases"] == [0.02] * 91
    assert found["conv1.weights"] == pytest.approx(expected[:67] + [1e-5] * 5 + [0.0] * 19)
    assert found["conv1.biases"] == [0.02] * 72 + [0.0] * 19


def test_drops_are_stretched_to_the_run():
    optimizer = krizhevsky_sgd(tiny_alexnet())
    found = by_name(optimizer, recorded(optimizer, Duration(910, 7)), 910)["fc8.weights"]
    assert [step for step in range(1, 910) if found[step] != found[step - 1]] == [250, 510, 790]


@pytest.mark.parametrize(
    ("run", "drops", "lowered", "frozen", "end"),
    [
        ("145-2010", [23, 51, 78], 68, 72, 93),
        (145, [25, 51, 79], 67, 72, 91),
        ("145-half", [20, 48], 66, 72, 96),
        (147, [23, 51, 79], None, 79, 90),
        (148, [22, 44, 86], 69, 73, 97),
    ],
)
def test_every_recorded_run(run: Any, drops: list[int], lowered: int | None, frozen: int, end: int):
    optimizer = krizhevsky_sgd(tiny_alexnet())
    found = by_name(optimizer, recorded(optimizer, Duration(end, end), run=run, lower_biases=True), end)
    for name, start in (("fc8.weights", 0.01), ("fc8.biases", 0.02)):
        changes = [step for step in range(1, end) if found[name][step] != found[name][step - 1]]
        assert changes == drops
        assert found[name][-1] == pytest.approx(start * 0.1 ** len(drops))
    conv1 = [step for step in range(1, end) if found["conv1.weights"][step] != found["conv1.weights"][step - 1]]
    assert conv1 == sorted({step for step in (*drops, lowered, frozen) if step is not None and step <= frozen})
    assert found["conv1.weights"][frozen:] == [0.0] * (end - frozen)
    assert set(RUNS) == {"145-2010", 145, "145-half", 147, 148}


def test_the_shares_of_the_run_are_those_in_the_notes():
    shares = {run: [round(drop / notes.end, 2) for drop in notes.drops] for run, notes in RUNS.items()}
    assert shares["145-2010"] == [0.25, 0.55, 0.84]
    assert shares[145] == [0.27, 0.56, 0.87]


def test_the_first_layer_may_go_with_the_others():
    optimizer = krizhevsky_sgd(tiny_alexnet())
    found = by_name(optimizer, recorded(optimizer, Duration(91, 91), freeze_first=False), 91)
    assert found["conv1.weights"] == found["fc8.weights"]
    assert found["conv1.biases"] == found["fc8.biases"]


def test_the_first_layer_of_alexnet_is_conv1():
    net = AlexNet(width=0.125, num_classes=10)
    assert krizhevsky_sgd(net).param_groups[0]["layer"] == "features.conv1"


def test_recorded_drops_need_groups_by_layer_and_a_known_run():
    with pytest.raises(ConfigError, match=r"`schedule=recorded_145` needs parameter .* optimizer=krizhevsky_sgd"):
        recorded(sgd(tiny_alexnet()), Duration(10, 1))
    unknown: Any = 149
    with pytest.raises(ConfigError, match=r"`schedule.run` is 149 .*; allowed: "):
        recorded(krizhevsky_sgd(tiny_alexnet()), Duration(10, 1), run=unknown)


def test_caffe_step_by_iterations_and_by_share():
    optimizer = sgd(tiny_alexnet())
    fixed = rates(optimizer, caffe_step(optimizer, Duration(45, 1), step_iterations=10, step_share=None), 45)
    shared = sgd(tiny_alexnet())
    by_share = rates(shared, caffe_step(shared, Duration(45, 1)), 45)
    for step in range(45):
        assert fixed[step] == pytest.approx([0.01 * 0.1 ** (step // 10)] * 2)
        assert by_share[step] == fixed[step]  # 100,000 of 450,000 iterations


@pytest.mark.parametrize("fields", [{"step_iterations": 5}, {"step_share": None}])
def test_caffe_step_takes_one_length(fields: Any):
    with pytest.raises(ConfigError, match=r"either `schedule.step_iterations` or `schedule.step_share`"):
        caffe_step(sgd(tiny_alexnet()), Duration(45, 1), **fields)


def test_caffe_inv_at_the_ends_of_lenets_run():
    optimizer = sgd(tiny_alexnet())
    scheduler = caffe_inv(optimizer, Duration(10_000, 10))["scheduler"]
    (factor, _) = scheduler.lr_lambdas
    assert 0.01 * factor(0) == 0.01
    assert 0.01 * factor(5_000) == pytest.approx(0.01 / 1.5**0.75)
    assert 0.01 * factor(10_000) == pytest.approx(0.005946035575)


def test_lenets_rate_by_pass():
    """20 passes, three steps each."""
    optimizer = torch.optim.SGD(tiny_alexnet().parameters(), lr=5e-4)
    found = [row[0] for row in rates(optimizer, by_pass(optimizer, Duration(60, 20)), 60)]
    passes = [5e-4] * 2 + [2e-4] * 3 + [1e-4] * 3 + [5e-5] * 4 + [1e-5] * 8
    assert found == pytest.approx([rate for rate in passes for _ in range(3)])


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        (by_pass, {"passes": (2, 3)}, "`schedule.passes` has 2 entries and `schedule.factors` 5; give one factor more"),
        (by_pass, {"passes": (0, 3, 3, 4)}, "`schedule.passes.0` is 0 .*greater than or equal to 1"),
        (dexp, {"levels": 0}, "`schedule.levels` is 0 .*greater than or equal to 1"),
        (dexp, {"target_factor": 0.0}, "`schedule.target_factor` is 0.0 .*greater than 0"),
        (caffe_step, {"gamma": 2.0}, "`schedule.gamma` is 2.0 .*less than or equal to 1"),
        (caffe_inv, {"power": -1.0}, "`schedule.power` is -1.0 .*greater than or equal to 0"),
        (recorded, {"lower_biases": 1}, "`schedule.lower_biases` is 1 .*boolean"),
    ],
)
def test_fields_out_of_range_are_refused(make: Any, fields: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        make(krizhevsky_sgd(tiny_alexnet()), Duration(45, 1), **fields)


def test_a_plateau_can_leave_the_biases_rate_alone():
    optimizer = krizhevsky_sgd(tiny_alexnet())
    scheduler = plateau(optimizer, Duration(1, 1), patience_epochs=1, lower_biases=False)["scheduler"]
    for _ in range(3):
        scheduler.step(1.0)
    found = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert found["fc8.weights"] == pytest.approx(1e-4)
    assert found["fc8.biases"] == 0.02
    with pytest.raises(
        ConfigError, match=r"`schedule.lower_biases=false` needs parameter groups for weights and for biases"
    ):
        plateau(sgd(tiny_alexnet()), Duration(1, 1), lower_biases=False)


def test_one_cycle_with_one_step_of_warm_up():
    """torch's own schedule divides by zero there."""
    optimizer = sgd(tiny_alexnet())
    found = [row[0] for row in rates(optimizer, one_cycle(optimizer, Duration(5, 1), warmup_fraction=0.2), 4)]
    assert found[0] == pytest.approx(0.01 / 25)
    assert found[1:] == pytest.approx(
        [0.01 / 25e4 + (0.01 - 0.01 / 25e4) * (1 + math.cos(math.pi * n / 4)) / 2 for n in (1, 2, 3)], rel=1e-4
    )
