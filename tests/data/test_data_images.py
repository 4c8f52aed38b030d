"""Decoding: size, cut, colour modes, and files that are no images."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from alexnet_lab.data.images import centre_square, read_image, strict_decoding

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (257, 255), (256, 256), (64, 97), (1280, 331)])
def test_rescaling_and_cutting_equal_torchvisions(size):
    width, height = size
    image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))
    reference = Compose([Resize(128, InterpolationMode.BILINEAR), CenterCrop(128)])(image)
    assert np.array_equal(np.asarray(centre_square(image, 128)), np.asarray(reference))


def test_an_image_of_the_stored_size_is_kept_bit_for_bit(tmp_path):
    pixels = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", 32, 3), pixels.transpose(2, 0, 1))


def test_grey_becomes_three_equal_channels(tmp_path):
    grey = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", 8, 3), np.stack([grey] * 3))
    assert np.array_equal(read_image(tmp_path / "a.png", 8, 1), grey[None])


def test_colour_becomes_grey_by_the_luma_weights(tmp_path):
    pixels = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    luma = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    assert np.abs(read_image(tmp_path / "a.png", 8, 1)[0] - luma).max() <= 1


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.jpg")  # full cyan
    red, green, blue = read_image(tmp_path / "a.jpg", 8, 3).mean(axis=(1, 2))
    assert red < 10
    assert green > 240
    assert blue > 240


def test_sixteen_bits_keep_their_upper_eight(tmp_path):
    deep = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", 8, 1)[0], deep >> 8)


def tiff(path: Path, values: np.ndarray, bits: int, photometric: int) -> None:
    """A grey TIFF with the numbers as they are; 12 bits are packed, two numbers in three bytes."""
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(int)
        packed = [byte for a, b in pairs for byte in (a >> 4, (a & 15) << 4 | b >> 8, b & 255)]
        content = bytes(packed)
    else:
        content = values.astype(f"<u{bits // 8}").tobytes()
    height, width = values.shape
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1),
               (278, height), (279, len(content))]  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    start = 8 + len(content) + len(content) % 2
    head = struct.pack("<2sHI", b"II", 42, start) + content.ljust(start - 8, b"\0")
    path.write_bytes(head + struct.pack("<H", len(entries)) + table + bytes(4))


@pytest.mark.parametrize(("bits", "photometric"), [(8, 0), (8, 1), (12, 1), (16, 0), (16, 1)])  # not Pillow's (12, 0)
def test_grey_tiffs_of_any_depth_keep_their_upper_eight_bits(bits, photometric, tmp_path):
    values = (np.arange(64) * (2**bits - 1) // 63).reshape(8, 8)
    tiff(tmp_path / "a.tif", values, bits, photometric)
    expected = (values if photometric else 2**bits - 1 - values) >> (bits - 8)
    assert np.array_equal(read_image(tmp_path / "a.tif", 8, 1)[0], expected)


def test_integers_without_a_defined_white_are_refused(tmp_path):
    Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="its pixels are 32-bit integers without a defined white"):
        read_image(tmp_path / "a.tif", 8, 1)


def test_palette_with_transparency_is_laid_upon_white(tmp_path):
    pixels = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    palette = Image.fromarray(pixels).quantize(64)
    palette.save(tmp_path / "a.png", transparency=bytes(range(0, 256, 4)))
    alpha = np.asarray(palette)[..., None] * 4 / 255
    expected = np.asarray(palette.convert("RGB")) * alpha + 255 * (1 - alpha)
    assert np.abs(read_image(tmp_path / "a.png", 8, 3) - expected.transpose(2, 0, 1)).max() <= 1


INK = np.zeros((8, 8), dtype=np.uint8)
INK[2:6, 3:5] = 255
"""A stroke: where it is opaque."""


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "tRNS grey", "tRNS colour", "tRNS 16 bits", "tRNS 1 bit"])
@pytest.mark.parametrize("channels", [1, 3])
def test_black_ink_on_a_transparent_background_is_black_on_white(mode, channels, tmp_path):
    path = tmp_path / "a.png"
    ink = Image.fromarray(INK)
    if mode in ("RGBA", "LA"):
        image = Image.new(mode, (8, 8))
        image.putalpha(ink)
        image.save(path)
    elif mode == "P":
        image = Image.fromarray((INK > 0).astype(np.uint8), "P")
        image.putpalette([9, 9, 9, 0, 0, 0])
        image.save(path, transparency=0)
    elif mode == "tRNS grey":
        Image.fromarray(np.where(INK, 0, 7).astype(np.uint8)).save(path, transparency=7)
    elif mode == "tRNS colour":
        Image.fromarray(np.where(INK, 0, 7).astype(np.uint8)).convert("RGB").save(path, transparency=(7, 7, 7))
    elif mode == "tRNS 16 bits":
        Image.fromarray(np.where(INK, 0, 700).astype(np.uint16)).save(path, transparency=700)
    else:
        Image.fromarray(INK == 0).save(path, transparency=255)  # white is the transparent colour
    assert np.array_equal(read_image(path, 8, channels), np.stack([255 - INK] * channels))


def test_opaque_alpha_changes_nothing(tmp_path):
    pixels = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.putalpha(255)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", 8, 3), pixels.transpose(2, 0, 1))


TURNS = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.T,
         6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).T, 8: np.rot90}  # fmt: skip
"""What brings the stored pixels upright, by EXIF's orientation."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
def test_exif_orientation_is_applied(orientation, ending, tmp_path):
    pixels = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.fromarray(pixels) if ending != "webp" else Image.fromarray(np.stack([pixels] * 3, axis=2))
    options: dict[str, Any] = {"lossless": True} if ending == "webp" else {}
    image.save(tmp_path / f"a.{ending}", exif=exif, **options)
    assert np.array_equal(read_image(tmp_path / f"a.{ending}", 8, 1)[0], TURNS[orientation](pixels))


