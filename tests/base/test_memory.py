"""Freed memory stays with the process."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from alexnet_lab.base.memory import importing

PROGRAM = """
import ctypes, os, sys
from pathlib import Path
from alexnet_lab.base.memory import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

if sys.argv[1] == "keep":
    keep_freed_memory()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
before = resident()
block = bytearray(100 * 2**20)
del block
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is made for Linux")
@pytest.mark.parametrize(("how", "least", "most"), [("keep", 90, 110), ("as usual", -10, 10)])
def test_a_freed_block_stays(how, least, most):
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    assert least < float(done.stdout) < most


@pytest.mark.parametrize("enabled", [True, False])
def test_what_is_imported_is_ignored_by_the_collector_and_nothing_else_is(enabled, monkeypatch):
    frozen: list[int] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(1))  # for good, as far as the other tests are concerned
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with importing():
            assert not gc.isenabled()
            assert frozen == []
        assert (gc.isenabled(), frozen) == (enabled, [1])
    finally:
        (gc.enable if before else gc.disable)()
