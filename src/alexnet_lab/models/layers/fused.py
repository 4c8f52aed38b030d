"""The fast forms of the response norm and its gradient: C++ on a CPU, Triton on a GPU.

The formulas are in `response_norm.py`.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from alexnet_lab.base.kernels import Kernels
from alexnet_lab.base.native import Library

LEAST_NUMBERS = 2**20
"""Smaller inputs on a GPU are not worth the seconds that Triton's compiler takes."""

SIZES = (3, 5, 7, 9)
"""The windows that response_norm.cpp supports."""


class Constants(NamedTuple):
    """The constants of one response norm; `LocalResponseNorm` explains them."""

    size: int
    alpha: float
    beta: float
    k: float
    groups: int


class Native:
    """C++, for dense tensors on a CPU."""

    def __init__(self) -> None:
        pointer, whole, real, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
        constants = [whole] * 5 + [real] * 2 + [flag] * 3
        self.library = Library(
            Path(__file__).with_name("response_norm.cpp"),
            {"lrn_forward": [pointer] * 2 + constants, "lrn_backward": [pointer] * 3 + constants},
            without="the response norm is not compiled here and takes about four times as long",
        )

    def suits(self, x: Tensor, constants: Constants) -> bool:
        """Whether it supports such a tensor and such constants, and is compiled on this machine."""
        plain_tensor = x.device.type == "cpu" and type(x) in (Tensor, torch.nn.Parameter)
        known = x.dtype in (torch.float32, torch.bfloat16) and constants.size in SIZES and constants.beta == 0.75
        return plain_tensor and known and not is_traced() and self.library.available

    def forward(self, x: Tensor, constants: Constants) -> Tensor:
        """The norm of `x`."""
        x, channels_last = dense(x)
        out = torch.empty_like(x)
        self._call("lrn_forward", (x, out), constants, channels_last)
        return out

    def backward(self, x: Tensor, gradient: Tensor, constants: Constants) -> Tensor:
        """The gradient of the norm's input."""
        x, channels_last = dense(x)
        out = torch.empty_like(x)
        self._call("lrn_backward", (x, _laid_out(gradient, channels_last), out), constants, channels_last)
        return out

    def _call(self, name: str, tensors: tuple[Tensor, ...], constants: Constants, channels_last: bool) -> None:
        x = tensors[0]
        images, maps = x.shape[:2]
        pixels = x[0, 0].numel() if images and maps else 0
        self.library.call(
            name, *[tensor.data_ptr() for tensor in tensors], images, maps, pixels, constants.groups, constants.size,
            constants.alpha, constants.k, channels_last, x.dtype == torch.bfloat16, torch.get_num_threads(),
        )  # fmt: skip


def dense(x: Tensor) -> tuple[Tensor, bool]:
    """The tensor without gaps, and whether it is channels-last."""
    if x.is_contiguous():
        return x, False
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x, True
    return x.contiguous(), False


def _laid_out(gradient: Tensor, channels_last: bool) -> Tensor:
    """The gradient in the layout of its input."""
    return gradient.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


class Triton:
    """Triton, for large tensors on a GPU; see `norm_kernels.py`."""

    def __init__(self) -> None:
        self.kernels = Kernels(
            "alexnet_lab.models.layers.norm_kernels", without="the response norm is not compiled here, so it is slower"
        )

    def suits(self, x: Tensor, constants: Constants) -> bool:
        """Whether `x` is large enough and on a GPU."""
        known = x.device.type == "cuda" and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        return known and x.numel() >= LEAST_NUMBERS and not self.kernels.broken and not is_traced()

    def forward(self, x: Tensor, constants: Constants) -> Tensor | None:
        """The norm of `x`, or None if the kernel cannot be compiled."""
        x, _ = dense(x)
        return self.kernels.call("norm", x, constants)

    def backward(self, x: Tensor, gradient: Tensor, constants: Constants) -> Tensor | None:
        """The gradient of the norm's input, or None if the kernel cannot be compiled."""
        x, channels_last = dense(x)
        return self.kernels.call("norm_gradient", x, _laid_out(gradient, channels_last), constants)


def is_traced() -> bool:
    """Whether torch compiles or traces the whole network."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
