"""A picture of the augmentation: training images as stored, and as the model sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from alexnet_lab.base.files import atomic_path
from alexnet_lab.data.datamodule import ImageDataModule

COUNT = 16
COLUMNS = 4

CELL = 112
"""Side of an image in the picture, in pixels."""

GAP = 6
MARGIN = 20
TITLE = 44
BACKGROUND = "white"
INK = "#222222"


def preview(datamodule: ImageDataModule, path: Path) -> None:
    """Writes a PNG of up to 16 images of the first training batch, before and after augmentation.

    Both blocks show the same images in the same places. "After" is converted back to 0..255; padding has the grey level
    of a normalised 0.

    Args:
        datamodule: Prepared and set up.
        path: Of the picture; written atomically.
    """
    loader = datamodule.train_dataloader()
    raw = loader.batch(0, 0, loader.batch_sampler.positions())
    lead = 0 if raw.place is None else raw.place.lead
    some = slice(lead, lead + COUNT)
    names = [datamodule.class_names[label] for label in raw.labels[some].tolist()]
    stored = raw.images[some].numpy()
    seen = datamodule.transform.grey_levels(datamodule.transform(raw).images[:COUNT])
    before = f"before: as stored, {stored.shape[-1]} px"
    after = f"after: as the model sees them, {seen.shape[-1]} px"
    left, right = block(stored, names, before), block(seen, names, after)
    picture = Image.new("RGB", (left.width + right.width + 3 * MARGIN, left.height + 2 * MARGIN), BACKGROUND)
    picture.paste(left, (MARGIN, MARGIN))
    picture.paste(right, (left.width + 2 * MARGIN, MARGIN))
    with atomic_path(path) as part:
        picture.save(part, format="PNG")


def block(images: NDArray[np.uint8], names: list[str], title: str) -> Image.Image:
    """Images (n, C, H, W) in rows of four, each with its class below, and a title above."""
    rows = -(-len(images) // COLUMNS)
    step = CELL + GAP
    label = 16
    canvas = Image.new("RGB", (COLUMNS * step - GAP, TITLE + rows * (step + label)), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((0, 8), title, fill=INK, font=ImageFont.load_default(18))
    small = ImageFont.load_default(12)
    for number, (image, name) in enumerate(zip(images, names, strict=True)):
        row, column = divmod(number, COLUMNS)
        place = (column * step, TITLE + row * (step + label))
        canvas.paste(_cell(image), place)
        draw.text((place[0], place[1] + CELL + 1), _shorten(name, small), fill=INK, font=small)
    return canvas


def _cell(image: NDArray[np.uint8]) -> Image.Image:
    """An image (C, H, W) at the size of a cell; the pixels of small images stay visible."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    method = Image.Resampling.NEAREST if image.shape[-1] <= CELL else Image.Resampling.BILINEAR
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB").resize((CELL, CELL), method)


def _shorten(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a name as fits below a cell."""
    while font.getlength(name) > CELL and len(name) > 1:
        name = name.removesuffix("…")[:-1] + "…"
    return name
