"""`make audit`: what it finds in lock files and packages made for the purpose, and nothing in ours."""

from __future__ import annotations

import importlib
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
AUDIT = runpy.run_path(str(REPOSITORY / "tools" / "audit.py"))


def test_lines_that_lock_nothing_are_reported():
    versions, findings = AUDIT["read_lock"](
        '# comment\na==1.0\ntriton==3.0 ; sys_platform == "linux"\nb>=2\nc @ https://example.org/c.whl\n'
    )
    assert versions == {"a": "1.0", "triton": "3.0"}
    assert findings == [
        "requirements.lock: `b>=2` is not name==version",
        "requirements.lock: `c @ https://example.org/c.whl` is not name==version",
    ]


def test_bounds_are_held():
    found = list(AUDIT["check_bounds"]({"a": "2.0", "b": "1.0"}, ["a>=1,<2", "b>=1", "C_d>=1,<2"]))
    assert found == [
        "requirements.lock: a 2.0 is not <2,>=1",
        "pyproject.toml: b has no upper bound",
        "requirements.lock: C_d is not locked",
    ]


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_malicious_versions_are_reported(version):
    assert list(AUDIT["check_known_bad"]({"lightning": version})) == [
        f"lightning {version} must not be used: malicious uploads to the package index"
    ]
    assert not list(AUDIT["check_known_bad"]({"lightning": "2.6.4", "torch": "2.9"}))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package of one file."""
    info = tmp_path / "toy-1.0.dist-info"
    info.mkdir()
    (tmp_path / "toy.py").write_bytes(b"")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    empty = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"  # SHA-256 of nothing
    (info / "RECORD").write_text(f"toy.py,sha256={empty},0\ntoy-1.0.dist-info/RECORD,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    importlib.invalidate_caches()


def test_changed_files_and_versions_are_reported(package):
    assert list(AUDIT["check_installed"]({"toy": "1.0", "not-installed-here": "1"})) == []
    assert list(AUDIT["check_installed"]({"toy": "1.1"})) == ["toy is installed as 1.0, locked is 1.1"]
    (package / "toy.py").write_bytes(b"import os")
    assert list(AUDIT["check_installed"]({"toy": "1.0"})) == ["toy: toy.py was changed after it was installed"]


def test_our_lock_is_sound():
    versions, findings = AUDIT["read_lock"]((REPOSITORY / "requirements.lock").read_text())
    assert findings == []
    assert len(versions) > 50
    assert list(AUDIT["check_known_bad"](versions)) == []


def test_our_lock_keeps_the_bounds(monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setitem(AUDIT["main"].__globals__, "check_installed", lambda versions: [])
    assert AUDIT["main"]() == 0, capsys.readouterr().out
