# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportOptionalMemberAccess=false, reportIndexIssue=false, reportOperatorIssue=false
# (torch types every sub-module as Tensor | Module)
from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models import CudaConvNet
from alexnet_lab.models.counts import num_macs, num_parameters
from alexnet_lab.models.layers import LocallyConnected2d, LocalResponseNorm, SpatialResponseNorm

PCT13 = {"body": "local", "local3": 32, "norm": "none"}
PCT11 = {"body": "local", "local3": 64, "norm": "across"}
SEC80 = {"norm": "none", "hidden": 64}


@pytest.mark.parametrize(
    ("fields", "size", "parameters", "macs"),
    [
        ({"norm": "spatial"}, 32, 89_578, 12_298_240),
        ({"norm": "spatial"}, 24, 85_098, 6_917_760),
        ({"norm": "none"}, 32, 89_578, 12_298_240),
        (SEC80, 32, 145_578, 12_354_176),
        (SEC80, 24, 116_906, 6_949_504),
        (PCT13, 24, 1_116_490, 18_517_248),
        (PCT13, 32, 1_901_386, 32_919_552),
        (PCT11, 24, 2_112_970, 19_512_576),
        (PCT11, 32, 3_672_906, 34_689_024),
    ],
)
def test_parameters_and_multiply_adds(fields, size, parameters, macs):
    net = CudaConvNet(image_size=size, **fields)
    assert (num_parameters(net), num_macs(net, (3, size, size))) == (parameters, macs)
    assert net(torch.randn(2, 3, size, size)).shape == (2, 10)


@pytest.mark.parametrize(
    ("fields", "size", "expected"),
    [
        ({}, 32, {"conv1": 2432, "conv2": 25_632, "conv3": 51_264, "fc10": 10_250}),
        (SEC80, 32, {"conv1": 2432, "conv2": 25_632, "conv3": 51_264, "fc64": 65_600, "fc10": 650}),
        (PCT13, 24, {"conv1": 4864, "conv2": 102_464, "local3": 664_704, "local4": 332_928, "fc10": 11_530}),
        (PCT11, 24, {"conv1": 4864, "conv2": 102_464, "local3": 1_329_408, "local4": 664_704, "fc10": 11_530}),
    ],
)
def test_parameters_per_layer(fields, size, expected):
    net = CudaConvNet(image_size=size, **fields)
    layers = (*net.features.named_children(), *net.classifier.named_children())
    assert {name: num_parameters(layer) for name, layer in layers if num_parameters(layer)} == expected


def test_pools_round_sizes_up():
    assert [CudaConvNet(image_size=24).sizes[f"pool{i}"] for i in (1, 2, 3)] == [12, 6, 3]
    assert [CudaConvNet(image_size=32).sizes[f"pool{i}"] for i in (1, 2, 3)] == [16, 8, 4]


@pytest.mark.parametrize("pool", ["overlapping", "non_overlapping"])
@pytest.mark.parametrize("fields", [{}, PCT11], ids=["conv", "local"])
@pytest.mark.parametrize("size", [24, 29, 32])
def test_sizes_said_are_sizes_had(fields, size, pool):
    net = CudaConvNet(image_size=size, pool=pool, **fields)
    x = torch.randn(1, 3, size, size)
    for name, layer in net.features.named_children():
        x = layer(x)
        assert x.shape[-1] == net.sizes.get(name, x.shape[-1])


def test_published_norms_and_their_places():
    net = CudaConvNet(image_size=24, **PCT11)
    steps = dict(net.features.named_children())
    norm = steps["norm1"]
    assert isinstance(norm, LocalResponseNorm)
    assert (norm.size, norm.alpha, norm.beta, norm.k) == (9, 1e-3 / 9, 0.75, 1.0)
    order = list(steps)
    assert order.index("pool1") < order.index("norm1")
    assert order.index("norm2") < order.index("pool2")
    norm = CudaConvNet().features.norm2
    assert isinstance(norm, SpatialResponseNorm)
    assert (norm.size, norm.beta, norm.k) == (3, 0.75, 1.0)
    assert norm.alpha == pytest.approx(5.556e-6, rel=1e-4)


