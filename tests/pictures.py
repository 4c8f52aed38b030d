"""Small image folders whose files change: for what must notice it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(5)


def write_image(path: Path, *, bright: bool) -> None:
    """A noisy 8x8 BMP, whose size on disk is always the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 100, (8, 8), dtype=np.uint8) + (150 if bright else 0)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def make_pictures(root: Path) -> Path:
    """40 images in two classes, without a test set."""
    for number in range(20):
        write_image(root / "train" / "dark" / f"{number:02}.bmp", bright=False)
        write_image(root / "train" / "light" / f"{number:02}.bmp", bright=True)
    return root


def words_of(root: Path) -> tuple[str, ...]:
    """The overrides that train LeNet-5 on such a folder for one epoch; stores lie beside it."""
    return (
        "data=image_folder", f"data.root={root}", f"data.dir={root.parent / 'data'}", "data.stored_size=8",
        "data.image_size=28", "data.channels=1", "augment=none", "model=lenet5", "trainer.max_epochs=1",
    )  # fmt: skip
