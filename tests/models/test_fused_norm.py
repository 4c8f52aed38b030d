"""The fast forms of the response norm against the plain one, and what happens where nothing compiles."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import in_triton
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from alexnet_lab.base import native
from alexnet_lab.models.layers import fused, response_norm
from alexnet_lab.models.layers.fused import Constants, Native, Triton
from alexnet_lab.models.layers.response_norm import Plain, local_response_norm

PAPER = Constants(5, 1e-4, 0.75, 2.0, 1)

KERNELS = "alexnet_lab.models.layers.norm_kernels"
SCRIPT = Path(__file__).with_name("norms_in_triton.py")


@pytest.fixture
def native_form() -> Native:
    form = Native()
    if not form.library.available:
        pytest.skip("there is no compiler here")
    return form


def both(form: Native | Plain, x: torch.Tensor, slope: torch.Tensor, constants: Constants) -> list[torch.Tensor]:
    """The norm and its gradient."""
    return [form.forward(x, constants), form.backward(x, slope, constants)]


def images(shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype) -> torch.Tensor:
    values = 60 * torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[1]))
    return values.to(dtype).contiguous(memory_format=layout if len(shape) == 4 else torch.contiguous_format)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", fused.SIZES)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((2, 96, 9, 9), 1),  # 81 pixels: one whole block of 64 and a part of one
        ((3, 96, 8, 8), 2),
        ((1, 6, 5, 5), 3),  # groups smaller than a window
        ((2, 1, 3, 3), 1),
        ((70, 48, 6, 6), 1),  # many blocks of pixels
        ((5, 12), 1),
        ((2, 8, 3, 4, 5), 1),
        ((0, 8, 3, 3), 1),
    ],
)
def test_cpp_equals_the_formula_in_float64(shape, groups, size, layout, native_form):
    x, slope = images(shape, layout, torch.float32), images(shape, torch.contiguous_format, torch.float32)
    constants = Constants(size, 1e-4, 0.75, 2.0, groups)
    assert native_form.suits(x, constants)
    found = both(native_form, x, slope, constants)
    exact = both(Plain(), x.double(), slope.double(), constants)
    for ours, true in zip(found, exact, strict=True):
        assert ours.stride() == x.stride()
        assert ours.dtype == torch.float32
        if len(x):
            assert ((ours - true).abs() <= 1e-6 * true.abs().max()).all()
    if len(x):  # the norm itself number by number; its gradient is a difference, which may be near 0
        assert ((found[0] - exact[0]).abs() <= 1e-6 * exact[0].abs()).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_cpp_widens_bfloat16_and_rounds_once(layout, native_form):
    x, slope = (images(shape, layout, torch.bfloat16) for shape in [(4, 96, 9, 9), (4, 96, 9, 9)])
    slope = slope.roll(1, 0)
    found = both(native_form, x, slope, PAPER)
    wide = both(native_form, x.float(), slope.float(), PAPER)
    for ours, true in zip(found, wide, strict=True):
        assert torch.equal(ours, true.to(torch.bfloat16))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_is_no_number_stays_with_its_neighbours(layout, native_form):
    x = torch.ones(2, 16, 3, 3).contiguous(memory_format=layout)
    x[0, 8, 1, 1] = torch.nan
    x[1, 0, 2, 2] = torch.inf
    for form in (native_form, Plain()):
        out, gradient = both(form, x, torch.ones_like(x), PAPER)
        assert out.isnan().nonzero().tolist() == [[0, map_, 1, 1] for map_ in range(6, 11)] + [[1, 0, 2, 2]]
        assert gradient[1, 8:].isfinite().all()
        assert gradient[0].isfinite().all(0).logical_not().nonzero().tolist() == [[1, 1]]


def test_the_number_of_threads_changes_no_bit(native_form):
    x = images((5, 96, 13, 13), torch.channels_last, torch.float32)
    one = both(native_form, x, x, PAPER)
    torch.set_num_threads(3)
    assert all(torch.equal(a, b) for a, b in zip(one, both(native_form, x, x, PAPER), strict=True))


@pytest.mark.parametrize("batch", [1, 3])
def test_pieces_change_no_value(batch, monkeypatch):
    x, slope = (torch.randn(batch, 8, 6, 6) for _ in range(2))
    whole = both(Plain(), x, slope, PAPER)
    monkeypatch.setattr(response_norm, "PIECE", 8 * 6 * 6)
    assert all(torch.equal(a, b) for a, b in zip(whole, both(Plain(), x, slope, PAPER), strict=True))


def test_without_a_compiler_the_formula_is_taken_and_said_once(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing is compiled yet
    monkeypatch.setattr(native, "COMPILERS", ("no-such-compiler",))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(response_norm, "FORMS", (Native(), Plain()))
    x = images((2, 16, 5, 5), torch.contiguous_format, torch.float32).requires_grad_()
    with caplog.at_level(logging.INFO, "alexnet_lab"):
        for _ in range(2):
            local_response_norm(x).sum().backward()
    assert [record.message for record in caplog.records] == [
        "the response norm is not compiled here and takes about four times as long (no compiler: no-such-compiler)"
    ]
    window = sum(x[:, 3 + step] ** 2 for step in range(-2, 3))
    torch.testing.assert_close(local_response_norm(x)[:, 3], x[:, 3] / (2 + 1e-4 * window) ** 0.75)


def test_where_there_is_no_triton_the_formula_is_taken_and_said_once(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, KERNELS, raising=False)
    form, x = Triton(), torch.ones(1, 8, 2, 2)
    with caplog.at_level(logging.INFO, "alexnet_lab"):
        assert form.forward(x, PAPER) is None
        assert form.backward(x, x, PAPER) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "the response norm is not compiled here, so it is slower: " in record.message
    assert "triton" in record.message


def failing(error: Exception) -> SimpleNamespace:
    def fails(*_: object) -> None:
        raise error

    return SimpleNamespace(norm=fails, norm_gradient=fails)


NO_COMPILER = RuntimeError("Failed to find C compiler. Please specify via CC environment variable")


@pytest.mark.parametrize(
    "error",
    [
        NO_COMPILER,
        AssertionError("libcuda.so cannot found!"),
        subprocess.CalledProcessError(1, "gcc"),
        FileNotFoundError("ptxas"),
        "triton's own",
    ],
)
def test_what_the_compiler_raises_is_a_warning_once(error, monkeypatch, caplog):
    if isinstance(error, str):
        errors = pytest.importorskip("triton.runtime.errors")
        error = errors.OutOfResources(300_000, 232_448, "shared memory")
    monkeypatch.setitem(sys.modules, KERNELS, failing(error))
    form = Triton()
    for _ in range(2):
        assert form.forward(torch.ones(1, 8, 2, 2), PAPER) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "so it is slower: " in record.message


ILLEGAL = RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")


@pytest.mark.parametrize(
    "fault", [torch.OutOfMemoryError("out of memory"), torch.AcceleratorError("illegal", 700), ILLEGAL]
)
def test_a_fault_of_the_gpu_is_not_taken_for_one_of_the_compiler(fault, monkeypatch):
    monkeypatch.setitem(sys.modules, KERNELS, failing(fault))
    form = Triton()
    with pytest.raises(RuntimeError, match=re.escape(str(fault))):
        form.forward(torch.ones(1, 8, 2, 2), PAPER)
    assert not form.kernels.broken


@pytest.mark.parametrize(
    ("x", "constants"),
    [
        (torch.zeros(2, 8, 4, 4, dtype=torch.float64), PAPER),
        (torch.zeros(2, 8, 4, 4, dtype=torch.float16), PAPER),
        (torch.zeros(2, 8, 4, 4, device="meta"), PAPER),
        (torch.zeros(2, 8, 4, 4), PAPER._replace(beta=0.5)),
        (torch.zeros(2, 8, 4, 4), PAPER._replace(size=4)),
    ],
)
def test_other_types_devices_and_constants_take_the_formula(x, constants):
    assert not Native().suits(x, constants)
    assert not Triton().suits(x, constants)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("step", [1, 2])
def test_a_network_that_torch_compiles_has_one_operator_each_way(layout, step):
    """Also of images with gaps between their pixels."""
    graphs = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
        return make_boxed_func(graph.forward)

    x = images((2, 16, 5, 10), layout, torch.float32)[..., ::step].requires_grad_()
    gradient = images(tuple(x.shape), layout, torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(local_response_norm, fullgraph=True, backend=aot_autograd(fw_compiler=keep))
    for norm in (compiled, local_response_norm):
        out = norm(x)
        found = out, *torch.autograd.grad(out, x, gradient)
        assert torch.equal(found[0], local_response_norm(x))
        assert torch.equal(found[1], torch.autograd.grad(local_response_norm(x), x, gradient)[0])
    names = [name for graph in graphs for name in graph]
    assert names == ["alexnet_lab.response_norm.default", "alexnet_lab.response_norm_gradient.default"]


def test_torch_accepts_the_operators():
    x = images((2, 16, 5, 5), torch.channels_last, torch.float32)
    operators, checks = torch.ops.alexnet_lab, ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(operators.response_norm.default, (x.clone().requires_grad_(), *PAPER), test_utils=checks)
    torch.library.opcheck(operators.response_norm_gradient.default, (x, x.cos(), *PAPER), test_utils=checks[:2])


def test_triton_equals_the_formula_in_float64():
    allowed = {"float32": 1e-6, "float16": 2**-10, "bfloat16": 2**-7}  # the interpreter cuts bits off
    errors = in_triton(SCRIPT, TRITON_INTERPRET="1")
    assert len(errors) == 36
    for case, error in errors.items():
        assert error <= allowed[case.split()[0]], case


def test_triton_compiles_for_gpus_that_are_not_here(tmp_path):
    """Four kernels for two GPUs and two types."""
    sizes = in_triton(SCRIPT, TRITON_CACHE_DIR=str(tmp_path))
    assert len(sizes) == 16
    assert min(sizes.values()) > 1000
