"""The provenance of a run: code, versions, hardware, command line. No environment variables: they may hold secrets."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.cuda.nccl import version as version_of_nccl

import alexnet_lab
from alexnet_lab.base.cores import available_cores, processor_facts
from alexnet_lab.base.gpus import visible_gpus
from alexnet_lab.config.schema import Trainer

PACKAGES = (
    "alexnet-lab", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy", "wandb",
)  # fmt: skip

COMPUTING = ("base", "data", "models", "training")
"""Our packages that affect a run's result."""


ASIDE = ("results", "docs", "notebooks", "tests", "benchmarks", "*.md")
"""Folders and files that do not affect a run's result: publishing a sweep does not make the repository dirty."""


def manifest(trainer: Trainer, *, on_gpu: bool) -> dict[str, Any]:
    """The content of manifest.json.

    Args:
        trainer: The config's `trainer`.
        on_gpu: Whether the run computes on a GPU.
    """
    return {
        "git": git_state(Path(alexnet_lab.__file__).parent),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": {name: installed for name in PACKAGES if (installed := _version(name))},
        "hardware": hardware(on_gpu=on_gpu),
        "precision": trainer.model_dump(include={"precision", "float32"}),
        "system": platform.platform(),
    }


def code() -> dict[str, str]:
    """The versions of the packages that affect results, and a hash of this package's source."""
    digest = hashlib.sha256()
    folder = Path(alexnet_lab.__file__).parent
    for name in COMPUTING:
        for path in sorted((folder / name).rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    versions = {name: installed for name in ("torch", "lightning", "numpy") if (installed := _version(name))}
    return versions | {"alexnet_lab": digest.hexdigest()[:12]}


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit of `folder`, and whether files that may affect a run differ from it.

    Returns:
        None without git, and unless `folder` is in a repository: one around an installed package is another project's.
    """
    computing = [":(top)", *(f":(top,exclude){name}" for name in ASIDE)]
    try:
        _git(folder, "ls-files", "--error-unmatch", ".")
        commit = _git(folder, "rev-parse", "HEAD")
        dirty = bool(_git(folder, "status", "--porcelain", "--", *computing))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": dirty}


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=20)  # noqa: S603, S607 - git from the user's own path, fixed words
    return done.stdout.strip()


def hardware(*, on_gpu: bool) -> dict[str, Any]:
    """The device that computes, CPU, vector instructions that torch uses, cores, memory in GiB, GPUs.

    For NVIDIA GPUs also their UUIDs, in the same order, and the versions that determine a result's last bits.
    """
    processor = processor_facts().get("model name") or platform.processor() or platform.machine()
    instructions = torch.backends.cpu.get_cpu_capability()
    found = visible_gpus()
    gpus = [gpu.name for gpu in found.devices]
    return {
        "device": next(iter(gpus), "other GPU") if on_gpu else f"{processor} ({instructions})",
        "processor": processor,
        "instructions": instructions,
        "cores": available_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus,
        "gpu_uuids": [gpu.uuid for gpu in found.devices],
        "cuda": _cuda(found.driver) if on_gpu and gpus else None,
    }


def _cuda(driver: str | None) -> dict[str, str]:
    """Versions of the driver and of the libraries that compute on an NVIDIA GPU."""
    versions = {"runtime": torch.version.cuda, "driver": driver, "cudnn": torch.backends.cudnn.version()}
    nccl = ".".join(map(str, version_of_nccl())) if distributed.is_nccl_available() else None
    return {name: str(version) for name, version in (versions | {"nccl": nccl}).items() if version is not None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
