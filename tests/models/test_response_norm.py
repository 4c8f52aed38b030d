from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.models import AlexNet
from alexnet_lab.models.layers import LocalResponseNorm, SpatialResponseNorm
from alexnet_lab.models.layers.response_norm import local_response_norm, window_sum


def naive_lrn(x, size, alpha, beta, k):
    """The printed formula, one map after the other."""
    maps = x.shape[1]
    out = torch.empty_like(x)
    for i in range(maps):
        window = range(max(0, i - size // 2), min(maps, i - size // 2 + size))
        total = sum(x[:, j] ** 2 for j in window)
        out[:, i] = x[:, i] / (k + alpha * total) ** beta
    return out


@settings(max_examples=40, deadline=None)
@given(
    maps=st.integers(1, 12),
    size=st.integers(1, 9),
    beta=st.sampled_from([0.5, 0.75, 1.0]),
    k=st.floats(0.5, 3),
    alpha=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_equals_the_printed_formula_in_float64(maps, size, beta, k, alpha, seed):  # noqa: PLR0917 - hypothesis's
    x = torch.randn(2, maps, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ours = LocalResponseNorm(size, alpha, beta, k)(x)
    assert (ours - naive_lrn(x, size, alpha, beta, k)).abs().max() < 1e-10


def test_float32_is_exact_to_one_in_a_million():
    x = 100 * torch.randn(2, 16, 5, 5)
    exact = naive_lrn(x.double(), 5, 1e-4, 0.75, 2.0)
    assert ((LocalResponseNorm()(x) - exact).abs() <= 1e-6 * exact.abs() + 1e-30).all()


@pytest.mark.parametrize(
    ("alpha", "k", "torch_alpha"),
    [(1e-4, 2.0, 5e-4), (2e-5, 2.0, 1e-4), (2e-5, 1.0, 1e-4)],
    ids=["paper", "code2012", "caffe"],
)
def test_presets_equal_torch_with_alpha_times_size(alpha, k, torch_alpha):
    x = 100 * torch.randn(2, 96, 4, 4, dtype=torch.float64)
    theirs = nn.LocalResponseNorm(5, torch_alpha, 0.75, k)(x)
    torch.testing.assert_close(LocalResponseNorm(5, alpha, 0.75, k)(x), theirs, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("alpha", "k", "constant", "expected"),
    [
        (1e-4, 2.0, 1, (0.594536673, 0.594514383, 0.594492094)),
        (1e-4, 2.0, 10, (5.88000874, 5.85837779, 5.83693160)),
        (1e-4, 2.0, 100, (29.9069756, 26.0847430, 23.2368080)),
        (2e-5, 2.0, 1, (0.594590179, 0.594585720, 0.594581261)),
        (2e-5, 2.0, 10, (5.93269202, 5.92825967, 5.92383505)),
        (2e-5, 2.0, 100, (48.8393628, 46.1988831, 43.8691338)),
    ],
)
def test_constant_maps_give_the_reference_values(alpha, k, constant, expected):
    x = torch.full((1, 8, 1, 1), float(constant), dtype=torch.float64)
    out = LocalResponseNorm(5, alpha, 0.75, k)(x).flatten()
    assert [out[0].item(), out[1].item(), out[3].item()] == pytest.approx(expected, rel=2e-9)


@pytest.mark.parametrize(
    ("constant", "expected"),
    [(1, (0.999955002, 0.999925007)), (10, (9.95523496, 9.92565029)), (100, (70.2926656, 59.4603558))],
)
def test_caffe_constants_give_the_reference_values(constant, expected):
    out = LocalResponseNorm(5, 2e-5, 0.75, 1.0)(torch.full((1, 8, 1, 1), float(constant), dtype=torch.float64))
    assert [out[0, 0].item(), out[0, 3].item()] == pytest.approx(expected, rel=2e-9)


def test_alpha_zero_scales_by_a_constant():
    x = torch.randn(1, 7, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(LocalResponseNorm(alpha=0.0, k=2.0)(x), x * 0.5946035575, rtol=1e-9, atol=0)


def test_towers_change_the_four_maps_at_their_border():
    x = 100 * torch.rand(1, 96, 3, 3) + 10
    differs = (LocalResponseNorm()(x) != LocalResponseNorm(groups=2)(x)).flatten(2).any(2)[0]
    assert differs.nonzero().flatten().tolist() == [46, 47, 48, 49]
    assert torch.equal(LocalResponseNorm(groups=2)(x)[:, :48], LocalResponseNorm()(x[:, :48]))


@pytest.mark.parametrize(("size", "groups"), [(5, 1), (4, 1), (5, 2), (9, 2), (1, 1)])
@pytest.mark.parametrize("beta", [0.5, 0.75, 1.2])
def test_gradient_equals_finite_differences(size, groups, beta):
    x = torch.randn(2, 6, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LocalResponseNorm(size, 0.3, beta, 1.5, groups=groups), (x,))


def test_gradient_equals_that_of_the_formula():
    x = (50 * torch.randn(2, 9, 3, 3, dtype=torch.float64)).requires_grad_()
    weights = torch.randn_like(x)
    (ours,) = torch.autograd.grad((LocalResponseNorm()(x) * weights).sum(), x)
    (formula,) = torch.autograd.grad((naive_lrn(x, 5, 1e-4, 0.75, 2.0) * weights).sum(), x)
    torch.testing.assert_close(ours, formula, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch uses it itself
@pytest.mark.parametrize(("size", "groups", "beta"), [(5, 1, 0.75), (3, 2, 0.5), (2, 1, 0.8)])
def test_every_kind_of_derivative_equals_finite_differences(size, groups, beta):
    def norm(x):
        return local_response_norm(x, size=size, alpha=0.3, beta=beta, k=1.5, groups=groups)

    x = torch.randn(2, 6, 2, 2, dtype=torch.float64, requires_grad=True)
    batched = {"check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(norm, x, check_forward_ad=True, **batched)
    assert torch.autograd.gradgradcheck(norm, x, check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch uses it itself
def test_gradients_of_single_images_by_functorch_are_those_of_a_loop():
    net = AlexNet(num_classes=10, image_size=32, width=0.0625).eval()
    images, weights = torch.randn(3, 3, 32, 32), {name: item.detach() for name, item in net.named_parameters()}

    def loss(weights, image):
        return torch.func.functional_call(net, weights, (image[None],)).logsumexp(1).sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, images)
    for number, image in enumerate(images):
        net.zero_grad()
        loss(dict(net.named_parameters()), image).backward()
        for name, item in net.named_parameters():
            torch.testing.assert_close(found[name][number], item.grad, rtol=1e-4, atol=1e-6)


def test_memory_format_stays_and_changes_no_value():
    x = torch.randn(2, 8, 5, 5)
    out = LocalResponseNorm()(x.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out, LocalResponseNorm()(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_counts_in_float32(dtype):
    x = (300 * torch.randn(2, 8, 3, 3)).to(dtype).requires_grad_()
    out = LocalResponseNorm()(x)
    assert out.dtype == dtype
    assert torch.equal(out, LocalResponseNorm()(x.float()).to(dtype))
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert x.grad.isfinite().all()


def test_window_sum_of_ones_counts_the_window():
    ones = torch.ones(1, 6, 1, 1)
    assert window_sum(ones, 5).flatten().tolist() == [3, 4, 5, 5, 4, 3]
    assert window_sum(ones, 4).flatten().tolist() == [2, 3, 4, 4, 4, 3]
    assert window_sum(ones, 4, reverse=True).flatten().tolist() == [3, 4, 4, 4, 3, 2]
    assert window_sum(ones, 10**9).flatten().tolist() == [6] * 6
    assert window_sum(ones, 5, groups=2).flatten().tolist() == [3, 3, 3, 3, 3, 3]


def test_spatial_norm_of_a_constant_map():
    out = SpatialResponseNorm(5, 0.001 / 25)(torch.full((1, 2, 9, 9), 100.0, dtype=torch.float64))
    assert out[0, 0, 4, 4].item() == pytest.approx(100 / 11**0.75, rel=1e-12)
    assert out[0, 0, 4, 4].item() == pytest.approx(16.5560, abs=5e-5)
    assert out[0, 0, 0, 0].item() == pytest.approx(100 / (1 + 0.001 * 1e4 * 9 / 25) ** 0.75, rel=1e-12)


def test_spatial_norm_equals_a_naive_loop():
    x = 20 * torch.randn(2, 3, 6, 7, dtype=torch.float64)
    expected = torch.empty_like(x)
    for row in range(6):
        for column in range(7):
            part = x[:, :, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            scale = 1 + 5e-3 * part.square().sum((2, 3))
            expected[:, :, row, column] = x[:, :, row, column] / scale**0.75
    torch.testing.assert_close(SpatialResponseNorm(3, 5e-3)(x), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: LocalResponseNorm(size=0), "`size` is 0 .*greater than or equal to 1"),
        (lambda: LocalResponseNorm(5.0), r"`size` is 5.0 \(float\); allowed: integer"),  # pyright: ignore[reportArgumentType]
        (lambda: LocalResponseNorm(5, -1.0), "`alpha` is -1.0 .*greater than or equal to 0"),
        (lambda: LocalResponseNorm(alpha=math.nan), "`alpha` is nan .*finite number"),
        (lambda: LocalResponseNorm(k=0.0), "`k` is 0.0 .*greater than 0"),
        (lambda: LocalResponseNorm(groups=0), "`groups` is 0 .*greater than or equal to 1"),
        (lambda: LocalResponseNorm(groups=2)(torch.ones(1, 3, 1, 1)), "3 maps cannot be normalised in 2 equal groups"),
        (lambda: SpatialResponseNorm(size=4), "must be odd"),
    ],
)
def test_senseless_constants_are_refused(build, words):
    with pytest.raises(ConfigError, match=words):
        build()


def test_unit_variance_makes_it_nearly_a_constant():
    """Why an on/off ablation on standardised images measures a rescale."""
    out = LocalResponseNorm()(torch.ones(1, 8, 1, 1, dtype=torch.float64))
    assert out[0, 3].item() == pytest.approx(2**-0.75, rel=2e-4)
    assert math.isclose(2**-0.75, 0.594604, abs_tol=1e-6)
