# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false
# (torch types every sub-module as Tensor | Module)
from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models import AlexNet
from alexnet_lab.models.counts import num_macs, num_neurons, num_parameters
from alexnet_lab.models.initialisation import initialise
from alexnet_lab.models.layers import ClassicDropout

IMAGE = (3, 224, 224)
CHECKPOINT = torch.load(Path(__file__).with_name("alexnet_0_1.pt"), weights_only=True)
"""Weights that version 0.1.0 saved, and its logits in evaluation for several fields, in float64 rounded to float32."""


def bare(**fields):
    """A net whose weights take no memory and no time to draw."""
    with torch.device("meta"):
        return AlexNet(init="torch", **fields)


def tiny(**fields):
    """Full depth, 1/16 of the width."""
    return AlexNet(**{"image_size": 64, "num_classes": 5, "width": 1 / 16} | fields)


def layer_counts(net):
    return {name: num_parameters(layer) for name, layer in net.weighted_layers().items()}


def test_parameters_per_layer_of_the_two_towers():
    assert layer_counts(bare()) == {
        "conv1": 34_944,
        "conv2": 307_456,
        "conv3": 885_120,
        "conv4": 663_936,
        "conv5": 442_624,
        "fc6": 37_752_832,
        "fc7": 16_781_312,
        "fc8": 4_097_000,
    }


def test_parameters_multiply_adds_and_neurons_of_the_two_towers():
    net = bare()
    assert num_parameters(net) == 60_965_224
    assert num_macs(net, IMAGE) == 724_406_816
    assert num_neurons(net, IMAGE) == 659_272


def test_parameters_of_one_tower():
    net = bare(towers=1)
    counts = layer_counts(net)
    assert (num_parameters(net), counts["conv2"], counts["conv4"], counts["conv5"]) == (
        62_378_344, 614_656, 1_327_488, 884_992,
    )  # fmt: skip
    assert num_macs(net, IMAGE) == 1_135_256_096


@pytest.mark.parametrize(
    ("classes", "towers", "parameters", "macs"),
    [
        (10, 2, 56_909_194, 720_351_776),
        (16, 2, 56_933_776, 720_376_352),
        (100, 2, 57_277_924, 720_720_416),
        (10, 1, 58_322_314, 1_131_201_056),
        (100, 1, 58_691_044, 1_131_569_696),
    ],
)
def test_counts_with_fewer_classes(classes, towers, parameters, macs):
    net = bare(num_classes=classes, towers=towers)
    assert (num_parameters(net), num_macs(net, IMAGE)) == (parameters, macs)


def test_non_overlapping_control_has_the_same_parameters():
    net = bare(pool="non_overlapping")
    assert list(net.sizes.values()) == [55, 28, 26, 13, 13, 13, 11, 6]
    assert (num_parameters(net), num_macs(net, IMAGE)) == (60_965_224, 686_891_552)


@pytest.mark.parametrize(
    ("padding", "sides"),
    [
        ("same", [55, 27, 27, 13, 13, 13, 13, 6]),  # as published
        ("valid", [55, 27, 23, 11, 9, 7, 5, 2]),
        ("full", [55, 27, 31, 15, 17, 19, 21, 10]),
    ],
)
def test_padding_of_conv2_to_conv5(padding, sides):
    assert list(bare(padding=padding).sizes.values()) == sides


def test_valid_padding_uses_small_images_up():
    with pytest.raises(ConfigError, match=r"leaves 32>15>11>5>3>1>nothing of 32 px \(at conv5\); .* at least \d+ px"):
        bare(image_size=32, padding="valid")


@pytest.mark.parametrize(("pool", "reduce"), [("overlapping", "amax"), ("average", "mean"), ("min", "amin")])
def test_pools_take_the_greatest_the_mean_and_the_least_of_3x3_windows(pool, reduce):
    x = torch.randn(2, 5, 7, 7)
    windows = x.unfold(2, 3, 2).unfold(3, 3, 2)  # (2, 5, 3, 3, 3, 3)
    expected = getattr(windows, reduce)(dim=(4, 5))
    torch.testing.assert_close(tiny(pool=pool).features.pool1(x), expected)


def test_shapes_at_224():
    net = bare()
    x = torch.empty(1, *IMAGE, device="meta")
    sides = {}
    for name, layer in net.features.named_children():
        x = layer(x)
        sides[name] = x.shape[-1]
    assert [sides[name] for name in ("conv1", "pool1", "pool2", "pool5")] == [55, 27, 13, 6]
    assert {name: sides[name] for name in net.sizes} == net.sizes
    assert x.flatten(1).shape[1] == 9216


