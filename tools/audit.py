"""Audits the packages of this environment: locked versions, unchanged files, none known to be malicious.

It needs no network: `pip-audit` would ask an advisory service, this asks what is here. `make audit`; exit code 1 and
one line for each finding.

- requirements.lock: each line one exact version, from no address of its own, within the bounds of pyproject.toml.
- The environment: each locked package is installed in that version.
- Its files: each has the SHA-256 that its wheel's RECORD says.
- KNOWN_BAD: none of the versions that must never be installed.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

if TYPE_CHECKING:
    from collections.abc import Iterator

KNOWN_BAD = {
    "lightning": ("==2.6.2,==2.6.3", "malicious uploads to the package index"),
    "torch": ("<2.6", "CVE-2025-32434: weights_only=True could run code"),
    "hydra-core": ("<1.3.8", "hydra.utils.instantiate took any callable"),
    "pillow": ("<11.3", "CVE-2025-48379: writing beyond a buffer"),
    "pyyaml": ("<5.4", "CVE-2020-14343: full_load runs code"),
    "requests": ("<2.32.4", "CVE-2024-47081: sends credentials elsewhere"),
    "urllib3": ("<2.5", "CVE-2025-50181: follows redirects that are switched off"),
    "setuptools": ("<78.1.1", "CVE-2025-47273: writes outside of its folder"),
    "protobuf": ("<5.29.5", "CVE-2025-4565: endless recursion"),
    "jinja2": ("<3.1.6", "CVE-2025-27516: leaves the sandbox"),
    "aiohttp": ("<3.12.14", "CVE-2025-53643: requests smuggled in"),
    "filelock": ("<3.20.1", "CVE-2025-68146: truncates what a link points to"),
}
"""Versions that must not be used, with reasons; some are also excluded by pyproject.toml."""

LINE = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[A-Za-z0-9.!+]+)( ; .+)?")


def normal(name: str) -> str:
    """Returns the normalised name of a package."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(text: str) -> tuple[dict[str, str], list[str]]:
    """Returns versions by name, and the lines that do not pin one exact version."""
    versions, findings = {}, []
    for line in filter(None, (line.split("#")[0].strip() for line in text.splitlines())):
        match = LINE.fullmatch(line)
        if match is None:
            findings.append(f"requirements.lock: `{line}` is not name==version")
        else:
            versions[match["name"]] = match["version"]
    return versions, findings


def check_bounds(versions: dict[str, str], requirements: list[str]) -> Iterator[str]:
    """Lists locked versions that pyproject.toml excludes."""
    for requirement in map(Requirement, requirements):
        version = versions.get(normal(requirement.name))
        if version is None:
            yield f"requirements.lock: {requirement.name} is not locked"
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"requirements.lock: {requirement.name} {version} is not {requirement.specifier}"
        if not any(part.operator in ("<", "==", "~=") for part in requirement.specifier):
            yield f"pyproject.toml: {requirement.name} has no upper bound"


def check_known_bad(versions: dict[str, str]) -> Iterator[str]:
    """Lists locked versions that must not be used."""
    for name, (bad, reason) in KNOWN_BAD.items():
        version = versions.get(name)
        ranges = [SpecifierSet(part) for part in (bad.split(",") if bad.startswith("==") else [bad])]
        if version is not None and any(item.contains(version, prereleases=True) for item in ranges):
            yield f"{name} {version} must not be used: {reason}"


def check_installed(versions: dict[str, str]) -> Iterator[str]:
    """Lists locked packages that are installed in another version, or whose files differ from their wheel."""
    for name, version in versions.items():
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for example, for another system
        if package.version.partition("+")[0] != version:
            yield f"{name} is installed as {package.version}, locked is {version}"
        yield from check_files(package)


def check_files(package: metadata.Distribution) -> Iterator[str]:
    """Returns the files of a package that differ from its RECORD."""
    for file in package.files or []:
        path = Path(str(file.locate()))
        if file.hash is None or not path.is_file():
            continue
        with path.open("rb") as content:
            found = hashlib.file_digest(content, file.hash.mode).digest()
        if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != file.hash.value:
            yield f"{package.name}: {file} was changed after it was installed"


def main() -> int:
    """Prints the findings for the repository in the current directory; returns 0 if there are none."""
    versions, findings = read_lock(Path("requirements.lock").read_text(encoding="utf-8"))
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [item for extra in project["optional-dependencies"].values() for item in extra]
    findings += [*check_bounds(versions, wanted), *check_known_bad(versions), *check_installed(versions)]
    print("\n".join(findings) or f"{len(versions)} packages: nothing found")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
