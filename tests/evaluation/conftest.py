"""A finished run of one's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def run(digits_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be evaluated or damaged."""
    return Path(shutil.copytree(digits_run, tmp_path / "run"))