@pytest.mark.parametrize("padding", ["same", "full"])
@pytest.mark.parametrize("pool", ["overlapping", "non_overlapping", "average", "min"])
@pytest.mark.parametrize("image_size", [32, 63, 64, 97, 224])
def test_sizes_said_are_sizes_had(image_size, pool, padding):
    assert_sizes(bare(image_size=image_size, pool=pool, padding=padding))


@pytest.mark.parametrize("stem_padding", ["far", "two", "none"])
@pytest.mark.parametrize("ceil_pools", ["auto", "last", "all"])
@pytest.mark.parametrize("without", ["none", "conv3", "conv4", "conv5"])
def test_the_checker_and_the_network_agree_on_sizes(without, ceil_pools, stem_padding):
    for image_size in (64, 98, 225):
        net = bare(image_size=image_size, stem_padding=stem_padding, ceil_pools=ceil_pools, without=without)
        assert_sizes(net)


def assert_sizes(net):
    x = torch.empty(1, *net.input_shape, device="meta")
    sides = {}
    for name, layer in net.features.named_children():
        x = layer(x)
        sides[name] = x.shape[-1]
    assert {name: sides[name] for name in net.sizes} == net.sizes


def test_224_is_padded_at_the_right_and_the_bottom():
    net = tiny(image_size=224)
    images = torch.randn(1, *IMAGE)
    conv = net.features.conv1
    padded = functional.conv2d(functional.pad(images, (0, 3, 0, 3)), conv.weight, conv.bias, stride=4)
    ours = conv(net.features.pad1(images))
    torch.testing.assert_close(ours, padded)
    torch.testing.assert_close(ours[..., :54, :54], conv(images))
    centred = functional.conv2d(images, conv.weight, conv.bias, stride=4, padding=2)
    assert centred.shape == ours.shape
    assert not torch.allclose(centred, ours)


def test_conv2_towers_are_apart_and_conv3_sees_both():
    net = tiny().eval()
    x = torch.randn(1, 6, 7, 7)
    blind = x.clone()
    blind[:, :3] = 0  # tower A
    before, after = net.features.conv2(x), net.features.conv2(blind)
    assert torch.equal(before[:, 8:], after[:, 8:])
    assert not torch.equal(before[:, :8], after[:, :8])
    x, blind = torch.randn(1, 16, 3, 3), torch.zeros(1, 16, 3, 3)
    blind[:, 8:] = x[:, 8:]
    changed = (net.features.conv3(x) != net.features.conv3(blind)).flatten(2).any(2)[0]
    assert changed.all()
    for conv in (net.features.conv4, net.features.conv5):
        x = torch.randn(1, 24, 3, 3)
        blind = x.clone()
        blind[:, :12] = 0
        half = conv.out_channels // 2  # pyright: ignore[reportOperatorIssue] - a number
        assert torch.equal(conv(x)[:, half:], conv(blind)[:, half:])
        assert not torch.equal(conv(x)[:, :half], conv(blind)[:, :half])