def test_11pct_norm_equals_torch():
    x = 30 * torch.randn(2, 64, 3, 3, dtype=torch.float64)
    ours = CudaConvNet(**PCT11).features.norm1(x)
    torch.testing.assert_close(ours, nn.LocalResponseNorm(9, 1e-3, 0.75, 1.0)(x), rtol=1e-12, atol=0)


def test_18pct_and_19pct_differ_in_the_norms_alone():
    with_norms, without = CudaConvNet(norm="spatial"), CudaConvNet(norm="none")
    without.load_state_dict(with_norms.state_dict())
    images = 50 * torch.randn(2, 3, 32, 32)
    assert not torch.equal(with_norms(images), without(images))
    for name in ("norm1", "norm2"):
        setattr(with_norms.features, name, nn.Identity())
    assert torch.equal(with_norms(images), without(images))


def test_local_weights_belong_to_their_positions():
    layer = LocallyConnected2d(64, 32, size=6, kernel=3, padding=1)
    assert layer.weight.numel() == 36 * 64 * 9 * 32 == 663_552
    assert layer.bias.numel() == 1152
    x = torch.randn(1, 64, 6, 6)
    before = layer(x)
    with torch.no_grad():
        layer.weight.copy_(layer.weight[torch.randperm(36, generator=torch.Generator().manual_seed(1))])
    assert not torch.allclose(layer(x), before)


def test_equal_local_weights_are_a_convolution():
    layer = LocallyConnected2d(4, 3, size=5, kernel=3, padding=1)
    kernel = torch.randn(3, 4, 3, 3)
    with torch.no_grad():
        layer.weight.copy_(kernel.flatten(1).T.expand(25, -1, -1))
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(layer(x), functional.conv2d(x, kernel, padding=1))


@pytest.mark.parametrize(
    ("fields", "deviations"),
    [
        ({}, {"conv1": 1e-4, "conv2": 1e-2, "conv3": 1e-2, "fc10": 1e-2}),
        (SEC80, {"conv3": 1e-2, "fc64": 1e-1, "fc10": 1e-1}),
        (PCT11, {"local3": 4e-2, "local4": 4e-2, "fc10": 1e-2}),
    ],
)
def test_published_start(fields, deviations):
    torch.manual_seed(0)
    net = CudaConvNet(num_classes=100, **fields)
    layers = dict(net.features.named_children()) | dict(net.classifier.named_children())
    for name, deviation in deviations.items():
        assert layers[name].weight.std().item() == pytest.approx(deviation, rel=0.05)
        assert layers[name].bias.abs().max().item() == 0


def test_he_start():
    torch.manual_seed(0)
    net = CudaConvNet(init="he", **PCT11)
    assert net.features.local3.weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.01)
    assert net.features.conv2.weight.std().item() == pytest.approx((2 / 1600) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: CudaConvNet(body="local"), "local3=None does not go with body=local: give its maps, 32 or 64"),
        (lambda: CudaConvNet(local3=64), "body=conv has no such layer"),
        (lambda: CudaConvNet(image_size=2), r"leave 2>1>nothing of 2 px \(at pool2\)"),
        (lambda: CudaConvNet(norm="cross"), "`norm` is 'cross' .*; allowed: "),
        (lambda: CudaConvNet()(torch.zeros(1, 3, 24, 24)), "built for batches of 3 x 32 x 32"),
        (lambda: LocallyConnected2d(1, 1, size=2, kernel=5), "a 5x5 window does not fit maps of 2 px"),
        (lambda: LocallyConnected2d(1, 1, size=4, kernel=3)(torch.zeros(1, 1, 5, 5)), "for 4 px got maps of"),
    ],
)
def test_wrong_requests_are_refused(build, words):
    with pytest.raises(ConfigError, match=words):
        build()


def test_dropout_drops_inputs_of_the_last_layer_in_training_alone():
    net = CudaConvNet(dropout=0.25)
    assert list(net.state_dict()) == list(CudaConvNet().state_dict())
    assert list(dict(net.classifier.named_children())) == ["flatten", "drop", "fc10"]
    seen = torch.ones(2000, 64 * 4 * 4)
    kept = net.classifier.drop(seen)
    assert (kept == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(net.eval().classifier.drop(seen), seen)
