# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportOptionalMemberAccess=false, reportIndexIssue=false, reportOperatorIssue=false
# (torch types every sub-module as Tensor | Module)
from __future__ import annotations

import math

import pytest
import torch

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models import LeNet5Loss, LeNet51998
from alexnet_lab.models.counts import num_parameters, trace
from alexnet_lab.models.layers import EuclideanRBF, PartialConv2d, ScaledTanh, Subsampling
from alexnet_lab.models.lenet5_1998 import C3_TABLE, digit_prototypes


def layers(net):
    return dict(net.features.named_children()) | dict(net.classifier.named_children())


def test_parameters_per_layer_and_in_all():
    net = LeNet51998()
    counts = {name: num_parameters(layer) for name, layer in layers(net).items() if num_parameters(layer)}
    assert counts == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164}
    assert num_parameters(net) == 60_000
    assert num_parameters(net.classifier.output) == 0


def test_connections_per_layer_and_in_all():
    """The paper counts each bias as a connection, and the four inputs of a subsampling unit one by one."""
    connections = {}
    for call in trace(LeNet51998(), (1, 28, 28)):
        units = torch.Size(call.output).numel()
        if isinstance(call.layer, Subsampling):
            connections[call.name] = units * 5
        elif call.macs:
            connections[call.name] = call.macs + units * (call.layer._parameters.get("bias") is not None)
    assert list(connections.values()) == [122_304, 5_880, 151_600, 2_000, 48_120, 10_164, 840]
    assert sum(connections.values()) == 340_908


def test_connection_table():
    mask = LeNet51998().features.c3.mask()
    assert mask.sum() == 60
    assert mask.sum(1).tolist() == [3] * 6 + [4] * 9 + [6]
    assert mask.sum(0).tolist() == [10] * 6
    assert len(set(C3_TABLE)) == 16
    for row, seen in enumerate(C3_TABLE):
        assert mask[row].nonzero().flatten().tolist() == list(seen)


def test_unconnected_maps_have_no_influence_and_no_gradient():
    layer = LeNet51998().features.c3
    x = torch.randn(1, 6, 14, 14, requires_grad=True)
    for output, seen in enumerate(C3_TABLE):
        (gradient,) = torch.autograd.grad(layer(x)[:, output].sum(), x)
        assert gradient[0].flatten(1).any(1).nonzero().flatten().tolist() == list(seen)


def test_scaled_tanh():
    f = ScaledTanh()
    one = torch.ones((), dtype=torch.float64)
    assert f(one).item() == pytest.approx(0.9999972559, abs=1e-9)
    assert f(-one).item() == pytest.approx(-0.9999972559, abs=1e-9)
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(f(zero), zero)
    assert slope.item() == pytest.approx(1.1439333, abs=1e-7)


def test_output_is_zero_at_a_prototype_and_the_least_is_the_prediction():
    head = EuclideanRBF(digit_prototypes())
    distances = head(digit_prototypes())
    assert distances.diagonal().tolist() == [0.0] * 10
    assert distances.argmin(1).tolist() == list(range(10))
    x = torch.randn(3, 84)
    expected = [[sum((x[n] - w) ** 2).item() for w in digit_prototypes()] for n in range(3)]
    torch.testing.assert_close(head(x), torch.tensor(expected))
    net = LeNet51998()
    images = torch.rand(4, 1, 28, 28)
    assert torch.equal(net(images), -net.distances(images))


def test_prototypes_are_ten_different_bitmaps_of_7x12():
    prototypes = digit_prototypes()
    assert prototypes.shape == (10, 7 * 12)
    assert set(prototypes.unique().tolist()) == {-1.0, 1.0}
    apart = (prototypes[:, None] != prototypes[None]).sum(2) + 84 * torch.eye(10, dtype=torch.long)
    assert apart.min() >= 10  # pixels


def test_input_scale_and_frame_are_exact():
    net = LeNet51998()
    images = torch.zeros(1, 1, 28, 28)
    images[0, 0, 5, 7] = 1.0
    seen = net.prepare(images)
    assert seen.shape == (1, 1, 32, 32)
    assert seen[0, 0, 7, 9] == torch.tensor(1.175)
    assert (seen == torch.tensor(-0.1)).sum() == 32 * 32 - 1
    kept = LeNet51998(image_size=32, scale_input=False)
    images = torch.randn(1, 1, 32, 32)
    assert torch.equal(kept.prepare(images), images)