def test_a_turned_photograph_is_cut_upright(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    left = Image.new("L", (80, 40))
    left.paste(255, (0, 0, 40, 40))
    left.save(tmp_path / "a.jpg", exif=exif, quality=95)
    upper, lower = read_image(tmp_path / "a.jpg", 40, 1)[0].reshape(2, 20, 40).mean(axis=(1, 2))
    assert upper > 250
    assert lower < 5


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0", b"Exif\0\0nonsense", b"x"])
def test_damaged_exif_leaves_the_image_as_it_is(exif, tmp_path):
    image = Image.fromarray(RNG.integers(0, 256, (8, 8), dtype=np.uint8))
    image.save(tmp_path / "a.png", exif=exif)
    with strict_decoding():
        assert np.array_equal(read_image(tmp_path / "a.png", 8, 1)[0], np.asarray(image))


@pytest.mark.parametrize("ending", [name for name in IMG_EXTENSIONS if name not in (".jpg", ".jpeg")])
def test_all_that_torchvision_reads_is_read(ending, tmp_path):
    pixels = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
    options: dict[str, Any] = {"lossless": True} if ending == ".webp" else {}
    Image.fromarray(pixels).save(tmp_path / f"a{ending}", **options)
    assert np.abs(read_image(tmp_path / f"a{ending}", 8, 1)[0].astype(int) - pixels).max() <= (ending == ".webp")


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((8, 8), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="its pixels are floating-point numbers"):
        read_image(tmp_path / "a.tif", 8, 1)


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif", 8, 3).min() == 255


def test_a_name_without_an_images_ending_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"not named like an image \(\.bmp"):
        read_image(tmp_path / "notes.txt", 8, 3)


def test_the_ending_may_be_written_in_capitals(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.JPEG")
    assert read_image(tmp_path / "a.JPEG", 8, 3).shape == (3, 8, 8)


def test_a_truncated_jpeg_is_an_error(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(OSError, match="truncated"):
        read_image(tmp_path / "a.jpg", 32, 3)


def test_a_decompression_bomb_is_an_error(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with strict_decoding(), pytest.raises(Image.DecompressionBombWarning, match="exceeds limit"):
        read_image(tmp_path / "a.png", 8, 3)
