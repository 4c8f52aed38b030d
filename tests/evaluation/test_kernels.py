"""Colour saturation of kernels, by hand, and whether towers differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.evaluation.kernels import colour_saturation, first_kernels, permutation_p
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


def test_permutation_test_sees_a_difference_and_no_other():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, 48), rng.normal(1.5, 1, 48)
    assert permutation_p(one, other) < 0.001
    assert permutation_p(one, one.copy()) > 0.9
    many = [permutation_p(*rng.normal(0, 1, (2, 20)), seed=number) for number in range(20)]
    assert 0.25 < np.mean(many) < 0.75


def test_exact_permutation_of_four_values():
    assert permutation_p(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == pytest.approx(2 / 6, abs=0.02)
