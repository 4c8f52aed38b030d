"""The printed update rule of 2012: against its formula, the recorded numbers, and torch's rule."""

from __future__ import annotations

import io
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR, OneCycleLR, ReduceLROnPlateau
from torch.utils._python_dispatch import TorchDispatchMode

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models import AlexNet, CudaConvNet, LeNet5
from alexnet_lab.training.callbacks import main_rate
from alexnet_lab.training.krizhevsky import KrizhevskySGD, krizhevsky_sgd

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer


class One(nn.Module):
    """One weight, 1 at first, as a matrix so that it decays."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1, dtype=torch.float64))


def weights_of_ten_steps(make: Callable[[One], Optimizer]) -> list[float]:
    """A gradient of 1 for ten steps, the rate .01 for five of them and .001 for the rest."""
    net = One()
    optimizer = make(net)
    scheduler = MultiStepLR(optimizer, [5], gamma=0.1)
    weights = []
    for _ in range(10):
        net.weight.grad = torch.ones_like(net.weight)
        optimizer.step()
        scheduler.step()
        weights.append(net.weight.item())
    return weights


def test_check_22_ten_steps_of_the_paper_and_of_torch():
    paper = weights_of_ten_steps(lambda net: krizhevsky_sgd(net, learning_rate=0.01))
    torch_rule = weights_of_ten_steps(lambda net: SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=5e-4))
    assert paper[4] == pytest.approx(0.868494831, abs=5e-10)
    assert torch_rule[4] == pytest.approx(0.868494831, abs=5e-10)
    assert (paper[5], paper[9]) == pytest.approx((0.830620842, 0.704344461), abs=5e-10)
    assert (torch_rule[5], torch_rule[9]) == pytest.approx((0.863807041, 0.840244981), abs=5e-10)


def test_after_a_drop_the_papers_rule_coasts_as_far_as_computed():
    """g = 1 without decay, .01 to .001 after 200 steps: the gap after 60 more is -0.80854."""
    ends = []
    for make in (krizhevsky_sgd, lambda net, **_: SGD(net.parameters(), 0.01, momentum=0.9)):
        net = One()
        optimizer = make(net, weight_decay=0.0)
        for step in range(260):
            optimizer.param_groups[0]["lr"] = 0.01 if step < 200 else 0.001
            net.weight.grad = torch.ones_like(net.weight)
            optimizer.step()
        ends.append(net.weight.item())
    assert ends[0] - ends[1] == pytest.approx(-0.80854, abs=5e-6)


def printed_rule(
    weights: torch.Tensor, gradients: list[torch.Tensor], rates: list[float], decay: float
) -> torch.Tensor:
    """v <- .9 v - wd eps w - eps g; w <- w + v, written out."""
    weight, velocity = weights.clone(), torch.zeros_like(weights)
    for gradient, rate in zip(gradients, rates, strict=True):
        if rate > 0:
            velocity = 0.9 * velocity - decay * rate * weight - rate * gradient
            weight = weight + velocity
    return weight


def rescaled_torch_rule(
    weights: torch.Tensor, gradients: list[torch.Tensor], rates: list[float], decay: float
) -> torch.Tensor:
    """torch's SGD whose buffers are multiplied by the old rate over the new one at each change."""
    weight = nn.Parameter(weights.clone())
    optimizer = SGD([weight], rates[0], momentum=0.9, weight_decay=decay)
    for gradient, rate in zip(gradients, rates, strict=True):
        group = optimizer.param_groups[0]
        if rate != group["lr"]:
            optimizer.state[weight]["momentum_buffer"] *= group["lr"] / rate
            group["lr"] = rate
        weight.grad = gradient
        optimizer.step()
    return weight.detach()


