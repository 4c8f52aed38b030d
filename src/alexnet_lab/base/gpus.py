"""The NVIDIA GPUs that this process may use, as CUDA's driver lists them to a short process without torch.

A process that asks CUDA itself keeps the GPUs of that moment: CUDA reads `CUDA_VISIBLE_DEVICES` once. A context on the
GPU, which torch creates to read a name, takes some hundred megabytes, and keeps others out of a GPU in exclusive mode.
"""

import ctypes
import json
import logging
import os
import subprocess
import sys
from typing import NamedTuple

log = logging.getLogger("alexnet_lab.base")

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable by which CUDA shows some of the GPUs only, in that order: numbers or UUIDs."""

SECONDS = 120
"""How long the driver may take; without persistence mode it initialises each GPU first."""

CUDA = "libcuda.so.1"

NAME_BYTES = 256


class Gpu(NamedTuple):
    """One GPU."""

    uuid: str  # as `nvidia-smi -L` prints it
    name: str


class Gpus(NamedTuple):
    """All that are visible, and their driver."""

    devices: tuple[Gpu, ...] = ()
    cuda: int = 0  # the newest CUDA that the driver supports, 13000 is 13.0; 0: there is no driver
    driver: str | None = None  # its own version, such as 580.82.07


def visible_gpus() -> Gpus:
    """The GPUs that this process can see now; none if the driver is missing or fails."""
    if _library(CUDA) is None:  # saves the short process where there is no driver
        return Gpus()
    try:
        done = subprocess.run(  # noqa: S603 - this file
            [sys.executable, "-I", "-S", __file__], capture_output=True, text=True, check=True, timeout=SECONDS
        )
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        log.warning("the GPUs could not be listed (%s)", error)
        return Gpus()
    return Gpus(tuple(Gpu(*gpu) for gpu in found["devices"]), found["cuda"], found["driver"])


def _asked() -> Gpus:
    """The driver's answer; called only in the short process."""
    cuda = _library(CUDA)
    if cuda is None:
        return Gpus()
    version, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    if cuda.cuInit(0) == 0:
        cuda.cuDeviceGetCount(ctypes.byref(count))
    return Gpus(tuple(_gpu(cuda, index) for index in range(count.value)), version.value, _driver())


def _gpu(cuda: ctypes.CDLL, index: int) -> Gpu:
    device, uuid, name = ctypes.c_int(), (ctypes.c_ubyte * 16)(), ctypes.create_string_buffer(NAME_BYTES)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetUuid_v2(uuid, device)
    cuda.cuDeviceGetName(name, NAME_BYTES, device)
    text = bytes(uuid).hex()
    parts = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
    return Gpu(_slice_of_gpu(index) or f"GPU-{'-'.join(parts)}", name.value.decode(errors="replace"))


def _slice_of_gpu(index: int) -> str | None:
    """The name of a GPU instance (MIG), the only name by which `CUDA_VISIBLE_DEVICES` can select it."""
    words = [word.strip() for word in os.environ.get(VISIBLE, "").split(",")]
    return words[index] if index < len(words) and words[index].startswith("MIG-") else None


def _driver() -> str | None:
    """The version of the driver, from NVIDIA's management library."""
    nvml = _library("libnvidia-ml.so.1")
    if nvml is None:
        return None
    text = ctypes.create_string_buffer(NAME_BYTES)
    if nvml.nvmlInit_v2() != 0 or nvml.nvmlSystemGetDriverVersion(text, NAME_BYTES) != 0:
        return None
    return text.value.decode(errors="replace")


def _library(name: str) -> ctypes.CDLL | None:
    """A library of the driver, loaded and not yet initialised; None if it is not installed."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


if __name__ == "__main__":
    print(json.dumps(_asked()._asdict()))
