"""A sweep of two levels and three seeds, and the browser."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from commands import skip_unless_required
from made import make_sweep

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ERRORS = {"relu": [0.10, 0.12, 0.14], "tanh": [0.20, 0.21, math.nan]}
"""Test errors; that of tanh with seed 2 has failed."""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """The directory of a sweep that has ended, one job of it failed."""
    return make_sweep(tmp_path / "sweep", ERRORS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window, steered by playwright."""
    program = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if program is None or sync_playwright is None:
        missing = "Chromium" if program is None else "playwright (pip install playwright)"
        skip_unless_required("browser", f"{missing} is not installed")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()
