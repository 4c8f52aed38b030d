# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false
# (torch types every sub-module as Tensor | Module)
from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models import LeNet5
from alexnet_lab.models.counts import num_parameters

SEEDS = [
    ("seed 000", {"c1_padding": "valid"}, 44_426),
    ("seed 001", {"c1_padding": "valid", "c5": "conv_same", "pool": "average"}, 212_906),
    ("seed 002", {"c1_padding": "same", "c5": "conv", "activation": "sigmoid", "pool": "average"}, 61_706),
    ("seed 003", {"image_size": 32, "c1_padding": "same", "activation": "tanh", "pool": "average"}, 82_826),
    ("modern", {}, 61_706),
    ("modern, darkest pixels", {"pool": "min"}, 61_706),
    ("modern at 32 px", {"image_size": 32}, 61_706),
]


@pytest.mark.parametrize(("fields", "count"), [seed[1:] for seed in SEEDS], ids=[seed[0] for seed in SEEDS])
def test_parameters_of_the_notebooks_versions(fields, count):
    net = LeNet5(**fields)
    assert num_parameters(net) == count
    side = fields.get("image_size", 28)
    assert net(torch.randn(2, 1, side, side)).shape == (2, 10)


def test_dense_and_convolutional_c5_are_the_same_function():
    dense, conv = LeNet5(), LeNet5(c5="conv")
    state = {name: value.reshape(conv.state_dict()[name].shape) for name, value in dense.state_dict().items()}
    conv.load_state_dict(state)
    images = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(conv(images), dense(images))


def test_legacy_softmax_cannot_fall_below_its_floor():
    perfect = torch.eye(10)  # the best that softmax outputs can be
    floor = functional.cross_entropy(perfect, torch.arange(10)).item()
    assert floor == pytest.approx(math.log(1 + 9 / math.e), abs=1e-6)
    assert floor == pytest.approx(1.461150, abs=1e-6)
    net = LeNet5(legacy_softmax=True)
    assert net(torch.randn(4, 1, 28, 28)).sum(1).tolist() == pytest.approx([1.0] * 4)


def test_outputs_are_logits():
    net = LeNet5()
    torch.nn.init.zeros_(net.classifier.output.weight)
    torch.nn.init.zeros_(net.classifier.output.bias)
    loss = functional.cross_entropy(net(torch.randn(4, 1, 28, 28)), torch.arange(4)).item()
    assert loss == pytest.approx(2.302585, abs=1e-6)


def test_glorot_start():
    net = LeNet5(init="glorot")
    bound = math.sqrt(6 / (16 * 25 + 120))
    assert net.classifier.c5.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert net.classifier.c5.bias.abs().max().item() == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"activation": "rleu"}, "`activation` is 'rleu' .*; allowed: "),
        ({"pool": "stride"}, "`pool` is 'stride' .*; allowed: "),
        ({"num_classes": 0}, "`num_classes` is 0 .*greater than or equal to 1"),
        ({"in_channels": 1.5}, "`in_channels` is 1.5 .*integer"),
        ({"legacy_softmax": "yes"}, "`legacy_softmax` is 'yes' .*boolean"),
        ({"image_size": 8}, "leave 8>4>nothing of 8 px"),
    ],
)
def test_wrong_fields_are_refused_in_one_line(fields, words):
    with pytest.raises(ConfigError, match=words):
        LeNet5(**fields)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"built for batches of 1 x 28 x 28 .* shape \(2, 3, 28, 28\)"):
        LeNet5()(torch.zeros(2, 3, 28, 28))


def test_dropout_drops_units_of_f6_in_training_alone():
    net = LeNet5(dropout=0.5)
    assert list(net.state_dict()) == list(LeNet5().state_dict())
    hidden = torch.ones(2000, 84)
    tail = net.classifier[-2:]
    assert [type(layer).__name__ for layer in tail] == ["Dropout", "Linear"]
    kept = tail[0](hidden)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert (kept == 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(net.eval().classifier[-2](hidden), hidden)
