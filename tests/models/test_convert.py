# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportOptionalMemberAccess=false, reportIndexIssue=false, reportOperatorIssue=false
# (torch types every sub-module as Tensor | Module)
from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models import AlexNet, reference
from alexnet_lab.models.convert import from_caffe, from_torchvision, swap_mean, to_caffe, to_torchvision
from alexnet_lab.models.zoo import resolve

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return torchvision.models.alexnet(num_classes=10).eval()


def test_torchvision_weights_give_torchvision_logits(theirs):
    fields = resolve("alexnet_owt", {"num_classes": 10})
    del fields["_target_"]
    with torch.device("meta"):
        ours = AlexNet(**fields)
    ours.load_state_dict(from_torchvision(theirs.state_dict()), assign=True)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(ours.eval()(images), theirs(images))


def test_torchvision_weights_come_back_unchanged(theirs):
    state = theirs.state_dict()
    back = to_torchvision(from_torchvision(state))
    assert list(back) == list(state)
    assert all(torch.equal(back[name], value) for name, value in state.items())


def caffe_blobs(seed, legacy=False):
    """Random arrays with Caffe's names and shapes, for 4 to 12 maps, 16 hidden units, 3 classes and 67 px."""
    rng = np.random.default_rng(seed)
    maps, hidden, classes, last = [4, 8, 12, 12, 8], 16, 3, 1
    shapes = [
        (maps[0], 3, 11, 11), (maps[1], maps[0] // 2, 5, 5), (maps[2], maps[1], 3, 3), (maps[3], maps[2] // 2, 3, 3),
        (maps[4], maps[3] // 2, 3, 3), (hidden, maps[4] * last), (hidden, hidden), (classes, hidden),
    ]  # fmt: skip
    blobs = {}
    for name, shape in zip(LAYERS, shapes, strict=True):
        scale = (2 / np.prod(shape[1:])) ** 0.5
        weight, bias = scale * rng.standard_normal(shape), 0.1 * rng.standard_normal(shape[0])
        if legacy:
            weight, bias = weight.reshape((1,) * (4 - weight.ndim) + shape), bias.reshape(1, 1, 1, -1)
        blobs[name] = [weight, bias]
    return blobs


def caffe_forward(blobs, bgr, order):
    """bvlc_alexnet or CaffeNet by plain loops, from images in blue, green, red."""
    x = bgr
    for name in LAYERS[:5]:
        stride, padding = (4, 0) if name == "conv1" else (1, blobs[name][0].shape[-1] // 2)
        groups = 2 if name in ("conv2", "conv4", "conv5") else 1
        x = reference.relu(reference.conv(x, *blobs[name], stride=stride, padding=padding, groups=groups))
        steps = {"conv1": order, "conv2": order, "conv5": ["pool"]}.get(name, [])
        for step in steps:
            if step == "pool":
                x = reference.pool(x, 3, 2, np.max, ceil_mode=True)
            else:
                x = reference.lrn(x, size=5, alpha=1e-4 / 5, beta=0.75, k=1.0)
    x = x.reshape(len(x), -1)
    x = reference.relu(reference.dense(x, *blobs["fc6"]))
    x = reference.relu(reference.dense(x, *blobs["fc7"]))
    return reference.dense(x, *blobs["fc8"])


@pytest.mark.parametrize(
    ("name", "order"),
    [("alexnet_caffe", ["norm", "pool"]), ("caffenet", ["pool", "norm"])],
    ids=["alexnet", "caffenet"],
)
def test_caffe_weights_give_what_the_naive_layers_give(name, order):
    rng = np.random.default_rng(0)
    blobs = caffe_blobs(0)
    fields = resolve(name, {"image_size": 67, "num_classes": 3, "maps": [4, 8, 12, 12, 8], "hidden": 16}) | {
        "stem": "published"
    }
    del fields["_target_"]
    net = AlexNet(**fields).double().eval()
    net.load_state_dict(from_caffe(blobs))
    bgr = 60 * rng.standard_normal((1, 3, 67, 67))
    ours = net(torch.from_numpy(bgr[:, ::-1].copy()))
    np.testing.assert_allclose(ours.detach().numpy(), caffe_forward(blobs, bgr, order), rtol=1e-9)


def test_caffe_weights_come_back_unchanged():
    blobs = caffe_blobs(1)
    back = to_caffe(from_caffe(blobs))
    assert list(back) == list(LAYERS)
    for name in LAYERS:
        for part in (0, 1):
            np.testing.assert_array_equal(back[name][part], blobs[name][part])


def test_caffe_old_four_axes_are_read():
    new = caffe_blobs(2)
    old = caffe_blobs(2, legacy=True)
    assert old["fc6"][0].ndim == 4
    state = from_caffe(old)
    assert all(torch.equal(state[name], value) for name, value in from_caffe(new).items())


def test_first_kernels_turn_from_blue_green_red():
    blobs = caffe_blobs(3)
    kernels = from_caffe(blobs)["features.conv1.weight"].numpy()
    np.testing.assert_array_equal(kernels[:, 0], blobs["conv1"][0][:, 2])
    np.testing.assert_array_equal(kernels[:, 2], blobs["conv1"][0][:, 0])


def test_mean_turns_from_blue_green_red_and_back():
    assert swap_mean(np.array([104.0, 117.0, 123.0])).tolist() == [123.0, 117.0, 104.0]
    image = np.random.default_rng(0).random((3, 4, 4))
    np.testing.assert_array_equal(swap_mean(swap_mean(image)), image)
    np.testing.assert_array_equal(swap_mean(image)[0], image[2])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: from_torchvision({"a": torch.zeros(1)}),
            "missing classifier.1.bias, .*unknown a",
        ),
        (lambda: to_torchvision({}), "missing classifier.fc6.bias"),
        (lambda: to_caffe({}), "missing classifier.fc6.bias"),
        (lambda: from_caffe({name: [np.zeros(1), np.zeros(1)] for name in LAYERS}), "conv1 has shape .* 4 axes are"),
        (lambda: swap_mean(np.zeros((1, 4, 4))), "has no three colours"),
    ],
)
def test_weights_of_other_networks_are_refused(call, words):
    with pytest.raises(ConfigError, match=words):
        call()
