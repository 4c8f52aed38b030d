"""Decodes one image file to an array (C, S, S) of uint8."""

from __future__ import annotations

import contextlib
import struct
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from alexnet_lab.data.folders import EXTENSIONS

MODES = {1: "L", 3: "RGB"}
"""Pillow's mode for each number of channels."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are decoded, whatever a file's name. For others, such as PostScript, Pillow may run a program."""

LARGEST = 1 << 27
"""The most pixels of an image, as stored and after scaling: 134 million, 512 MiB in colour."""


def read_image(path: Path, size: int, channels: int) -> NDArray[np.uint8]:
    """Decodes a file, scales its shorter side to `size` and crops the centre (Krizhevsky 2012, section 2).

    It uses Pillow's antialiased bilinear filter and torchvision's rounding, so the result equals `Resize(size)` and
    `CenterCrop(size)` there. The image is turned upright by its EXIF orientation, and transparent parts become white.
    Grey, palette, CMYK and 9- to 16-bit images become RGB (or grey for one channel). An animation, or a file with
    several pages, is represented by its first image.

    Returns:
        The image (channels, size, size), 0..255.

    Raises:
        ValueError: It is no file (reading a pipe would block), its name has no extension of an image, or it is such a
            long strip that it would be far too large after scaling.
        Exception: Whatever Pillow raises for a file that is no image, is cut short, or is far too large.
    """
    if path.is_dir():
        raise ValueError("not a file, but a folder; images lie directly in the folder of their class")
    if path.suffix.lower() not in EXTENSIONS:
        raise ValueError(f"not named like an image ({', '.join(EXTENSIONS)})")
    if not path.is_file():
        raise ValueError("not a file, but a link to nothing" if path.is_symlink() else "not a file")
    return decoded(path, size, channels)


def decoded(source: Path | BytesIO, size: int, channels: int) -> NDArray[np.uint8]:
    """Decodes a file or its bytes, whatever its name; see `read_image`."""
    with Image.open(source, formats=FORMATS) as file:
        if file.format != "PNG":
            return _pixels(file, size, channels)
        file.verify()  # the CRC-32 of its chunks, which Pillow ignores when it decodes
    if not isinstance(source, Path):
        source.seek(0)
    with Image.open(source, formats=FORMATS) as file:
        return _pixels(file, size, channels)


def _pixels(file: Image.Image, size: int, channels: int) -> NDArray[np.uint8]:
    pixels = np.asarray(centre_square(to_mode(upright(file), MODES[channels]), size))
    return pixels.reshape(size, size, channels).transpose(2, 0, 1)


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """The decoded image as 8-bit grey ("L") or "RGB", on white where it is transparent."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers without a defined white")
    if image.mode.startswith("I"):  # more than 8 bits, which Pillow's own conversion clips at 255
        tags = getattr(image, "tag_v2", {})  # of a TIFF
        bits = int(np.atleast_1d(tags.get(ExifTags.Base.BitsPerSample, 16))[0])
        if bits > 16:
            raise ValueError(f"its pixels are {bits}-bit integers without a defined white")
        white = 2**bits - 1
        deep = np.asarray(image).clip(0, white)
        if isinstance(clear := image.info.get("transparency"), int):
            deep = np.where(deep == clear, white, deep)
        if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # white is zero
            deep = white - deep
        image = Image.fromarray((deep >> (bits - 8)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def upright(image: Image.Image) -> Image.Image:
    """Turns the image by its EXIF orientation, if that is intact."""
    image.load()  # Pillow turns a TIFF by itself here
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):
        return image
    return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """Scales the image's shorter side to `size` and crops the centre of `size` x `size`."""
    width, height = image.size
    short = min(width, height)
    width, height = size * width // short, size * height // short
    if width * height > LARGEST:
        raise ValueError(f"{image.width} x {image.height} pixels are too long a strip to be scaled to {size}")
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


@contextlib.contextmanager
def strict_decoding() -> Iterator[None]:
    """Makes a suspiciously large image an error and silences Pillow's other warnings.

    Warning filters belong to the process: use this around a pool of threads, never inside one.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
