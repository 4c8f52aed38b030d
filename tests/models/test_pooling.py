"""The pooling whose gradient repeats its bits on a GPU gives what torch's own gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models.layers import LocallyConnected2d, MinPool2d, Pad2d
from alexnet_lab.models.layers.pooling import DeterministicAdaptiveAvgPool2d, by_products
from alexnet_lab.run.engine import build_classifier
from alexnet_lab.training.callbacks import network_of


@pytest.mark.parametrize("side", [(1, 1), (5, 9), (6, 6), (7, 13), (14, 14), (3, 20)])
@pytest.mark.parametrize("size", [1, 6, (7, 7), (None, 3), (4, None)])
def test_products_give_the_means_and_gradients_of_torchs_own(side, size):
    x = torch.randn(2, 3, *side, dtype=torch.float64, requires_grad=True)
    ours, theirs = by_products(x, size), nn.AdaptiveAvgPool2d(size)(x)
    torch.testing.assert_close(ours, theirs)
    slope = torch.randn_like(theirs)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, slope)[0] for out in (ours, theirs)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_processor_it_is_torchs_own_to_the_bit(dtype):
    x = torch.randn(2, 3, 9, 9, dtype=dtype).to(memory_format=torch.channels_last)
    assert torch.equal(DeterministicAdaptiveAvgPool2d(6)(x), nn.AdaptiveAvgPool2d(6)(x))


def test_every_network_that_is_trained_has_it(typed):
    net = network_of(build_classifier(typed("model=torchvision", "model.name=alexnet", "data=imagenette")))
    assert type(net.avgpool) is DeterministicAdaptiveAvgPool2d
    assert net.avgpool.output_size == (6, 6)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: MinPool2d(0), "`kernel_size` is 0 .*greater than or equal to 1"),
        (lambda: MinPool2d(2, 0), "`stride` is 0 .*greater than or equal to 1"),
        (lambda: MinPool2d(2, 2, 2), "`padding` is 2; allowed: at most half of the window of 2 px"),
        (lambda: Pad2d("same", 0), "`kernel` is 0 .*greater than or equal to 1"),
        (lambda: LocallyConnected2d(2, 2, size=5, kernel=0), "`kernel` is 0 .*greater than or equal to 1"),
        (lambda: LocallyConnected2d(2, 2, size=2, kernel=3), "a 3x3 window does not fit maps of 2 px with padding 0"),
    ],
)
def test_windows_without_a_pixel_are_refused(build, words):
    with pytest.raises(ConfigError, match=words):
        build()
