"""Small data sets made on the spot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Makes an image folder of random PNG files and returns its root."""

    def make(
        name: str = "pictures",
        classes: tuple[str, ...] = ("apple", "pear"),
        count: int = 6,
        parts: tuple[str, ...] = ("train",),
        size: tuple[int, int] = (12, 10),
    ) -> Path:
        rng = np.random.default_rng(7)
        for part in parts:
            for label in classes:
                folder = tmp_path / name / part / label
                folder.mkdir(parents=True)
                for number in range(count):
                    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number:02}.png")
        return tmp_path / name

    return make