def test_weight_without_a_gradient_while_the_rate_falls_keeps_its_v():
    pair = nn.ParameterList([nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2)])
    optimizer = KrizhevskySGD([{"params": [*pair], "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}])
    gradients, rates = [torch.full((2,), float(value), dtype=torch.float64) for value in (1, 2, 3)], (0.1, 0.01, 0.01)
    for step, rate in enumerate(rates):
        pair[0].grad, pair[1].grad = gradients[step], None if step == 1 else gradients[step]
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    always = printed_rule(torch.ones(2, dtype=torch.float64), gradients, [*rates], 0.01)
    seldom = printed_rule(torch.ones(2, dtype=torch.float64), gradients[::2], [*rates[::2]], 0.01)
    torch.testing.assert_close(pair[0].detach(), always)
    torch.testing.assert_close(pair[1].detach(), seldom)


def test_groups_without_their_numbers_are_refused():
    weights: Any = [nn.Parameter(torch.ones(2))]
    with pytest.raises(ConfigError, match=r"needs `lr` in each group; krizhevsky_sgd\(net\) builds"):
        KrizhevskySGD(weights)


def random_problem(seed: int) -> tuple[torch.Tensor, list[torch.Tensor], list[float]]:
    """Weights (3, 4), 60 gradients, and rates that change often, up and down, over four decades."""
    rng = torch.Generator().manual_seed(seed)
    weights = torch.randn(3, 4, dtype=torch.float64, generator=rng)
    gradients = [torch.randn(3, 4, dtype=torch.float64, generator=rng) for _ in range(60)]
    rates = [10 ** -(2 + 2 * torch.rand((), generator=rng).item()) for _ in range(12) for _ in range(5)]
    return weights, gradients, [rates[5 * (index // 5)] for index in range(60)]


def run_ours(weights: torch.Tensor, gradients: list[torch.Tensor], rates: list[float], decay: float) -> torch.Tensor:
    net = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    net.weight.data = weights.clone()
    optimizer = krizhevsky_sgd(net, weight_decay=decay)
    for gradient, rate in zip(gradients, rates, strict=True):
        net.weight.grad = gradient.clone()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return net.weight.detach()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_check_23_same_as_the_printed_rule_and_as_torch_with_rescaled_buffers(seed: int, decay: float):
    problem = random_problem(seed)
    ours = run_ours(*problem, decay)
    assert (ours - printed_rule(*problem, decay)).abs().max() < 1e-12
    assert (ours - rescaled_torch_rule(*problem, decay)).abs().max() < 1e-12


def test_a_rate_of_zero_for_a_while_keeps_the_momentum_as_cuda_convnet_does():
    weights, gradients, rates = random_problem(7)
    rates[20:35] = [0.0] * 15
    ours = run_ours(weights, gradients, rates, 0.01)
    assert (ours - printed_rule(weights, gradients, rates, 0.01)).abs().max() < 1e-12


def train(net: nn.Module, optimizer: Optimizer, steps: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        images = torch.randn(4, 1, 28, 28, generator=rng)
        net(images).square().mean().backward()
        optimizer.step()


def test_check_24_a_frozen_layer_stays_bit_identical_though_it_has_momentum():
    net = LeNet5()
    optimizer = krizhevsky_sgd(net, learning_rate=0.01)
    train(net, optimizer, 3, seed=0)
    frozen = [group for group in optimizer.param_groups if group["layer"] == "features.c1"]
    assert all(
        optimizer.state[parameter]["momentum_buffer"].abs().max() > 0 for g in frozen for parameter in g["params"]
    )
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for group in frozen:
        group["lr"] = 0.0
    train(net, optimizer, 5, seed=1)
    same = {name for name, value in net.state_dict().items() if torch.equal(value, before[name])}
    assert same == {"features.c1.weight", "features.c1.bias"}


def test_check_21_each_parameter_is_in_one_group_biases_twice_as_fast_and_not_decayed():
    net = AlexNet(width=0.125, num_classes=10)
    optimizer = krizhevsky_sgd(net)
    names = {parameter: name for name, parameter in net.named_parameters()}
    seen = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(seen) == sorted(names.values())
    assert len(optimizer.param_groups) == 16  # eight layers, weights and biases
    for group in optimizer.param_groups:
        is_bias = all(names[parameter].endswith(".bias") for parameter in group["params"])
        expected = ("biases", 0.02, 0.0) if is_bias else ("weights", 0.01, 5e-4)
        assert (group["kind"], group["lr"], group["weight_decay"]) == expected
        assert group["name"] == f"{group['layer']}.{group['kind']}"


def test_biases_of_locally_connected_layers_count_as_biases_and_scales_do_not_decay():
    local = krizhevsky_sgd(CudaConvNet(body="local", local3=32, norm="none", image_size=24))
    biases = {group["layer"] for group in local.param_groups if group["kind"] == "biases"}
    assert {"features.local3", "features.local4"} <= biases
    normed = krizhevsky_sgd(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    assert [(group["name"], group["lr"], group["weight_decay"]) for group in normed.param_groups] == [
        ("0.weights", 0.01, 5e-4), ("0.biases", 0.02, 0.0), ("1.scales", 0.01, 0.0), ("1.biases", 0.02, 0.0),
    ]  # fmt: skip


def test_the_reported_rate_of_an_epoch_is_that_of_the_largest_layer():
    optimizer = krizhevsky_sgd(LeNet5(), layers={"c1": {"learning_rate": 0.0}, "c5": {"learning_rate": 0.03}})
    assert optimizer.param_groups[0]["lr"] == 0.0
    assert main_rate(optimizer) == 0.03  # c5 has 48,000 of 61,706 weights


def test_parameters_that_are_not_trained_are_in_no_group():
    net = LeNet5()
    net.features.requires_grad_(False)
    assert {group["layer"].partition(".")[0] for group in krizhevsky_sgd(net).param_groups} == {"classifier"}


def test_layers_may_have_rates_and_decays_of_their_own():
    layers: Any = {
        "f*": {"learning_rate": 0.003},
        "f6": {"weight_decay": 0.5},
        "features.c1": {"bias_learning_rate": 0.0},
    }
    optimizer = krizhevsky_sgd(LeNet5(), layers=layers)
    found = {group["name"]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert found["classifier.f6.weights"] == (0.003, 0.5)
    assert found["classifier.f6.biases"] == (0.006, 0.0)
    assert found["features.c1.weights"] == (0.01, 5e-4)  # `f*` has no dot, so it is not held against paths
    assert found["features.c1.biases"] == (0.0, 0.0)
    assert found["classifier.output.weights"] == (0.01, 5e-4)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"conv9": {"learning_rate": 0.1}}, "`optimizer.layers` names `conv9`, which matches no layer"),
        (
            {"c1": {"learning_rat": 0.1}},
            r"unknown key `optimizer.layers.c1.learning_rat`; did you mean `learning_rate`\?",
        ),
        (
            {"c1": {"learning_rate": -0.1}},
            "`optimizer.layers.c1.learning_rate` is -0.1 .*; allowed: greater than or equal to 0",
        ),
        (
            {"c1": {"weight_decay": math.nan}},
            "`optimizer.layers.c1.weight_decay` is nan .*; allowed: a finite number",
        ),
        ({"c1": {"weight_decay": True}}, "`optimizer.layers.c1.weight_decay` is True .*; allowed: number"),
    ],
)
def test_layers_that_say_nonsense_are_refused(layers: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        krizhevsky_sgd(LeNet5(), layers=layers)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": 0.0}, "`optimizer.learning_rate` is 0.0 .*greater than 0"),
        ({"momentum": 1.0}, "`optimizer.momentum` is 1.0 .*less than 1"),
        ({"bias_factor": -1.0}, "`optimizer.bias_factor` is -1.0 .*greater than or equal to 0"),
        ({"weight_decay": -1.0}, "`optimizer.weight_decay` is -1.0 .*greater than or equal to 0"),
    ],
)
def test_fields_out_of_range_are_refused(fields: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        krizhevsky_sgd(LeNet5(), **fields)


def test_a_saved_state_continues_bit_for_bit_across_a_change_of_the_rate():
    def started() -> tuple[LeNet5, KrizhevskySGD, OneCycleLR]:
        torch.manual_seed(0)
        net = LeNet5()
        optimizer = krizhevsky_sgd(net, layers={"c1": {"learning_rate": 0.001}})
        rates = [group["lr"] for group in optimizer.param_groups]
        return net, optimizer, OneCycleLR(optimizer, max_lr=rates, total_steps=8, cycle_momentum=False)

    def steps(net: LeNet5, optimizer: KrizhevskySGD, scheduler: OneCycleLR, numbers: range) -> None:
        for number in numbers:
            train(net, optimizer, 1, seed=number)
            scheduler.step()

    whole = started()
    steps(*whole, range(8))
    first = started()
    steps(*first, range(4))
    file = io.BytesIO()
    torch.save([part.state_dict() for part in first], file)
    file.seek(0)
    resumed = started()
    for part, state in zip(resumed, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    steps(*resumed, range(4, 8))
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, resumed[0].state_dict()[name]), name


def test_works_with_closures_and_with_a_plateau():
    net = One()
    optimizer = krizhevsky_sgd(net, learning_rate=0.5, weight_decay=0.0)
    plateau = ReduceLROnPlateau(optimizer, patience=0)

    def closure() -> float:
        optimizer.zero_grad()
        loss = net.weight.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 1.0
    assert net.weight.item() == 0.0  # 1 - .5 * 2
    plateau.step(1.0)
    plateau.step(2.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_parameters_without_a_gradient_are_left_alone():
    net = nn.Linear(2, 2)
    optimizer = krizhevsky_sgd(net)
    before = net.bias.detach().clone()
    net.weight.grad = torch.ones_like(net.weight)
    optimizer.step()
    assert torch.equal(net.bias, before)
    assert net.bias not in optimizer.state


class Operations(TorchDispatchMode):
    """Counts the operations that torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_a_change_of_the_rate_costs_no_pass_over_the_weights():
    """One fused operation for each group and nothing else, as torch's own fused SGD would do it."""
    net = LeNet5()
    optimizer = krizhevsky_sgd(net)
    train(net, optimizer, 2, seed=0)
    for group in optimizer.param_groups:
        group["lr"] *= 0.1
    with Operations() as operations:
        optimizer.step()
    work = {name: count for name, count in operations.counts.items() if not name.startswith("_record_function")}
    assert work == {"_fused_sgd_": 10}
