from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models.geometry import (
    alexnet_maps,
    alexnet_norms,
    alexnet_sizes,
    check_model,
    cuda_convnet_sizes,
    lenet5_sizes,
    output_size,
    padding_pixels,
)


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 40),
    kernel=st.integers(1, 12),
    stride=st.integers(1, 6),
    padding=st.integers(0, 5),
    ceil=st.booleans(),
)
def test_output_size_equals_torch(size, kernel, stride, padding, ceil):
    padding = min(padding, kernel // 2)  # torch's limit for pools
    expected = output_size(size, kernel, stride, padding, ceil_mode=ceil)
    try:
        pooled = functional.max_pool2d(torch.zeros(1, 1, size, size), kernel, stride, padding, ceil_mode=ceil)
    except RuntimeError:
        assert expected < 1
    else:
        assert pooled.shape[-1] == expected
    if not ceil and expected >= 1:
        kernels = torch.zeros(1, 1, kernel, kernel)
        assert functional.conv2d(torch.zeros(1, 1, size, size), kernels, None, stride, padding).shape[-1] == expected


@given(size=st.integers(5, 40), kernel=st.integers(1, 5))
def test_padding_modes_give_what_their_names_say(size, kernel):
    def side(mode):
        return size + sum(padding_pixels(mode, kernel)) - kernel + 1

    assert side("valid") == size - kernel + 1
    assert side("same") == size
    assert side("full") == size + kernel - 1


def test_unknown_padding_mode_is_refused():
    with pytest.raises(ConfigError, match="allowed: valid, same, full"):
        padding_pixels("reflect", 3)  # pyright: ignore[reportArgumentType] - on purpose


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [
        (64, (15, 7, 3, 1)),
        (96, (23, 11, 5, 2)),
        (128, (31, 15, 7, 3)),
        (160, (39, 19, 9, 4)),
        (192, (47, 23, 11, 5)),
        (224, (55, 27, 13, 6)),
        (227, (55, 27, 13, 6)),
        (256, (63, 31, 15, 7)),
    ],
)
def test_published_stem_gives_the_known_chains(image_size, expected):
    sizes = alexnet_sizes(image_size=image_size, stem="published").sizes
    assert (sizes["conv1"], sizes["pool1"], sizes["pool2"], sizes["pool5"]) == expected


def test_stem_paddings_of_224():
    assert alexnet_sizes(image_size=224).extra == 3
    assert alexnet_sizes(image_size=227).extra == 0
    assert alexnet_sizes(image_size=224, stem_padding="two").sizes["conv1"] == 55
    assert alexnet_sizes(image_size=224, stem_padding="none").sizes["conv1"] == 54
    assert alexnet_sizes(image_size=227, stem_padding="two").sizes["conv1"] == 56


def test_padding_of_two_reads_what_torchvision_reads():
    assert alexnet_sizes(image_size=63, stem="published", stem_padding="two").sizes["pool5"] == 1
    with pytest.raises(ConfigError, match="needs at least 63 px"):
        alexnet_sizes(image_size=62, stem="published", stem_padding="two")


def test_caffe_rounds_convolutions_down_and_pools_up():
    for image_size, first in ((227, 55), (224, 54)):
        sizes = alexnet_sizes(image_size=image_size, stem_padding="none", ceil_pools="all").sizes
        assert (sizes["conv1"], sizes["pool1"], sizes["pool2"], sizes["pool5"]) == (first, 27, 13, 6)


def test_config_147_gives_up_padding_to_keep_six():
    sizes = alexnet_sizes(image_size=224, pool="non_overlapping").sizes
    assert list(sizes.values()) == [55, 28, 26, 13, 13, 13, 11, 6]


@pytest.mark.parametrize("image_size", [24, 28, 32, 48, 62])
def test_auto_takes_the_small_stem_for_small_images(image_size):
    assert alexnet_sizes(image_size=image_size).stem == "small"


@pytest.mark.parametrize("image_size", [64, 96, 224, 227])
def test_auto_takes_the_published_stem_where_it_fits(image_size):
    assert alexnet_sizes(image_size=image_size).stem == "published"


def test_small_stem_on_cifar():
    sizes = alexnet_sizes(image_size=32).sizes
    assert (sizes["conv1"], sizes["pool1"], sizes["pool2"], sizes["pool5"]) == (32, 15, 7, 3)


@pytest.mark.parametrize("image_size", [24, 28, 32, 36, 40])
def test_small_stem_keeps_its_last_side_without_overlap(image_size):
    apart = alexnet_sizes(image_size=image_size, stem="small", pool="non_overlapping").sizes
    assert apart["pool5"] == alexnet_sizes(image_size=image_size, stem="small").sizes["pool5"]


