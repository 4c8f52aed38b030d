"""Prints requirements.lock: the installed versions of all direct and indirect requirements of pyproject.toml.

Only names and versions, no addresses of an index: `python tools/lock.py > requirements.lock`.
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

HEADER = """\
# The exact versions used in all tests; `make lock` writes this file from the installed packages.
# torch pins its own CUDA packages exactly on Linux, so they need no lines here.
"""
PINNED_BY_TORCH = ("nvidia-", "cuda-")
ONLY_ON = {"triton": 'sys_platform == "linux"'}


def normal(name: str) -> str:
    """Returns the normalised name of a package."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements: list[str]) -> dict[str, str]:
    """Returns the versions of the requirements and their own requirements, by name."""
    versions: dict[str, str] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = normal(requirement.name)
        if name.startswith(PINNED_BY_TORCH) or (name in versions and not requirement.extras):
            continue
        package = metadata.distribution(name)
        versions[name] = package.version
        extras = ["", *requirement.extras]
        needed = map(Requirement, package.requires or [])
        waiting += [item for item in needed if _applies(item, extras)]
    return versions


def _applies(requirement: Requirement, extras: list[str]) -> bool:
    """Whether the marker of a requirement applies here, for one of the extras."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def main() -> None:
    """Reads pyproject.toml of the current directory and prints the lock."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    versions = closure([*project["dependencies"], *(item for extra in extras for item in extra)])
    print(HEADER, end="")
    for name, version in sorted(versions.items()):
        marker = f" ; {ONLY_ON[name]}" if name in ONLY_ON else ""
        print(f"{name}=={version.partition('+')[0]}{marker}")


if __name__ == "__main__":
    main()