def test_start_is_uniform_within_the_fan_in_of_each_unit():
    torch.manual_seed(0)
    named = layers(LeNet51998())
    bounds = {"c1": 2.4 / 25, "c5": 2.4 / 400, "f6": 2.4 / 120, "s2": 0.6, "s4": 0.6}
    for name, bound in bounds.items():
        assert named[name].weight.abs().max().item() <= bound
    assert named["c1"].weight.abs().max().item() > 0.9 * 0.096
    assert named["c5"].weight.std().item() == pytest.approx(bounds["c5"] / math.sqrt(3), rel=0.02)
    c3 = named["c3"]
    for pair, row in enumerate(c3.rows.tolist()):
        assert c3.weight[pair].abs().max().item() <= 2.4 / (25 * len(C3_TABLE[row]))


def test_start_of_efficient_backprop_has_deviation_one_over_the_root_of_the_fan_in():
    torch.manual_seed(0)
    named = layers(LeNet51998(init="efficient_backprop"))
    for name, inputs in {"c5": 400, "f6": 120}.items():
        assert named[name].weight.std().item() == pytest.approx(inputs**-0.5, rel=0.02)
        assert named[name].weight.abs().max().item() <= (3 / inputs) ** 0.5
    c3 = named["c3"]
    for pair, row in enumerate(c3.rows.tolist()):
        assert c3.weight[pair].abs().max().item() <= (3 / (25 * len(C3_TABLE[row]))) ** 0.5
    assert c3.weight[:18].std().item() == pytest.approx(75**-0.5, rel=0.1)


def test_mean_square_criterion_is_the_mean_distance_to_the_right_bitmap():
    logits, labels = -torch.rand(5, 10) * 40, torch.arange(5)
    expected = sum(-logits[n, n].item() for n in range(5)) / 5
    assert LeNet5Loss(form="mse")(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_map_criterion_equals_equation_9():
    logits, labels, j = -torch.rand(5, 10, dtype=torch.float64) * 8, torch.tensor([3, 1, 4, 1, 5]), 0.7
    distances = (-logits).tolist()
    terms = [
        y[label] + math.log(math.exp(-j) + sum(math.exp(-other) for other in y))
        for y, label in zip(distances, labels.tolist(), strict=True)
    ]
    assert LeNet5Loss(form="map", rubbish=j)(logits, labels).item() == pytest.approx(sum(terms) / 5, rel=1e-12)


def test_map_criterion_stays_finite_far_from_every_bitmap():
    logits = torch.full((1, 10), -500.0)
    assert LeNet5Loss()(logits, torch.tensor([2])).item() == pytest.approx(500 - 0.1, abs=1e-3)


def test_a_step_down_the_criterion_lowers_it():
    torch.manual_seed(0)
    net, loss = LeNet51998(), LeNet5Loss()
    images, labels = torch.rand(8, 1, 28, 28), torch.arange(8)
    before = loss(net(images), labels)
    before.backward()
    torch.optim.SGD(net.parameters(), 1e-3).step()
    assert loss(net(images), labels) < before
    assert all(parameter.grad.abs().max() > 0 for parameter in net.parameters())


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: LeNet51998(num_classes=16), "num_classes=16 does not fit LeNet-5 of 1998, .* take model=lenet5"),
        (lambda: LeNet51998(in_channels=3), r"in_channels=3 does not fit .* reads grey images \(data.channels=1\)"),
        (lambda: LeNet51998(image_size=224), "image_size=224 does not fit .* set data.image_size=32"),
        (lambda: LeNet51998(init="torch"), "`init` is 'torch' .*; allowed: "),
        (lambda: LeNet51998()(torch.zeros(1, 1, 32, 32)), "built for batches of 1 x 28 x 28"),
        (lambda: LeNet5Loss(form="ce"), "`form` is 'ce' .*; allowed: "),
        (lambda: LeNet5Loss(rubbish=-1.0), r"`rubbish` is -1.0 .*greater than or equal to 0"),
        (lambda: PartialConv2d(2, ((0,), ()), 3), "must name some of the maps 0 to 1"),
        (lambda: PartialConv2d(2, ((0, 2),), 3), "must name some of the maps 0 to 1"),
        (lambda: PartialConv2d(2, ((0, 1), (1, 1)), 3), r"row 1 of a connection table is \[1, 1\]; .* each once"),
        (lambda: PartialConv2d(2, ((0, 1),), 0), "`kernel` is 0 .*greater than or equal to 1"),
        (lambda: Subsampling(0), "`maps` is 0 .*greater than or equal to 1"),
    ],
)
def test_wrong_requests_are_refused(build, words):
    with pytest.raises(ConfigError, match=words):
        build()
