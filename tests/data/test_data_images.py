"""Decoding: size, cut, colour modes, and files that are no images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
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


def test_palette_with_transparency_keeps_its_colours(tmp_path):
    pixels = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    palette = Image.fromarray(pixels).quantize(64)
    palette.save(tmp_path / "a.png", transparency=bytes(range(64)))
    assert np.array_equal(read_image(tmp_path / "a.png", 8, 3), np.asarray(palette.convert("RGB")).transpose(2, 0, 1))


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
