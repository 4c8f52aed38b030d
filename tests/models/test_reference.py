"""The layers that the networks use, against those written in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from alexnet_lab.models import AlexNet, reference
from alexnet_lab.models.layers import (
    LocallyConnected2d,
    LocalResponseNorm,
    MinPool2d,
    Pad2d,
    PartialConv2d,
    SpatialResponseNorm,
    Subsampling,
)

quick = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**31)


def draw(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def close(ours, oracle):
    np.testing.assert_allclose(ours.detach().numpy(), oracle, rtol=1e-10, atol=1e-12)


@quick
@given(
    seed=seeds,
    size=st.integers(4, 7),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    groups=st.sampled_from([1, 2]),
)
def test_convolution(seed, size, kernel, stride, padding, groups):  # noqa: PLR0917 - hypothesis's
    layer = nn.Conv2d(4, 6, kernel, stride, padding, groups=groups, dtype=torch.float64)
    x = draw(seed, 2, 4, size, size + 1)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()  # pyright: ignore[reportOptionalMemberAccess] - it has one
    close(layer(x), reference.conv(x.numpy(), weight, bias, stride=stride, padding=padding, groups=groups))


@quick
@given(seed=seeds, size=st.integers(3, 9), kernel=st.integers(1, 3), stride=st.integers(1, 3), ceil=st.booleans())
def test_max_average_and_min_pooling(seed, size, kernel, stride, ceil):
    x = draw(seed, 2, 3, size, size + 2)
    for layer, reduce in ((nn.MaxPool2d, np.max), (nn.AvgPool2d, np.mean), (MinPool2d, np.min)):
        expected = reference.pool(x.numpy(), kernel, stride, reduce, ceil_mode=ceil)
        close(layer(kernel, stride, ceil_mode=ceil)(x), expected)


def test_average_pooling_of_ones_is_one_up_to_the_last_column():
    out = nn.AvgPool2d(3, 2, ceil_mode=True)(torch.ones(1, 1, 24, 24))
    assert out.shape[-1] == 12
    assert torch.equal(out, torch.ones_like(out))


@quick
@given(seed=seeds, features=st.integers(1, 9), outputs=st.integers(1, 5))
def test_dense(seed, features, outputs):
    layer = nn.Linear(features, outputs, dtype=torch.float64)
    x = draw(seed, 3, features)
    close(layer(x), reference.dense(x.numpy(), layer.weight.detach().numpy(), layer.bias.detach().numpy()))


@quick
@given(seed=seeds, part=st.integers(1, 6), groups=st.integers(1, 2), size=st.integers(1, 9), k=st.floats(0.5, 2))
def test_response_norm_across_maps(seed, part, groups, size, k):
    x = 10 * draw(seed, 2, part * groups, 2, 3)
    expected = reference.lrn(x.numpy(), size=size, alpha=0.01, beta=0.75, k=k, groups=groups)
    close(LocalResponseNorm(size, 0.01, 0.75, k, groups=groups)(x), expected)


@quick
@given(seed=seeds, side=st.integers(1, 6), size=st.sampled_from([1, 3, 5]))
def test_response_norm_within_maps(seed, side, size):
    x = 10 * draw(seed, 2, 3, side, side + 1)
    expected = reference.spatial_norm(x.numpy(), size=size, alpha=0.01, beta=0.75, k=1.0)
    close(SpatialResponseNorm(size, 0.01, 0.75, 1.0)(x), expected)


@quick
@given(seed=seeds, size=st.integers(3, 5), kernel=st.integers(1, 3), padding=st.integers(0, 1))
def test_locally_connected(seed, size, kernel, padding):
    layer = LocallyConnected2d(2, 3, size=size, kernel=kernel, padding=padding).double()
    side = layer.side
    nn.init.normal_(layer.bias)
    weight = layer.weight.detach().numpy().reshape(side, side, 2, kernel, kernel, 3).transpose(0, 1, 5, 2, 3, 4)
    bias = layer.bias.detach().numpy().reshape(3, side, side).transpose(1, 2, 0)
    x = draw(seed, 2, 2, size, size)
    close(layer(x), reference.local(x.numpy(), weight, bias, padding=padding))


def test_partial_convolution_is_a_convolution_with_zeros():
    layer = PartialConv2d(3, ((0, 1), (2,), (0, 1, 2)), 2).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    weight, kernels = np.zeros((3, 3, 2, 2)), layer.weight.detach().numpy()
    weight[0, 0], weight[0, 1], weight[1, 2], weight[2] = kernels[0], kernels[1], kernels[2], kernels[3:]
    x = draw(0, 2, 3, 4, 5)
    close(layer(x), reference.conv(x.numpy(), weight, layer.bias.detach().numpy()))


def test_subsampling_is_four_times_the_average_scaled_and_shifted():
    layer = Subsampling(2).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = draw(1, 2, 2, 6, 4)
    sums = 4 * reference.pool(x.numpy(), 2, 2, np.mean)
    weight, bias = (value.detach().numpy()[:, None, None] for value in (layer.weight, layer.bias))
    close(layer(x), sums * weight + bias)


@quick
@given(seed=seeds, kernel=st.integers(1, 5), value=st.floats(-2, 2))
def test_padding_modes(seed, kernel, value):
    x = draw(seed, 1, 2, 5, 6)
    sides = {"valid": (0, 0), "same": ((kernel - 1) // 2, kernel // 2), "full": (kernel - 1, kernel - 1)}
    for mode, (before, after) in sides.items():
        expected = reference.pad(x.numpy(), before, after, value)
        close(Pad2d(mode, kernel, value=value)(x), expected)  # pyright: ignore[reportArgumentType] - a key above


@pytest.mark.parametrize("towers", [1, 2])
def test_a_whole_alexnet_gives_the_probabilities_of_torch(towers):
    net = AlexNet(width=0.0625, num_classes=7, towers=towers).double().eval()
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    images = 100 * draw(3, 2, 3, 224, 224)
    ours = reference.alexnet(np.pad(images.numpy(), ((0, 0), (0, 0), (0, 3), (0, 3))), weights, towers=towers)
    assert ours.shape == (2, 7)
    close(net(images).softmax(1), ours)


def test_the_guides_alexnet_has_no_biases_in_its_convolutions_and_a_constant_of_one():
    net = AlexNet(towers=1, image_size=227, lrn_k=1.0, width=0.0625).double().eval()
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    biases = [name for name in weights if name.startswith("features.") and name.endswith(".bias")]
    for name in biases:
        weights.pop(name)[:] = 0  # the arrays share the net's memory
    images = 100 * draw(4, 1, 3, 227, 227)
    close(net(images).softmax(1), reference.alexnet(images.numpy(), weights, towers=1, k=1.0))
    with torch.device("meta"):
        published = AlexNet(towers=1, image_size=227).state_dict()
    assert sum(value.numel() for name, value in published.items() if name not in biases) == 62_376_968


def test_dropout_drops_half_in_training_and_halves_in_evaluation():
    ones = np.ones((100, 1000))
    dropped = reference.dropout(ones, 0.5, np.random.default_rng(0))
    assert set(np.unique(dropped)) == {0.0, 1.0}
    assert abs(dropped.mean() - 0.5) < 0.005
    assert np.array_equal(reference.dropout(ones, 0.5, None), 0.5 * ones)


def test_softmax_of_large_logits_stays_finite_and_sums_to_one():
    logits = draw(5, 4, 9) * 1000
    np.testing.assert_allclose(reference.softmax(logits.numpy()), logits.softmax(1).numpy(), rtol=1e-12, atol=1e-300)
