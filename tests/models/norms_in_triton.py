"""`TRITON_INTERPRET=1 python norms_in_triton.py`: response norms by Triton's interpreter, against the formulas.

Without the variable: compiles them for GPUs that are not here. Prints JSON. Triton reads the variable when it is
imported, so each is a process of its own.
"""

from __future__ import annotations

import json
import os
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from alexnet_lab.models.layers import norm_kernels
from alexnet_lab.models.layers.fused import Constants
from alexnet_lab.models.layers.response_norm import Plain

CASES = (
    ((2, 24, 3, 3), Constants(5, 1e-4, 0.75, 2.0, 1)),
    ((3, 12, 2, 2), Constants(5, 1e-4, 0.75, 2.0, 2)),
    ((1, 6, 3, 3), Constants(5, 1e-4, 0.75, 1.0, 3)),  # groups smaller than a window
    ((2, 8, 3, 3), Constants(4, 1e-4, 0.5, 2.0, 1)),  # a window without a centre
    ((5, 12), Constants(3, 1e-4, 0.6, 2.0, 1)),
    ((2, 32, 3, 3), Constants(9, 1e-4, 0.75, 2.0, 2)),  # the widest that strips take, two of them in a group
    ((2, 8, 2, 3, 2), Constants(7, 1e-4, 0.75, 2.0, 1)),
)

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

TYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}

CONTIGUOUS, STRIPS = {"PLANE": 27 * 27, "GROUP": 128, "BLOCK": 1024}, {"GROUP": 96, "STRIPS": 128}

KERNELS = (
    (norm_kernels.norm_kernel, CONTIGUOUS), (norm_kernels.gradient_kernel, CONTIGUOUS),
    (norm_kernels.strip_norm_kernel, STRIPS), (norm_kernels.strip_gradient_kernel, STRIPS),
)  # fmt: skip


def errors() -> dict[str, float]:
    """The largest error of the norm and of its gradient, as a share of the largest value."""
    exact, found = Plain(), {}
    for shape, constants in CASES:
        for layout in LAYOUTS if len(shape) == 4 else ["contiguous"]:
            for dtype in TYPES:
                generator = torch.Generator().manual_seed(len(shape))
                x, slope = ((60 * torch.randn(shape, generator=generator)).to(getattr(torch, dtype)) for _ in range(2))
                if len(shape) == 4:
                    x, slope = (tensor.contiguous(memory_format=LAYOUTS[layout]) for tensor in (x, slope))
                pairs = (
                    (norm_kernels.norm(x, constants), exact.forward(x.double(), constants)),
                    (
                        norm_kernels.norm_gradient(x, slope, constants),
                        exact.backward(x.double(), slope.double(), constants),
                    ),
                )
                worst = max(((ours - true).abs().max() / true.abs().max()).item() for ours, true in pairs)
                found[f"{dtype} {layout} {shape}"] = worst
    return found


def cubin_bytes() -> dict[str, int]:
    """The size of each kernel's machine code."""
    found = {}
    for capability in (80, 90):
        for dtype in ("fp32", "bf16"):
            for kernel, constants in KERNELS:
                compiled = triton.compile(source(kernel, dtype, constants), GPUTarget("cuda", capability, 32))
                found[f"{kernel.__name__} {capability} {dtype} {constants}"] = len(compiled.asm["cubin"])
    return found


def source(kernel: Any, dtype: str, sizes: dict[str, int]) -> ASTSource:
    """A kernel for images of a type, and what else it is compiled for."""
    kinds = {
        "x": f"*{dtype}",
        "gradient": f"*{dtype}",
        "out": f"*{dtype}",
        "count": "i64",
        "alpha": "fp32",
        "k": "fp32",
    }
    constants = {"BETA": 0.75, "SIZE": 5, **sizes}
    return ASTSource(kernel, {name: kinds.get(name, "constexpr") for name in kernel.arg_names}, constants)


if __name__ == "__main__":
    print(json.dumps(errors() if os.environ.get("TRITON_INTERPRET") else cubin_bytes()))
