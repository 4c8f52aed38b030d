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

import alexnet_lab
from alexnet_lab.base.cores import available_cores

PACKAGES = (
    "alexnet-lab", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "omegaconf", "numpy", "wandb",
)  # fmt: skip

COMPUTING = ("base", "data", "models", "training")
"""Our packages that affect a run's result."""


ASIDE = ("results", "docs", "notebooks", "tests", "benchmarks", "*.md")
"""Folders and files that do not affect a run's result: publishing a sweep does not make the repository dirty."""


def manifest(*, on_gpu: bool) -> dict[str, Any]:
    """The content of manifest.json.

    Args:
        on_gpu: Whether the run computes on a GPU.
    """
    return {
        "git": git_state(Path(alexnet_lab.__file__).parent),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": {name: installed for name in PACKAGES if (installed := _version(name))},
        "hardware": hardware(on_gpu=on_gpu),
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
        None outside a repository or without git.
    """
    computing = [":(top)", *(f":(top,exclude){name}" for name in ASIDE)]
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        dirty = bool(_git(folder, "status", "--porcelain", "--", *computing))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": dirty}


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=20)  # noqa: S603, S607 - git from the user's own path, fixed words
    return done.stdout.strip()


def hardware(*, on_gpu: bool) -> dict[str, Any]:
    """The device that computes, CPU, vector instructions that torch uses, cores, memory in GiB, GPUs."""
    processor, instructions = _processor(), torch.backends.cpu.get_cpu_capability()
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "device": next(iter(gpus), "Apple GPU") if on_gpu else f"{processor} ({instructions})",
        "processor": processor,
        "instructions": instructions,
        "cores": available_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
