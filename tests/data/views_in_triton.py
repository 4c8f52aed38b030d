"""`TRITON_INTERPRET=1 python views_in_triton.py`: views by Triton's interpreter against torch's operations.

Without the variable: compiles the kernel for GPUs that are not here. Prints JSON. Triton reads the variable when it is
imported, so each is a process of its own.
"""

from __future__ import annotations

import itertools
import json
import os

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from alexnet_lab.base.random import generator
from alexnet_lab.data import view_kernels
from alexnet_lab.data.augment import Augment, gathered_views
from alexnet_lab.data.channel_statistics import image_statistics
from alexnet_lab.data.normalize import make_normalizer

SIZES = ((16, 16, 4), (32, 24, 0), (20, 17, 2), (9, 9, 0), (3, 3, 5), (2, 1, 0), (1, 1, 0))
"""Stored, side, padding."""


def differences() -> dict[str, int]:
    """The number of pixels that differ in each case."""
    choices = itertools.product(SIZES, (1, 3), ("mean_image", "standardize"), (False, True))
    return {repr(choice): differing(*choice) for choice in choices}


def differing(sizes: tuple[int, int, int], channels: int, normalization: str, colour: bool) -> int:
    """The number of pixels that differ between the two forms."""
    stored, side, padding = sizes
    images = np.random.default_rng(stored).integers(0, 256, (7, channels, stored, stored), dtype=np.uint8)
    statistics = image_statistics(images, np.arange(7))
    chosen = "code2012" if colour and channels == 3 else "none"
    augment = Augment(padding=padding, brightness=0.1 * colour, pca_colour=chosen)
    geometry = augment.geometry(stored, side)
    normalizer = make_normalizer(normalization, statistics, geometry.side)
    draws = augment.draw(generator(1, "augment", 0, 0), 7, geometry, statistics)
    arguments = torch.from_numpy(images), draws, geometry, normalizer
    views, expected = view_kernels.views(*arguments), gathered_views(*arguments)
    assert views.is_contiguous(memory_format=torch.channels_last)
    return int((views != expected).sum())


def cubin_bytes() -> dict[str, int]:
    """The size of the kernel's machine code for two sizes of images and two GPUs."""
    kinds = {"images": "*u8", "top": "*i64", "left": "*i64", "mirror": "*i1"}
    found = {}
    for (stored, side, padding), capability in itertools.product(((256, 224, 0), (32, 32, 4)), (80, 90)):
        constants = {
            "CHANNELS": 3, "STORED": stored, "SIDE": side, "PADDING": padding, "SHIFTED": True, "MEAN_IMAGE": True,
            "BLOCK": view_kernels.BLOCK,
        }  # fmt: skip
        kernel = view_kernels.views_kernel
        signature = {name: "constexpr" if name in constants else kinds.get(name, "*fp32") for name in kernel.arg_names}
        compiled = triton.compile(ASTSource(kernel, signature, constants), GPUTarget("cuda", capability, 32))
        found[f"{side} {capability}"] = len(compiled.asm["cubin"])
    return found


if __name__ == "__main__":
    print(json.dumps(differences() if os.environ.get("TRITON_INTERPRET") else cubin_bytes()))
