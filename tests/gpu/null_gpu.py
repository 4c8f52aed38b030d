"""Builds the GPUs that compute nothing, and gives the environment in which commands see them.

They let the real code train, checkpoint and resume as `cuda:0` on a machine without a GPU. Kernels do nothing, so no
number means anything: what can be shown is which GPU a process uses, which tensors meet on which device, and which
operations torch refuses. Without its cache of device memory, torch gets zeros for each new tensor: every loss is 0.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from commands import skip_unless_required

SOURCE = Path(__file__).with_name("null_gpu.c")

LIBRARIES = (
    "libtorch_cuda.so",
    "libc10_cuda.so",
    "libtorch_python.so",
    "libtorch_cuda_linalg.so",
    "libcaffe2_nvrtc.so",
)
"""Of torch: what they miss of CUDA is what the null GPU has to have."""

IMITATED = re.compile(r"(?:__)?cuda\w+|cublas\w+|nccl\w+|cu[A-Z]\w+")

PLUGIN = """\
import os

def prepare():
    import torch
    torch.backends.cudnn.enabled = False  # it would look for plans, and find none
"""
"""torch calls it when it is imported: the entry point `torch.backends` is made for other kinds of devices."""


class NullGpu(NamedTuple):
    """A built one."""

    folder: Path

    def variables(self, gpus: int, **others: str) -> dict[str, Any]:
        """The environment of a command that sees so many GPUs."""
        return {
            "LD_PRELOAD": str(self.folder / "libcuda.so.1"),
            "NULL_GPUS": str(gpus),
            "PYTHONPATH": str(self.folder),
            "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
            "TORCH_DISABLE_NATIVE_JIT": "1",  # kernels that torch writes in Triton, which asks more of a driver
            **others,
        }


def build(folder: Path) -> NullGpu:
    """Compiles the library; skips the test where torch is not built for CUDA 13, or there is no compiler."""
    missing = _missing()
    if missing:
        skip_unless_required("null_gpu", missing)
    import triton  # part of torch's build for CUDA; brings CUDA's headers

    headers = Path(triton.__file__).parent / "backends" / "nvidia" / "include"
    names = re.findall(r"^(?:\w+ )+\**(\w+)\(", SOURCE.read_text(), re.MULTILINE)
    others = folder / "others.c"
    others.write_text("".join(f"long {name}(void) {{ return 0; }}\n" for name in sorted(_undefined() - {*names})))
    library = folder / "libcuda.so.1"
    flags = ["-w", "-shared", "-fPIC", "-O1", f"-Wl,-soname,{library.name}", f"-I{headers}"]
    subprocess.run(["cc", *flags, "-o", str(library), str(SOURCE), str(others)], check=True)
    (folder / "null_gpu_plugin.py").write_text(PLUGIN)
    about = folder / "null_gpu-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: null-gpu\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[torch.backends]\nnull_gpu = null_gpu_plugin:prepare\n")
    return NullGpu(folder)


def _missing() -> str:
    if not (torch.version.cuda or "").startswith("13."):
        return f"torch is built for CUDA {torch.version.cuda}, and the null GPU imitates CUDA 13"
    lacking = [name for name in ("cc", "nm") if shutil.which(name) is None]
    return f"{' and '.join(lacking)} not found: the null GPU cannot be built" if lacking else ""


def _undefined() -> set[str]:
    """The functions of CUDA that torch's libraries look for elsewhere."""
    folder = Path(torch.__file__).parent / "lib"
    paths = [str(folder / name) for name in LIBRARIES if (folder / name).exists()]
    said = subprocess.run(["nm", "-D", "--undefined-only", *paths], capture_output=True, text=True, check=True).stdout
    words = (line.split()[-1].partition("@")[0] for line in said.splitlines() if " U " in line)
    return {word for word in words if IMITATED.fullmatch(word)}


@pytest.fixture(scope="session")
def null_gpu(tmp_path_factory: pytest.TempPathFactory) -> NullGpu:
    """GPUs that compute nothing: `command(..., **null_gpu.variables(8))` sees eight of them."""
    return build(tmp_path_factory.mktemp("null_gpu"))
