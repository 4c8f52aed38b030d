"""A sweep of two levels and three seeds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from made import make_sweep

if TYPE_CHECKING:
    from pathlib import Path

ERRORS = {"relu": [0.10, 0.12, 0.14], "tanh": [0.20, 0.21, math.nan]}
"""Test errors; that of tanh with seed 2 has failed."""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """The directory of a sweep that has ended, one job of it failed."""
    return make_sweep(tmp_path / "sweep", ERRORS)
