"""A package imports only from those below it, lazily or not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import alexnet_lab

LAYERS = ("base", "data", "models", "training", "config", "run", "evaluation", "export", "sweeps", "report")
"""From what is used to what uses."""

SOURCE = Path(alexnet_lab.__file__).parent


def imported(source: str, module: str) -> set[str]:
    """The dotted names of ours that a module imports anywhere in its text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parts, node.module] if node.module else parts)
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("alexnet_lab.")}


def imports(source: str, module: str) -> set[str]:
    """The same, with those of lazy tables, which are strings."""
    strings = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    named = {text for text in strings if isinstance(text, str) and text.startswith("alexnet_lab.") and " " not in text}
    return imported(source, module) | named


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


def module_imports(source: str, module: str, modules: set[str]) -> set[str]:
    """The modules of ours that a module imports anywhere in its text: lazily, or for types alone, counts too."""
    names = imported(source, module)
    names -= {name.rpartition(".")[0] for name in names}  # of `from package import name` the package itself
    return {name if name in modules else name.rpartition(".")[0] for name in names} & modules - {module}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that import each other, directly or through others."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen, waiting = set(), [start]
        while waiting:
            for name in graph.get(waiting.pop(), set()) - seen:
                seen.add(name)
                waiting.append(name)
        reached[start] = seen
    groups = {frozenset({name, *(other for other in reached[name] if name in reached[other])}) for name in graph}
    return [set(group) for group in groups if len(group) > 1]


def test_no_module_imports_itself_through_others():
    modules = {module_of(path).removesuffix(".__init__"): path for path in SOURCE.rglob("*.py")}
    graph = {
        name: module_imports(path.read_text(encoding="utf-8"), module_of(path), set(modules)) - {name}
        for name, path in modules.items()
    }
    assert circles(graph) == []


def test_a_circle_is_seen():
    sources = {
        "alexnet_lab.a.b": "def f():\n    from alexnet_lab.a import c",
        "alexnet_lab.a.c": "if TYPE_CHECKING:\n    from alexnet_lab.d.e import Name",
        "alexnet_lab.d.e": "from alexnet_lab.a.b import f",
        "alexnet_lab.d.f": "from alexnet_lab.d import e",
    }
    graph = {name: module_imports(source, name, set(sources) | {"alexnet_lab.a"}) for name, source in sources.items()}
    assert circles(graph) == [{"alexnet_lab.a.b", "alexnet_lab.a.c", "alexnet_lab.d.e"}]


PRIVATE = re.compile(
    r"^from (?:hydra|omegaconf)\._|^import (?:hydra|omegaconf)\._|^from hydra\._internal", re.MULTILINE
)


def test_private_parts_of_hydra_are_used_in_one_module():
    """So that an upgrade of Hydra is checked in one place; the plugins of `hydra_plugins` use public ones."""
    folders = (SOURCE, SOURCE.parent / "hydra_plugins")
    users = {path.name for folder in folders for path in folder.rglob("*.py") if PRIVATE.search(path.read_text())}
    assert users == {"hydra_adapter.py"}
