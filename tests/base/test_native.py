"""C++ that is compiled where it runs: kept for the next time, and given up with one line where it cannot be."""

from __future__ import annotations

import ctypes
import logging
from typing import TYPE_CHECKING

import pytest

from alexnet_lab.base import native
from alexnet_lab.base.native import Library, NativeError, compiled, find_compiler

if TYPE_CHECKING:
    from pathlib import Path

DOUBLE = 'extern "C" void twice(const double *x, double *y) { *y = 2 * *x; }'

SIGNATURES = {"twice": [ctypes.POINTER(ctypes.c_double)] * 2}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "alexnet-lab"


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "twice.cpp"
    path.write_text(DOUBLE)
    return path


@pytest.fixture
def compiler() -> None:
    try:
        find_compiler()
    except NativeError:
        pytest.skip("there is no compiler here")


@pytest.mark.usefixtures("compiler")
def test_functions_are_called_and_kept_for_the_next_process(source, cache, monkeypatch):
    x, y = ctypes.c_double(21), ctypes.c_double()
    library = Library(source, SIGNATURES, without="")
    library.call("twice", x, y)
    assert y.value == 42
    assert [path.suffix for path in cache.iterdir()] == [".so"]
    monkeypatch.setattr(native, "COMPILERS", ("no-such-compiler",))
    assert Library(source, SIGNATURES, without="").available


@pytest.mark.usefixtures("compiler")
def test_another_source_is_recompiled(source):
    first = compiled(source)
    source.write_text(DOUBLE.replace("2 *", "3 *"))
    assert compiled(source) != first


@pytest.mark.usefixtures("compiler")
def test_what_does_not_compile_is_reported_once(source, caplog, cache):
    source.write_text("no C++")
    library = Library(source, SIGNATURES, without="twice is slower here")
    with caplog.at_level(logging.INFO, "alexnet_lab"):
        assert [library.available, library.available] == [False, False]
    (record,) = caplog.records
    assert record.message.startswith("twice is slower here (")
    assert "error: " in record.message
    assert list(cache.iterdir()) == []
    with pytest.raises(NativeError, match="twice is slower here"):
        library.call("twice")


def test_the_environments_compiler_comes_first(tmp_path, monkeypatch):
    own = tmp_path / "own-compiler"
    own.write_text("#!/bin/sh\nexit 3\n")
    own.chmod(0o755)
    monkeypatch.setenv("CXX", str(own))
    assert find_compiler() == str(own)


def test_a_compiler_that_does_not_end_is_given_up(source, tmp_path, monkeypatch):
    slow = tmp_path / "slow-compiler"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("CXX", str(slow))
    monkeypatch.setattr(native, "PATIENCE", 0.1)
    with pytest.raises(NativeError, match=r"slow-compiler took more than 0\.1 s"):
        compiled(source)


@pytest.mark.usefixtures("compiler")
def test_a_cache_that_cannot_be_made_is_replaced_by_a_temporary_folder(source, cache, monkeypatch):
    cache.parent.write_text("a file in its place")
    path = compiled(source)
    assert path.is_file()
    assert cache not in path.parents


@pytest.mark.usefixtures("compiler")
def test_a_compiler_without_openmp_compiles_for_one_thread(source, tmp_path, monkeypatch, caplog):
    apple = tmp_path / "apple-clang++"
    refusal = "clang: error: unsupported option '-fopenmp'"
    refuse = f'case "$*" in *-fopenmp*) echo "{refusal}" >&2; exit 1;; esac'
    apple.write_text(f'#!/bin/sh\n{refuse}\nexec {find_compiler()} "$@"\n')
    apple.chmod(0o755)
    monkeypatch.setenv("CXX", str(apple))
    x, y = ctypes.c_double(21), ctypes.c_double()
    with caplog.at_level(logging.INFO, "alexnet_lab"):
        Library(source, SIGNATURES, without="").call("twice", x, y)
    assert y.value == 42
    assert [record.message for record in caplog.records] == ["apple-clang++ has no OpenMP: twice.cpp uses one thread"]
