# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportOptionalMemberAccess=false, reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# (torch types every sub-module as Tensor | Module)
from __future__ import annotations

import inspect
import re

import pytest
import torch
import torchvision
from torch import nn

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.targets import locate
from alexnet_lab.models import torchvision_net
from alexnet_lab.models.counts import num_macs, num_parameters, trace
from alexnet_lab.models.zoo import build, config_dir, header, names, published, read, resolve

COUNTED = re.compile(r"([\d,]+) parameters and ([\d,]+) multiply-adds at ")
"""How the header of a model's file states its counts, for the images that it was published for."""

SOME = {  # of the sources: see docs/fidelity.md
    "alexnet": (60_965_224, 724_406_816),
    "alexnet_one_gpu": (59_798_312, 391_514_384),
    "alexnet_owt": (61_100_840, 714_188_480),
    "alexnet_bn": (46_815_312, 1_005_915_264),
    "cuda_convnet_18pct": (89_578, 12_298_240),
    "cuda_convnet_13pct": (1_116_490, 18_517_248),
    "cuda_convnet_11pct": (2_112_970, 19_512_576),
    "lenet5": (61_706, 416_520),
    "lenet5_1998": (60_000, 328_096),
}

PUBLISHED = [name for name in names() if COUNTED.search(header(name))]


def counts(name):
    """Parameters and multiply-adds as the header states them."""
    return tuple(int(number.replace(",", "")) for number in COUNTED.search(header(name)).groups())


def meta(name, **overrides):
    with torch.device("meta"):
        return build(name, overrides)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds(name):
    net = meta(name)
    assert (num_parameters(net), num_macs(net, published(name).shape)) == counts(name)


def test_the_networks_of_the_sources_state_their_counts():
    assert len(PUBLISHED) >= 21
    assert {"alexnet_seed001", "torchvision"}.isdisjoint(PUBLISHED)
    assert {name: counts(name) for name in SOME} == SOME


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("alexnet_bn", (3, 224, 16)),
        ("caffenet", (3, 227, 1000)),
        ("cuda_convnet_13pct", (3, 24, 10)),
        ("lenet5_seed003", (1, 32, 10)),
        ("torchvision", (3, 224, 1000)),
    ],
)
def test_a_header_says_which_images_a_network_was_published_for(name, facts):
    assert published(name)[:3] == facts


def test_batch_norm_variant_has_the_46_818_064_numbers_that_keras_counts():
    assert num_parameters(meta("alexnet_bn"), statistics=True) == 46_818_064
    assert 46_818_064 - counts("alexnet_bn")[0] == 2 * (96 + 256 + 384 + 384 + 256)


@pytest.mark.parametrize(("classes", "parameters"), [(1000, 61_100_840), (10, 57_044_810)])
def test_owt_has_as_many_parameters_as_torchvisions_alexnet(classes, parameters):
    with torch.device("meta"):
        theirs = torchvision.models.alexnet(num_classes=classes)
    assert num_parameters(theirs) == parameters
    assert num_parameters(meta("alexnet_owt", num_classes=classes)) == parameters


def test_numpy_net_of_seed_004_lacks_the_biases_of_its_convolutions():
    net = meta("alexnet", towers=1, image_size=227)
    biases = sum(layer.bias.numel() for layer in net.weighted_layers().values() if isinstance(layer, nn.Conv2d))
    assert num_parameters(net) - biases == 62_376_968


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_header_says_what_differs(name):
    assert re.search(r"[Dd]iffers? ", header(name)) or name == "lenet5"
    assert len(published(name).text) > 20


@pytest.mark.parametrize("name", names())
def test_every_config_lists_every_field(name):
    fields = read(name)
    parameters = inspect.signature(locate(fields.pop("_target_"), "model")).parameters
    assert set(fields) == set(parameters)
    if name in ("alexnet", "lenet5", "lenet5_1998"):  # the names that Python users know without a config
        net = meta(name)
        with torch.device("meta"):
            assert str(type(net)()) == str(net)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: build("alexnt"), "unknown model=alexnt; did you mean `alexnet`"),
        (lambda: resolve("alexnet", {"nrom": "none"}), "unknown field `nrom` of model=alexnet; did you mean `norm`"),
        (lambda: resolve("lenet5", {"_target_": "os.system"}), "unknown field `_target_`"),
        (
            lambda: torchvision_net(name="resnet19"),
            "unknown name=resnet19 of torchvision.models; did you mean `resnet1",
        ),
        (lambda: torchvision_net(name="resnet18", in_channels=2), "in_channels=2 does not fit torchvision"),
        (lambda: torchvision_net(name="alexnet", image_size=32), "image_size=32 does not fit torchvision's alexnet: "),
    ],
)
def test_wrong_requests_are_refused_in_one_line(call, words):
    with pytest.raises(ConfigError, match=words):
        call()


def test_configs_are_looked_for_in_the_repository_or_here(monkeypatch, tmp_path):
    monkeypatch.setattr("alexnet_lab.models.zoo.__file__", str(tmp_path / "a" / "b" / "c" / "zoo.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no folder configs/model here"):
        config_dir()
    (tmp_path / "configs" / "model").mkdir(parents=True)
    assert config_dir() == tmp_path / "configs" / "model"


def test_torchvision_reads_grey_images_as_three_equal_channels():
    net = torchvision_net(name="squeezenet1_1", num_classes=4, in_channels=1, image_size=64).eval()
    grey = torch.rand(2, 1, 64, 64)
    again = torchvision.models.squeezenet1_1(num_classes=4).eval()
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(net(grey), again(grey.expand(-1, 3, -1, -1)))


def test_torchvision_networks_with_second_outputs_give_logits_alone():
    net = torchvision_net(name="googlenet", num_classes=4, image_size=64)
    assert isinstance(net, nn.Module)
    assert net.train()(torch.rand(2, 3, 64, 64)).shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "macs"), [("resnet18", 1_814_073_344), ("vit_b_16", 17_563_828_224), ("swin_t", 4_490_566_656)]
)
def test_torchvision_networks_have_the_multiply_adds_that_torchvision_publishes(name, macs):
    """1.814, 17.564 and 4.491 billion; attention multiplies matrices outside its layers."""
    with torch.device("meta"):
        net = torchvision_net(name=name)
    assert num_macs(net, (3, 224, 224)) == macs


@pytest.mark.parametrize(("name", "side"), [("vit_b_16", 32), ("maxvit_t", 224), ("inception_v3", 75)])
def test_torchvision_networks_take_the_size_of_the_images(name, side):
    with torch.device("cpu" if name == "inception_v3" else "meta"):
        net = torchvision_net(name=name, num_classes=7, image_size=side)
    assert [call.output for call in trace(net, (3, side, side))][-1] == (7,)
    with pytest.raises(ConfigError, match=f"image_size=30 does not fit torchvision's {name}: "):
        torchvision_net(name=name, image_size=30)


def test_a_layer_with_several_outputs_is_left_out_of_the_trace():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.LSTM(5, 4, batch_first=True)
            self.last = nn.Linear(4, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.last(self.rows(images[:, 0])[0][:, -1])

    assert [call.name for call in trace(Net(), (1, 5, 5))] == ["last"]
