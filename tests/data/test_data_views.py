"""The views over which predictions are averaged: docs/fidelity.md, 32."""

from __future__ import annotations

import pytest
import torch

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.data import DigitsDataModule
from alexnet_lab.data.views import View, nine_views, ten_views, views_of


def test_ten_views_of_224_in_256_are_corners_centre_and_mirrors():
    starts = [(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)]
    assert ten_views(32) == [View(*start) for start in starts] + [View(*start, mirror=True) for start in starts]


def test_ten_views_without_mirrors_are_the_first_five():
    assert views_of("ten", 32, mirror=False) == ten_views(32)[:5]


def test_nine_views_are_a_grid_without_mirrors():
    assert {(view.top, view.left) for view in nine_views(8)} == {(i, j) for i in (0, 4, 8) for j in (0, 4, 8)}
    assert not any(view.mirror for view in nine_views(8))


def test_views_without_room_are_refused():
    with pytest.raises(ConfigError, match=r"views=ten needs images stored larger .*: views=center"):
        views_of("ten", 0)


@pytest.mark.parametrize("view", ten_views(2))
def test_a_view_is_the_slice_of_the_stored_image(view, digits_dir):
    data = DigitsDataModule(dir=str(digits_dir), image_size=6, normalization="unit", batch_size=8)
    data.prepare_data()
    data.setup()
    raw = next(iter(data.test_dataloader()))
    expected = raw.images[:, :, view.top : view.top + 6, view.left : view.left + 6].float() / 255
    expected = expected.flip(3) if view.mirror else expected
    torch.testing.assert_close(data.transform(raw, view).images, expected, rtol=0, atol=1e-7)
