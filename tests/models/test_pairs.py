"""Every network on images of each kind of data: it trains a step, is saved and loaded, or says why it does not fit."""

from __future__ import annotations

import itertools
from typing import NamedTuple, cast

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch.nn import functional

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models.geometry import check_model
from alexnet_lab.models.zoo import build, config_dir, names, read, resolve


class Facts(NamedTuple):
    """What a data set hands to a network."""

    num_classes: int
    in_channels: int
    image_size: int


DATA = {
    "digits": Facts(10, 1, 28),
    "mnist": Facts(10, 1, 28),
    "cifar10": Facts(10, 3, 32),
    "imagenette": Facts(10, 3, 224),
    "mini_imagenet": Facts(16, 3, 224),
    "image_folder": Facts(7, 3, 224),
}
SMALL = [name for name in names() if name.startswith(("lenet5", "cuda_convnet"))]
PUBLISHED_STEM = ("alexnet_small", "alexnet_seed001")


def refusal(model: str, data: str) -> str | None:
    """The words of the reason for which a pair does not fit."""
    facts = DATA[data]
    if model == "lenet5_1998":
        if facts.num_classes != 10:
            return "distances to the bitmaps of the ten digits"
        return "reads grey images" if facts.in_channels != 1 else None
    if model in SMALL and facts.image_size > 64:
        return "at most 64 px"
    if model in PUBLISHED_STEM and facts.image_size < 64:
        return "take stem=small, or larger images"
    return None


def narrow(model: str, data: str) -> dict[str, float]:
    """The overrides for a pair; AlexNet at 1/16 of its width, so that the test is quick."""
    return DATA[data]._asdict() | ({"width": 1 / 16} if "width" in read(model) else {})


@pytest.mark.parametrize("data", DATA)
def test_facts_are_those_of_the_configs(data):
    path = config_dir().parent / "data" / f"{data}.yaml"
    fields = cast("DictConfig", OmegaConf.load(path))
    assert (fields.channels, fields.image_size) == DATA[data][1:]


KINDS = [name for name in DATA if name not in ("mnist", "mini_imagenet")]
"""Of the other two, one has the facts of the digits, the other those of an image folder with more classes."""


@pytest.mark.parametrize(("model", "data"), list(itertools.product(names(), KINDS)))
def test_pair_trains_a_step_and_is_saved_and_loaded_or_says_why_not(model, data, tmp_path):
    overrides, reason = narrow(model, data), refusal(model, data)
    if reason is not None:
        with pytest.raises(ConfigError, match=reason):
            build(model, overrides)
        fields = resolve(model, overrides)
        with pytest.raises(ConfigError, match=reason):
            check_model(fields["_target_"], fields)
        return
    facts = DATA[data]
    net = build(model, overrides)
    images = torch.rand(2, facts.in_channels, facts.image_size, facts.image_size)
    logits = net(images)
    assert logits.shape == (2, facts.num_classes)
    functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    torch.optim.SGD(net.parameters(), 1e-3).step()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    again = build(model, overrides)
    again.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    with torch.no_grad():
        assert torch.equal(again.eval()(images), net.eval()(images))
