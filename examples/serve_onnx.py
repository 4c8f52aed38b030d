"""Classifies images with a file of export.py: `python serve_onnx.py MODEL.onnx FOLDER` writes predictions.csv.

It needs numpy, Pillow and onnxruntime. The file itself crops, normalises and computes; only decoding, scaling and the
square around the centre happen here.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

BATCH = 64  # images at a time
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read(path, size, channels):
    """Decodes an image, scales its shorter side to `size`, and crops the centre: uint8 (channels, size, size)."""
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):  # 16 bits
            image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
        if image.has_transparency_data:  # on white
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if channels == 1 else "RGB")
    short = min(image.size)
    width, height = (size * side // short for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    return np.asarray(image).reshape(size, size, channels).transpose(2, 0, 1)


def main(model, folder, out="predictions.csv"):
    """Writes one row per image: the file, the most probable class and its probability."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    classes = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    _, channels, size, _ = session.get_inputs()[0].shape
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
    with Path(out).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "class", "probability"])
        for start in range(0, len(paths), BATCH):
            batch = paths[start : start + BATCH]
            pixels = np.stack([read(path, size, channels) for path in batch])
            probabilities = np.asarray(session.run(["probabilities"], {"pixels": pixels})[0])
            for path, shares in zip(batch, probabilities, strict=True):
                best = int(shares.argmax())
                table.writerow([path.relative_to(folder).as_posix(), classes[best], f"{shares[best]:.4f}"])


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit("usage: python serve_onnx.py MODEL.onnx FOLDER [predictions.csv]")
    main(*sys.argv[1:])