def test_published_stem_on_small_images_is_refused_with_the_chain():
    with pytest.raises(
        ConfigError, match=r"leaves 7>3>1>nothing of 32 px \(at pool5\); it needs at least 64 px; take stem=small"
    ):
        alexnet_sizes(image_size=32, stem="published")


def test_images_below_every_stem_are_refused():
    with pytest.raises(ConfigError, match=r"leaves 8>3>1>nothing of 8 px .* needs at least 15 px; take larger images"):
        alexnet_sizes(image_size=8)


@pytest.mark.parametrize("image_size", range(8, 70))
def test_refusals_name_the_smallest_size_rightly(image_size):
    if image_size >= 15:
        alexnet_sizes(image_size=image_size, stem="small")
    if image_size >= 64:
        alexnet_sizes(image_size=image_size, stem="published")
    else:
        with pytest.raises(ConfigError, match="needs at least 64 px"):
            alexnet_sizes(image_size=image_size, stem="published")


def test_widths_scale_maps_and_units():
    assert alexnet_maps(width=0.5) == ((48, 128, 192, 192, 128), 2048)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 0.33}, "which 2 towers cannot share evenly; take a width that leaves even numbers"),
        ({"width": 1e-4}, "cannot share"),
        ({"maps": (96, 256)}, "must be five numbers"),
    ],
)
def test_senseless_widths_are_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        alexnet_maps(**fields)


def test_odd_maps_are_fine_with_one_tower():
    assert alexnet_maps(width=0.33, towers=1).conv == (32, 84, 127, 127, 84)


def test_normalised_layers():
    assert alexnet_norms(norm="lrn") == (1, 2)
    assert alexnet_norms(norm="batch") == (1, 2, 3, 4, 5)
    assert alexnet_norms(norm="none") == ()
    with pytest.raises(ConfigError, match="by their numbers, 1 to 5"):
        alexnet_norms(norm_layers=(6,))
    with pytest.raises(ConfigError, match="contradicts norm=none"):
        alexnet_norms(norm="none", norm_layers=(1,))


def test_lenet_sizes():
    assert lenet5_sizes(image_size=28).sizes == {"c1": 28, "s2": 14, "c3": 10, "s4": 5, "c5": 1}
    assert lenet5_sizes(image_size=32).sizes["s4"] == 5
    assert lenet5_sizes(image_size=32, c1_padding="same").sizes["s4"] == 6
    assert list(lenet5_sizes(image_size=28, c1_padding="full").sizes.values()) == [32, 16, 12, 6, 1]
    assert lenet5_sizes(image_size=28, c1_padding="valid", c5="conv_same").sizes["c5"] == 4


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image_size": 8}, r"leave 8>4>nothing of 8 px \(at c3\); take larger images"),
        ({"image_size": 4, "c1_padding": "valid"}, r"leave nothing of 4 px \(at c1\)"),
        ({"image_size": 224}, "at most 64 px"),
        ({"image_size": 20, "c5": "conv"}, r"\(at c5\)"),
    ],
)
def test_lenet_refuses_images_that_do_not_fit(fields, words):
    with pytest.raises(ConfigError, match=words):
        lenet5_sizes(**fields)


def test_cuda_convnet_refuses_large_images():
    with pytest.raises(ConfigError, match="made for 24 and 32 px and reads at most 64 px"):
        cuda_convnet_sizes(image_size=224)


@pytest.mark.parametrize(
    ("network", "fields", "words"),
    [
        ("AlexNet", {"image_size": 32, "stem": "published", "init": "he"}, "take stem=small"),
        ("AlexNet", {"width": 0.33}, "cannot share evenly"),
        ("AlexNet", {"norm": "none", "norm_layers": (1,)}, "contradicts norm=none"),
        ("LeNet5", {"image_size": 8, "pool": "max"}, "take larger images"),
        ("LeNet51998", {"image_size": 28, "in_channels": 3}, "reads grey images"),
        ("CudaConvNet", {"image_size": 24, "body": "local"}, "give its maps"),
    ],
)
def test_a_config_is_held_against_the_geometry_of_its_network(network, fields, words):
    with pytest.raises(ConfigError, match=words):
        check_model(f"alexnet_lab.models.{network}", fields)


def test_a_config_that_fits_passes():
    check_model("alexnet_lab.models.AlexNet", {"image_size": 224, "init": "he"})
    check_model("torch.nn.Linear", {"image_size": 1})


def test_geometry_needs_no_torch():
    code = "import sys, alexnet_lab.models.geometry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
