"""The table of docs/fidelity.md names tests that exist, and each of its numbers is a literal in one of them."""

from __future__ import annotations

import ast
import fnmatch
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "fidelity.md"
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?!\w)")


class Line(NamedTuple):
    """One line of the table."""

    number: int
    expected: str
    tests: list[str]


def lines() -> list[Line]:
    cells = [row.strip("| ").split(" | ") for row in DOCUMENT.read_text(encoding="utf-8").splitlines() if "`" in row]
    return [Line(int(row[0]), row[2], re.findall(r"`([^`]+)`", row[3])) for row in cells if row[0].isdigit()]


def numbers(text: str) -> set[float]:
    """Those in a text; 3x256x256 and thousands' commas are understood, "0, 1" is two."""
    parts = re.sub(r",(?!\d{3}(?!\d))", " ", text.replace("x", " "))
    return {float(word.replace(",", "")) for word in NUMBER.findall(parts)}


@cache
def module(file: str) -> ast.Module:
    return ast.parse((TESTS / file).read_text(encoding="utf-8"))


def functions(file: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in module(file).body if isinstance(node, ast.FunctionDef)}


def literals(test: str) -> set[float]:
    """All numbers in a test, its parameters and the constants of its module."""
    file, name = test.split("::")
    constants = [node for node in module(file).body if isinstance(node, ast.Assign)]
    found: set[float] = set()
    for part in (functions(file)[name], *constants):
        for node in ast.walk(part):
            if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
                found.add(float(node.value))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= numbers(node.value)
    return found


def test_the_table_is_complete():
    assert [line.number for line in lines()] == list(range(1, 46))


@pytest.mark.parametrize("line", lines(), ids=lambda line: str(line.number))
def test_tests_exist_and_hold_the_numbers(line):
    assert line.tests
    for test in line.tests:
        file, name = test.split("::")
        assert name in functions(file)
    missing = numbers(line.expected) - set().union(*(literals(test) for test in line.tests))
    assert not missing


def test_tests_named_in_other_documents_exist():
    """`test_x` is a function, `test_x.py` a file, and `test_x_*` stands for all functions that begin like that."""
    known = set()
    for path in TESTS.rglob("test_*.py"):
        known |= {path.name, *re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)}
    pages = [*DOCUMENT.parent.glob("*.md"), DOCUMENT.parents[1] / "README.md"]
    named = {
        name for page in pages for name in re.findall(r"`(?:[\w/]*/)?(test_[\w*.]+)`", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 100
    assert [name for name in sorted(named) if not fnmatch.filter(known, name)] == []