@pytest.mark.parametrize("output", CHECKPOINT["outputs"], ids=lambda output: str(output["fields"]))
def test_a_checkpoint_of_version_0_1_gives_the_same_logits(output):
    net = AlexNet(**CHECKPOINT["fields"], **output["fields"]).eval().double()
    net.load_state_dict(CHECKPOINT["state_dict"], strict=True)
    assert list(net.state_dict()) == list(CHECKPOINT["state_dict"])
    images = (torch.arange(2 * 3 * 32 * 32) * 7919 % 256 - 128.0).view(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(net(images.double()).float(), output["logits"])


def names(net, block):
    return [name.rstrip("12345") for name, _ in net.features.named_children() if name.endswith(str(block))]


@pytest.mark.parametrize(
    ("order", "block1", "block2", "block5"),
    [
        ("paper", "conv act norm pool", "conv act norm pool", "conv act pool"),
        ("code2012", "conv norm pool act", "conv act norm rnorm pool", "conv pool act"),
        ("code2014", "conv norm pool act", "conv act norm pool", "conv pool act"),
        ("caffe", "conv act norm pool", "conv act norm pool", "conv act pool"),
        ("caffenet", "conv act pool norm", "conv act pool norm", "conv act pool"),
    ],
)
def test_order_of_operations(order, block1, block2, block5):
    net = tiny(order=order)
    assert [step for step in names(net, 1) if step != "pad"] == block1.split()
    assert (names(net, 2), names(net, 5)) == (block2.split(), block5.split())
    assert names(net, 3) == names(net, 4) == ["conv", "act"]


@pytest.mark.parametrize(
    ("order", "alpha", "k", "groups"),
    [
        ("paper", 1e-4, 2.0, 1),
        ("code2012", 2e-5, 2.0, 2),
        ("code2014", 2e-5, 2.0, 2),
        ("caffe", 2e-5, 1.0, 1),
        ("caffenet", 2e-5, 1.0, 1),
    ],
)
def test_response_norm_constants_of_each_order(order, alpha, k, groups):
    for norm in (tiny(order=order).features.norm1, tiny(order=order).features.norm2):
        assert (norm.size, norm.alpha, norm.beta, norm.k, norm.groups) == (5, alpha, 0.75, k, groups)


def test_response_norm_constants_by_field():
    norm = tiny(lrn_size=3, lrn_alpha=0.5, lrn_beta=0.5, lrn_k=1.5).features.norm1
    assert (norm.size, norm.alpha, norm.beta, norm.k) == (3, 0.5, 0.5, 1.5)


def test_code2012_normalises_signed_values_and_differs_from_the_prose():
    code, paper = tiny(order="code2012", init="torch"), tiny(init="torch")
    paper.load_state_dict(code.state_dict())
    images = 50 * torch.randn(2, 3, 64, 64)
    block = code.features
    expected = functional.relu(functional.max_pool2d(block.norm1(block.conv1(block.pad1(images))), 3, 2))
    step = images
    for name, layer in block.named_children():
        step = layer(step)
        if name == "act1":
            break
    assert torch.equal(step, expected)
    other = images
    for layer in list(paper.features)[:5]:
        other = layer(other)
    assert not torch.allclose(other, expected)


def test_relu_and_max_pooling_commute():
    x = torch.randn(2, 4, 9, 9)
    assert torch.equal(functional.relu(functional.max_pool2d(x, 3, 2)), functional.max_pool2d(functional.relu(x), 3, 2))


def test_config_148_has_no_norm_at_all():
    assert not any("norm" in name for name, _ in tiny(order="code2012", norm="none").features.named_children())


@pytest.mark.parametrize(
    ("preset", "std", "bias"),
    [
        ("paper", [0.01] * 8, [0, 1, 0, 1, 1, 1, 1, 0]),
        ("code2012", [0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01], [0, 1, 0, 1, 1, 1, 1, 0]),
        ("code2014", [0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01], [0, 1, 0, 1, 1, 1, 1, -7]),
        ("caffe", [0.01] * 5 + [0.005, 0.005, 0.01], [0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0]),
        ("caffenet", [0.01] * 5 + [0.005, 0.005, 0.01], [0, 1, 0, 1, 1, 1, 1, 0]),
    ],
)
def test_start_of_weights_and_biases(preset, std, bias):
    torch.manual_seed(0)
    layers = AlexNet(width=0.25, num_classes=200, init=preset).weighted_layers()
    for layer, deviation, start in zip(layers.values(), std, bias, strict=True):
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.05)
        assert abs(layer.weight.mean().item()) < 0.1 * deviation
        torch.testing.assert_close(layer.bias, torch.full_like(layer.bias, start))


def test_he_start():
    torch.manual_seed(0)
    layer = AlexNet(width=0.25, init="he", num_classes=10).weighted_layers()["fc7"]
    assert layer.weight.std().item() == pytest.approx((2 / 1024) ** 0.5, rel=0.05)
    assert layer.bias.abs().max().item() == 0


def test_bias_start_by_field_replaces_only_the_ones():
    biases = [layer.bias.mean().item() for layer in tiny(bias_init=0.25).weighted_layers().values()]
    assert biases == [0, 0.25, 0, 0.25, 0.25, 0.25, 0.25, 0]


def test_initialise_leaves_other_layers_alone():
    norm = nn.BatchNorm2d(3)
    initialise({"norm1": norm, "act1": nn.ReLU()}, "paper")
    assert norm.weight.tolist() == [1.0, 1.0, 1.0]


def test_classic_dropout_drops_in_training_and_scales_in_evaluation():
    x = torch.rand(100_000) + 0.5
    drop = ClassicDropout(0.5)
    out = drop(x)
    kept = out != 0
    assert torch.equal(out[kept], x[kept])
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(drop.eval()(x), 0.5 * x)
    with pytest.raises(ConfigError, match=r"`p` is 1\.0 \(float\); allowed: less than 1"):
        ClassicDropout(1.0)


def test_dropout_fields():
    after, before = tiny().classifier, tiny(dropout_place="before", dropout_scaling="inverted").classifier
    assert list(dict(after.named_children())) == "flatten fc6 act6 drop6 fc7 act7 drop7 fc8".split()  # noqa: SIM905
    assert list(dict(before.named_children())) == "flatten drop6 fc6 act6 drop7 fc7 act7 fc8".split()  # noqa: SIM905
    assert isinstance(after.drop6, ClassicDropout)
    assert isinstance(before.drop6, nn.Dropout)


@pytest.mark.parametrize("without", ["conv3", "conv4", "conv5"])
def test_a_convolution_can_be_left_out(without):
    net = tiny(without=without)
    assert without not in net.weighted_layers()
    assert len(net.weighted_layers()) == 7
    assert net(torch.randn(2, 3, 64, 64)).shape == (2, 5)


