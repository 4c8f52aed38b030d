"""The public names: each is documented in docs/api/, with an example that runs here."""

from __future__ import annotations
import __future__

import ast
import doctest
import importlib
import inspect
import re
import shutil
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from commands import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCES = REPOSITORY / "src"
RUN = "logs/runs/first"
"""The run that the examples open."""


@cache
def exports() -> dict[str, list[str]]:
    """By module, the names of its `__all__`."""
    found = {}
    for path in sorted(SOURCES.glob("alexnet_lab/**/*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                module = ".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__")
                found[module] = ast.literal_eval(node.value)
    return found


def documented() -> Iterator[tuple[str, str]]:
    """Module and name of each public class and function."""
    for module, names in exports().items():
        for name in names:
            subject = getattr(importlib.import_module(module), name)
            if inspect.isclass(subject) or inspect.isroutine(subject):
                yield module, name


def imported(text: str) -> Iterator[tuple[str, str]]:
    """Module and name of each import from our package in a text."""
    for module, names in re.findall(r"^\s*from (alexnet_lab[\w.]*) import ([\w, ]+)", text, re.MULTILINE):
        for name in names.split(", "):
            yield module, name.strip()


def targets() -> Iterator[tuple[str, str, str]]:
    """File, module and name of each of our `_target_`s in configs/."""
    for path in sorted((REPOSITORY / "configs").rglob("*.yaml")):
        for target in re.findall(r"_target_: (alexnet_lab[\w.]+)", path.read_text(encoding="utf-8")):
            module, _, name = target.rpartition(".")
            yield path.name, module, name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_run: Path, digits_dir: Path) -> None:
    """A working directory with a finished run and the digits, as the examples expect."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALEXNET_LAB_DATA", raising=False)
    shutil.copytree(digits_run, tmp_path / RUN)
    (tmp_path / "data").symlink_to(digits_dir)


@pytest.mark.parametrize("name", [f"{module}.{name}" for module, name in documented()])
def test_example(name, here):
    module, _, last = name.rpartition(".")
    home = importlib.import_module(module)
    subject = getattr(home, last)
    known = {"annotations": __future__.annotations, "np": np, "torch": torch} | {
        public: getattr(home, public) for public in exports()[module]
    }
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(subject) or "", known, name, None, 0)
    assert example.examples, f"{name} is public (`__all__`), and its docstring has no example"
    lines: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=lines.append)
    assert not failed, "".join(lines)


def test_each_public_module_has_its_section():
    pages = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs" / "api").glob("*.md")]
    shown = re.findall(r"^\.\. automodule:: (\S+)$", "\n".join(pages), re.MULTILINE)
    assert sorted(shown) == sorted(exports())


def test_what_configs_and_documents_name_is_public():
    files = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("notebooks/*.py")]
    named = [(path.name, *pair) for path in files for pair in imported(path.read_text(encoding="utf-8"))]
    named += targets()
    hidden = [entry for entry in named if entry[2] not in exports().get(entry[1], ()) and not is_module(*entry[1:])]
    assert not hidden, "not in `__all__`"


def is_module(package: str, name: str) -> bool:
    """Whether a name is a module with public names."""
    return f"{package}.{name}" in exports()


def test_lazy_packages_list_their_names():
    for module in ("alexnet_lab", "alexnet_lab.models", "alexnet_lab.data", "alexnet_lab.training", "alexnet_lab.run"):
        assert sorted(dir(importlib.import_module(module))) == sorted(exports()[module])
