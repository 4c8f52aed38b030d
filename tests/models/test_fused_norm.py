"""The compiled response norm against the plain one, and what happens where nothing compiles."""

from __future__ import annotations

import logging

import pytest
import torch

from alexnet_lab.models.layers import fused
from alexnet_lab.models.layers.response_norm import local_response_norm

SHAPE = (8, 32, 64, 64)  # just large enough to be compiled


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> fused.Kernels:
    """Fresh ones, which have neither compiled nor failed yet."""
    kernels = fused.Kernels()
    monkeypatch.setattr("alexnet_lab.models.layers.response_norm.KERNELS", kernels)
    return kernels


def norm_and_gradient(x: torch.Tensor, slope: torch.Tensor, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.detach().requires_grad_()
    out = local_response_norm(x, groups=groups)
    out.backward(slope)
    assert x.grad is not None
    return out.detach(), x.grad


@pytest.mark.parametrize("groups", [1, 2])
def test_compiled_equals_plain(groups, kernels):
    torch.manual_seed(0)
    x = (10 * torch.randn(SHAPE)).contiguous(memory_format=torch.channels_last)
    slope = torch.randn(SHAPE)
    out, gradient = norm_and_gradient(x, slope, groups)
    if kernels.broken:
        pytest.skip("there is no compiler here")
    kernels.broken = True  # from here on the plain formula
    plain, plain_gradient = norm_and_gradient(x, slope, groups)
    assert (out - plain).abs().max() / plain.abs().max() < 1e-6
    assert (gradient - plain_gradient).abs().max() / plain_gradient.abs().max() < 1e-6
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_without_a_compiler_the_plain_formula_is_taken_and_said_once(kernels, monkeypatch, caplog):
    def refuse(formula: object) -> object:
        def compiled(*arguments: object) -> None:
            raise RuntimeError("no compiler")

        return compiled

    monkeypatch.setattr(torch, "compile", refuse)
    x, slope = torch.randn(SHAPE), torch.randn(SHAPE)
    with caplog.at_level(logging.INFO, "alexnet_lab.models"):
        out, _ = norm_and_gradient(x, slope, 1)
        norm_and_gradient(x, slope, 1)
    assert kernels.broken
    assert [record.message for record in caplog.records] == [
        "the response norm is not compiled here (RuntimeError): it takes about twice the time"
    ]
    window = sum(x[:, 3 + step] ** 2 for step in range(-2, 3))
    torch.testing.assert_close(out[:, 3], x[:, 3] / (2 + 1e-4 * window) ** 0.75)


@pytest.mark.parametrize(
    ("x", "beta"),
    [(torch.zeros(2, 8, 4, 4), 0.75), (torch.zeros(SHAPE, dtype=torch.float64), 0.75), (torch.zeros(SHAPE), 0.5)],
)
def test_small_double_and_unusual_inputs_are_not_compiled(x, beta, kernels):
    assert not kernels.suit(x, beta)