@pytest.mark.parametrize("norm", ["batch", "lrn"])
@pytest.mark.parametrize("order", ["paper", "code2012"])
@pytest.mark.parametrize("without", ["conv3", "conv4", "conv5"])
def test_a_convolution_is_left_out_with_its_activation_and_norm(without, order, norm):
    net = tiny(without=without, order=order, norm=norm, norm_layers=(1, 2, 3, 4, 5))
    whole = tiny(order=order, norm=norm, norm_layers=(1, 2, 3, 4, 5))
    expected = [name for name, _ in whole.features.named_children() if name[-1] != without[-1] or name == "pool5"]
    assert [name for name, _ in net.features.named_children()] == expected
    assert net(torch.randn(2, 3, 64, 64)).shape == (2, 5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [24, 32, 48, 62])
def test_small_stem_trains_a_step_on_small_images(image_size, channels):
    net = tiny(image_size=image_size, in_channels=channels, init="he")
    images = torch.randn(2, channels, image_size, image_size)
    functional.cross_entropy(net(images), torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert net.features.conv1.weight.grad.abs().max() > 0


@pytest.mark.parametrize("norm", ["lrn", "none", "batch"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "scaled_tanh", "leaky_relu", "elu", "gelu", "silu"])
def test_every_norm_and_activation_runs(norm, activation):
    net = tiny(image_size=32, norm=norm, activation=activation)
    assert net(torch.randn(2, 3, 32, 32)).isfinite().all()


def test_batch_norm_takes_its_place_behind_all_convolutions():
    assert [n for n, layer in tiny(norm="batch").features.named_children() if isinstance(layer, nn.BatchNorm2d)] == [
        "norm1", "norm2", "norm3", "norm4", "norm5",
    ]  # fmt: skip


def test_bfloat16_autocast_and_channels_last():
    net = tiny(image_size=32, init="he").to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        out = net.eval()(images)
    torch.testing.assert_close(out.float(), net(images), rtol=0.1, atol=0.1)


def test_auto_logs_its_choice(caplog):
    with caplog.at_level(logging.INFO, "alexnet_lab.models"):
        assert tiny(image_size=32).stem == "small"
        assert tiny(image_size=64).stem == "published"
    assert [record.message for record in caplog.records] == [
        "AlexNet: stem=small and init=torch for images of 32 px",
        "AlexNet: stem=published and init=paper for images of 64 px",
    ]


def test_auto_start_lets_the_images_through_the_small_stem():
    images = torch.randn(8, 3, 32, 32) * 60  # as CIFAR-10 minus its mean image
    spread = {}
    for init in ("paper", "auto"):
        torch.manual_seed(0)
        spread[init] = tiny(image_size=32, init=init).eval()(images).std(0).mean().item()
    assert spread["paper"] < 1e-5
    assert spread["auto"] > 1e-3


def test_logits_at_zero_weights_give_the_loss_of_guessing():
    net = tiny(num_classes=1000)
    nn.init.zeros_(net.classifier.fc8.weight)
    loss = functional.cross_entropy(net(torch.randn(4, 3, 64, 64)), torch.arange(4)).item()
    assert loss == pytest.approx(6.907755, abs=1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image_size": 32, "stem": "published"}, "leaves 7>3>1>nothing of 32 px .* take stem=small"),
        ({"norm": "lrm"}, "`norm` is 'lrm' .*; allowed: "),
        ({"towers": 3}, "`towers` is 3 .*; allowed: "),
        ({"dropout": 1.0}, r"`dropout` is 1\.0 .*less than 1"),
        ({"width": -1.0}, r"`width` is -1\.0 .*greater than 0"),
        ({"width": 0.0}, r"`width` is 0\.0 .*greater than 0"),
        ({"width": float("inf")}, "`width` is inf .*finite number"),
        ({"width": 0.33}, "cannot share evenly"),
        ({"lrn_k": 0.0}, r"`lrn_k` is 0\.0 .*greater than 0"),
        ({"lrn_alpha": "a"}, "`lrn_alpha` is 'a' .*number"),
        ({"maps": 96}, "`maps` is 96 .*list"),
        ({"maps": (96, 256)}, "must be five numbers"),
        ({"maps": (96, 256, 0, 384, 256)}, "`maps.2` is 0 .*greater than or equal to 1"),
        ({"num_classes": True}, "`num_classes` is True .*integer"),
        ({"image_size": 2}, "leaves 2>nothing of 2 px"),
    ],
)
def test_wrong_fields_are_refused_in_one_line(fields, words):
    with pytest.raises(ConfigError, match=words):
        AlexNet(**fields)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"built for batches of 3 x 64 x 64 .* shape \(2, 3, 32, 32\)"):
        tiny()(torch.zeros(2, 3, 32, 32))
