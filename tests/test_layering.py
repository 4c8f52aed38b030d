"""A package imports only from those below it, lazily or not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import alexnet_lab

LAYERS = ("base", "data", "models", "training", "config", "run", "evaluation", "sweeps", "report")
"""From what is used to what uses."""

SOURCE = Path(alexnet_lab.__file__).parent


def imports(source: str, module: str) -> set[str]:
    """The dotted names of ours that a module imports anywhere in its text, those of lazy tables among them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parts, node.module] if node.module else parts)
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            found.add(node.value)
    return {name for name in found if name.startswith("alexnet_lab.")}


def offences(source: str, module: str) -> set[str]:
    """The imports of a module that lie in a layer above its own."""
    own = module.split(".")[1]
    return {name for name in imports(source, module) if LAYERS.index(layer(name, own)) > LAYERS.index(own)}


def layer(name: str, own: str) -> str:
    """The layer of a dotted name; a log's name or the package's version count as one's own."""
    part = name.split(".")[1]
    return part if part in LAYERS else own


def module_of(path: Path) -> str:
    return ".".join(("alexnet_lab", *path.relative_to(SOURCE).with_suffix("").parts))


FILES = [path for path in sorted(SOURCE.rglob("*.py")) if path.parent != SOURCE]


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path).removeprefix("alexnet_lab."))
def test_imports_only_from_below(path):
    assert offences(path.read_text(encoding="utf-8"), module_of(path)) == set()


def test_every_package_has_its_place():
    assert {path.relative_to(SOURCE).parts[0] for path in FILES} <= set(LAYERS)


@pytest.mark.parametrize(
    "line",
    [
        "from alexnet_lab.run import train",
        "import alexnet_lab.run.engine as engine",
        "def f():\n    from alexnet_lab.run.worker import fit_and_test",
        "if TYPE_CHECKING:\n    from alexnet_lab import run",
        "from ..run import engine",
        "from ... import run".replace("...", ".."),
        "TABLE = {'engine': 'alexnet_lab.run.engine'}",
    ],
)
def test_an_offence_is_seen(line):
    assert offences(line, "alexnet_lab.models.alexnet") != set()


def test_imports_of_the_own_package_and_below_are_none():
    text = "from alexnet_lab.models.layers import Tanh\nfrom alexnet_lab.base import errors\nfrom . import geometry"
    assert offences(text, "alexnet_lab.models.alexnet") == set()
