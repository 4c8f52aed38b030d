"""Colour saturation of kernels, by hand, and whether towers differ."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.evaluation.figures.registry import obstacles
from alexnet_lab.evaluation.kernels import Kernels, colour_saturation, first_kernels, tower_test
from alexnet_lab.models import AlexNet


def test_grey_kernels_have_none_and_opponent_colours_have_all():
    pattern = np.random.default_rng(0).standard_normal((11, 11)).astype(np.float32)
    grey, opponent, red = (np.stack([weight * pattern for weight in weights]) for weights in
                           ((1, 1, 1), (1, -1, 0), (1, 0, 0)))  # fmt: skip
    found = colour_saturation(np.stack([grey, opponent, red, np.zeros_like(grey)]))
    assert found == pytest.approx([0, 1, 2 / 3, 0], abs=1e-6)


def test_noise_has_two_thirds():
    noise = np.random.default_rng(0).standard_normal((500, 3, 11, 11)).astype(np.float32)
    assert colour_saturation(noise).mean() == pytest.approx(2 / 3, abs=0.005)


def test_saturation_does_not_depend_on_scale():
    noise = np.random.default_rng(1).standard_normal((5, 3, 4, 4)).astype(np.float32)
    assert colour_saturation(1000 * noise) == pytest.approx(colour_saturation(noise))


def test_towers_are_the_halves_that_conv2_sees():
    net = AlexNet(num_classes=10, image_size=64, width=0.125, stem="published")
    kernels = first_kernels(net, towers=2)
    assert [tower.shape for tower in kernels.towers] == [(6, 3, 11, 11)] * 2
    conv2 = net.features.get_submodule("conv2")
    with torch.no_grad():
        images = torch.randn(2, 3, 64, 64)
        norms = nn.Sequential(
            *list(net.features.children())[: list(dict(net.features.named_children())).index("conv2")]
        )
        maps = norms(images)
        before = conv2(maps)
        maps[:, 6:] = 0
        after = conv2(maps)
    half = before.shape[1] // 2
    assert torch.equal(before[:, :half], after[:, :half])  # tower 1 of conv2 sees the first half of the maps alone
    assert not torch.equal(before[:, half:], after[:, half:])


def test_network_without_a_convolution():
    with pytest.raises(ConfigError, match="figures=kernels: Linear has no convolution"):
        first_kernels(nn.Linear(3, 3))
    run = SimpleNamespace(path="mlp", net=nn.Linear(3, 3), settings=SimpleNamespace(model={}))
    found = obstacles([run, run], "all", labelled=True)  # pyright: ignore[reportArgumentType] - all that it reads of a run
    assert found["kernels"] == (
        "of several runs compares two towers that see colour, but mlp has no convolution; give one run"
    )


def test_permutation_test_sees_a_difference_and_no_other():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, 48), rng.normal(1.5, 1, 48)
    assert tower_test([(one, other)]).p < 0.001
    assert tower_test([(one, one.copy())]).p > 0.9
    many = [tower_test([list(rng.normal(0, 1, (2, 20)))], seed=number).p for number in range(20)]
    assert 0.25 < np.mean(many) < 0.75


def test_exact_permutation_of_four_values():
    assert tower_test([(np.array([1.0, 2.0]), np.array([3.0, 4.0]))]).p == pytest.approx(2 / 6, abs=0.02)


def runs_of_towers(gap: float, runs: int = 8, kernels: int = 12, seed: int = 0) -> list[list[np.ndarray]]:
    """Saturations (2, kernels) of each run; which tower is higher by `gap` differs from run to run."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0.5, 0.1, (runs, 2, kernels))
    values[np.arange(runs), rng.integers(0, 2, runs)] += gap
    return [list(run) for run in values]


def test_towers_of_several_runs_against_a_loop():
    runs = runs_of_towers(0.03, runs=3)
    found = tower_test(runs)
    gaps = [abs(one.mean() - other.mean()) for one, other in runs]
    assert (found.gaps, found.gap) == (pytest.approx(gaps), pytest.approx(np.mean(gaps)))
    rng = np.random.default_rng(1)
    dealt = []
    for _ in range(4000):
        mixed = [rng.permutation(np.concatenate(run)) for run in runs]
        dealt.append(np.mean([abs(values[:12].mean() - values[12:].mean()) for values in mixed]))
    assert found.chance == pytest.approx(np.mean(dealt), rel=0.03)
    assert found.p == pytest.approx(np.mean(np.array(dealt) >= found.gap), abs=0.03)


def test_which_tower_is_the_colour_one_is_arbitrary():
    """Signed differences would cancel out over the runs, and a swap would change them."""
    runs = runs_of_towers(0.08)
    assert abs(np.mean([one.mean() - other.mean() for one, other in runs])) < 0.05
    found, swapped = tower_test(runs), tower_test([run[::-1] for run in runs])
    assert found.p < 0.001
    assert (swapped.gaps, swapped.gap) == (pytest.approx(found.gaps), pytest.approx(found.gap))
    assert swapped.p < 0.001


def test_several_weak_runs_add_up():
    found = tower_test(runs_of_towers(0.06))
    assert found.p < 0.001 < np.median(found.p_of_runs)


def test_differences_between_runs_count_for_nothing():
    """Each run has a level of its own, and its towers are alike."""
    shifted = [[tower + 3 * number for tower in run] for number, run in enumerate(runs_of_towers(0))]
    assert tower_test(shifted).p == pytest.approx(tower_test(runs_of_towers(0)).p, abs=0.02)
    ps = [tower_test(runs_of_towers(0, runs=4, seed=seed)).p for seed in range(40)]
    assert 0.35 < np.mean(ps) < 0.65
    assert np.mean(np.array(ps) < 0.05) < 0.15


def test_one_run_by_itself_is_all_runs():
    found = tower_test(runs_of_towers(0.05, runs=1))
    assert (found.p_of_runs, found.gaps, found.chances) == ([found.p], [found.gap], [found.chance])


def test_weights_that_are_not_finite_prove_nothing():
    one, other = runs_of_towers(0.05, runs=2)
    one[0][0] = np.nan
    found = tower_test([one, other])
    assert np.isnan(found.p)
    assert np.isnan(found.p_of_runs[0])
    assert 0 < found.p_of_runs[1] <= 1


def test_what_has_no_towers_to_test():
    weights = np.zeros((4, 3, 5, 5), dtype=np.float32)
    assert Kernels([weights]).untestable == "has one tower"
    assert Kernels([weights[:, :1]] * 2).untestable == "sees no colour"
    assert Kernels([weights] * 2).untestable is None
