"""Views by C++ and by Triton against views by torch's operations: the same bits."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import in_triton

from alexnet_lab.base import native
from alexnet_lab.base.random import generator
from alexnet_lab.data import augment
from alexnet_lab.data.augment import Augment, Geometry, apply, gathered_views, native_views
from alexnet_lab.data.channel_statistics import image_statistics
from alexnet_lab.data.normalize import make_normalizer


@pytest.fixture
def compiler() -> None:
    if not augment.NATIVE.available:
        pytest.skip("there is no compiler here")


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("stored", "side", "padding"),
    [(32, 32, 4), (32, 24, 0), (40, 33, 2), (9, 9, 0), (3, 3, 5), (1, 1, 0), (70, 64, 1)],
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("normalization", ["mean_image", "standardize"])
@pytest.mark.parametrize("colour", [False, True])
def test_equal_bit_by_bit(*, stored, side, padding, channels, normalization, colour):
    images = torch.from_numpy(
        np.random.default_rng(stored).integers(0, 256, (17, channels, stored, stored), dtype=np.uint8)
    )
    statistics = image_statistics(images.numpy(), np.arange(17))
    chosen = Augment(
        padding=padding, brightness=0.1 * colour, pca_colour="code2012" if colour and channels == 3 else "none"
    )
    geometry = chosen.geometry(stored, side)
    normalizer = make_normalizer(normalization, statistics, geometry.side)
    draws = chosen.draw(generator(1, "augment", 0, 0), 17, geometry, statistics)
    for some in (draws, None):
        assert torch.equal(
            native_views(images, some, geometry, normalizer), gathered_views(images, some, geometry, normalizer)
        )


@pytest.mark.usefixtures("compiler")
def test_no_images_give_no_views():
    images = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)
    normalizer = make_normalizer("unit", image_statistics(np.ones((2, 3, 8, 8), np.uint8), np.arange(2)), 6)
    assert native_views(images, None, Geometry(8, 6), normalizer).shape == (0, 3, 6, 6)


def test_without_a_compiler_torchs_operations_are_taken_and_it_is_said_once(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "COMPILERS", ("no-such-compiler",))
    monkeypatch.delenv("CXX", raising=False)
    library = native.Library(augment.NATIVE.source, augment.NATIVE.signatures, without=augment.NATIVE.without)
    monkeypatch.setattr(augment, "NATIVE", library)
    images = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
    normalizer = make_normalizer("unit", image_statistics(images.numpy(), np.arange(1)), 2)
    with caplog.at_level(logging.INFO, "alexnet_lab"):
        views = [apply(images, None, Geometry(4, 2), normalizer) for _ in range(2)]
    assert torch.equal((views[1] * 255).round(), images[:, :, 1:3, 1:3].float())
    assert [record.message for record in caplog.records] == [
        "augmentation is not compiled here and takes about four times as long (no compiler: no-such-compiler)"
    ]


SCRIPT = Path(__file__).with_name("views_in_triton.py")


def test_triton_has_the_same_bits():
    differences = in_triton(SCRIPT, TRITON_INTERPRET="1")
    assert len(differences) == 56
    assert not any(differences.values())


def test_triton_compiles_for_gpus_that_are_not_here(tmp_path):
    """Images of two sizes for two GPUs."""
    sizes = in_triton(SCRIPT, TRITON_CACHE_DIR=str(tmp_path))
    assert len(sizes) == 4
    assert min(sizes.values()) > 1000
