"""A `.caffemodel`, written here byte by byte as caffe.proto describes it: what is read, and what damage leads to."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from commands import QUICK, call, refused

from alexnet_lab.base.errors import RunError
from alexnet_lab.models.caffemodel import read_caffemodel
from alexnet_lab.run import request, starting_weights
from alexnet_lab.run.own_module import build_network

if TYPE_CHECKING:
    from pathlib import Path

    import torch

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


def varint(value: int) -> bytes:
    """Seven bits to a byte, the lowest first; the highest bit says that another byte follows."""
    groups = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


def number(field: int, value: int) -> bytes:
    return varint(field << 3 | VARINT) + varint(value)


def chunk(field: int, content: bytes | str) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | LENGTH) + varint(len(content)) + content


def floats(array: np.ndarray, form: str) -> bytes:
    """The values of a blob: `data` (5) as packed or single floats or a mixture, or packed `double_data` (8)."""
    values = array.ravel()
    if form == "double":
        return chunk(8, values.astype("<f8").tobytes())
    if form == "single doubles":
        return b"".join(varint(8 << 3 | FIXED64) + struct.pack("<d", value) for value in values)
    packed = {"packed": len(values), "single": 0, "mixed": len(values) // 2}[form]
    first = chunk(5, values[:packed].astype("<f4").tobytes()) if packed else b""
    return first + b"".join(varint(5 << 3 | FIXED32) + struct.pack("<f", value) for value in values[packed:])


def shape_of(array: np.ndarray, style: str) -> bytes:
    """`shape` (7) with packed or single sides, or `num`, `channels`, `height`, `width` (1 to 4)."""
    if style == "legacy":
        sides = (1,) * (4 - array.ndim) + array.shape
        return b"".join(number(field, side) for field, side in enumerate(sides, start=1))
    if style == "packed":
        return chunk(7, chunk(1, b"".join(map(varint, array.shape))))
    return chunk(7, b"".join(number(1, side) for side in array.shape))


def blob(array: np.ndarray, form: str = "packed", style: str = "packed") -> bytes:
    return shape_of(array, style) + floats(array, form)


def old_layer(name: str, *blobs: bytes) -> bytes:
    """V1LayerParameter in `layers` (2): bottom 2, top 3, name 4, type 5 (an enumeration), blobs 6, blobs_lr 7."""
    rates = varint(7 << 3 | FIXED32) + struct.pack("<f", 2.0)
    content = (chunk(2, "data"), chunk(3, name), chunk(4, name), number(5, 4), *(chunk(6, item) for item in blobs))
    return chunk(2, b"".join(content) + rates)


def new_layer(name: str, *blobs: bytes) -> bytes:
    """LayerParameter in `layer` (100): name 1, type 2, bottom 3, top 4, blobs 7, phase 10."""
    content = (chunk(1, name), chunk(2, "Convolution"), chunk(3, "data"), *(chunk(7, item) for item in blobs))
    return chunk(100, b"".join(content) + number(10, 0))


KINDS = {"old": old_layer, "new": new_layer}


def network(*layers: bytes) -> bytes:
    """NetParameter: name 1, input 3, input_dim 4, then the layers."""
    return chunk(1, "a network") + chunk(3, "data") + number(4, 10) + number(4, 227) + b"".join(layers)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("style", ["packed", "single", "legacy"])
@pytest.mark.parametrize("form", ["packed", "single", "mixed", "double", "single doubles"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_form_of_a_blob_gives_its_numbers(kind, form, style, tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((5, 3, 2, 130)).astype(np.float32)  # 130: two bytes
    bias = rng.standard_normal(5).astype(np.float32)
    layers = [
        KINDS[kind]("data"),  # a layer without blobs
        KINDS[kind]("conv1", blob(weight, form, style), blob(bias, form, style)),
        KINDS[kind]("relu1"),
    ]
    found = read_caffemodel(written(tmp_path / "net.caffemodel", network(*layers)))
    assert list(found) == ["conv1"]
    np.testing.assert_array_equal(found["conv1"][0], weight)
    expected = bias.reshape(1, 1, 1, 5) if style == "legacy" else bias
    np.testing.assert_array_equal(found["conv1"][1], expected)


SIDES = {"conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3), "conv4": (384, 192, 3, 3),
         "conv5": (256, 192, 3, 3), "fc6": (4096, 256), "fc7": (4096, 4096), "fc8": (10, 4096)}  # fmt: skip
"""The weights of bvlc_alexnet for images of 67 px, whose last maps are 1x1, and 10 classes."""

WORDS = ("model=alexnet_caffe", "data=cifar10", "data.image_size=67", "trainer.accelerator=cpu")


@pytest.fixture(scope="module")
def arrays() -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(1)
    return {
        name: [rng.random(shape, np.float32) - 0.5, rng.random(shape[0], np.float32)] for name, shape in SIDES.items()
    }


def caffemodel(path: Path, arrays: dict[str, list[np.ndarray]], kind: str = "old", style: str = "legacy") -> Path:
    layers = [KINDS[kind](name, *(blob(array, "packed", style) for array in both)) for name, both in arrays.items()]
    return written(path, network(*layers))


@pytest.mark.parametrize(("kind", "style"), [("old", "legacy"), ("new", "packed")])
def test_train_py_starts_from_the_file(kind, style, arrays, tmp_path):
    """Every weight is the file's, and the first kernels turn from blue-green-red to red-green-blue."""
    file = caffemodel(tmp_path / "net.caffemodel", arrays, kind, style)
    started: list[torch.nn.Module] = []

    def task(config: dict[str, Any]) -> None:
        checked = request.checked(config)
        net = build_network(checked)
        starting_weights.load_into(checked, net)
        started.append(net)

    outcome = call(task, "train", *QUICK, *WORDS, f"init_from={file}", f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.err
    found = {name: tensor.numpy() for name, tensor in started[0].state_dict().items()}
    assert len(found) == 2 * len(SIDES)
    for name, (weight, bias) in arrays.items():
        group = "features" if name.startswith("conv") else "classifier"
        expected = weight[:, [2, 1, 0]] if name == "conv1" else weight
        np.testing.assert_array_equal(found[f"{group}.{name}.weight"], expected)
        np.testing.assert_array_equal(found[f"{group}.{name}.bias"], bias)


def small() -> bytes:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    return network(old_layer("conv1", blob(array, "mixed"), blob(array, "single", "legacy")))


def test_a_truncated_file_is_one_error(tmp_path):
    """A file cut anywhere in its only layer is refused."""
    whole, file = small(), tmp_path / "net.caffemodel"
    for size in range(len(whole)):
        with pytest.raises(RunError, match=r"is damaged, or no \.caffemodel: |is no \.caffemodel with weights"):
            read_caffemodel(written(file, whole[:size]))


def test_a_changed_byte_is_an_error_of_ours_or_other_numbers(tmp_path):
    whole, file = small(), tmp_path / "net.caffemodel"
    refused = 0
    for place in range(len(whole)):
        for flip in (0x01, 0x10, 0x80, 0xFF):
            changed = bytearray(whole)
            changed[place] ^= flip
            try:
                read_caffemodel(written(file, bytes(changed)))
            except RunError:
                refused += 1
    assert refused > len(whole)  # a quarter


ONE = np.ones((2, 2), np.float32)

DAMAGED = {
    "an empty file": (b"", "is no .caffemodel with weights"),
    "text": (b"not a protocol buffer", "is damaged, or no .caffemodel: "),
    "without weights": (network(old_layer("conv1")), "is no .caffemodel with weights"),
    "another number of values": (
        network(old_layer("conv1", shape_of(ONE, "packed") + floats(np.ones(3), "packed"))),
        "is damaged, or no .caffemodel: cannot reshape array of size 3 into shape (2,2)",
    ),
    "a side beyond 64 bits": (
        network(new_layer("conv1", chunk(7, number(1, 2**69)) + floats(ONE, "packed"))),
        "is damaged, or no .caffemodel",
    ),
    "a negative side": (
        network(new_layer("conv1", chunk(7, number(1, 2**64 - 1)) + floats(ONE, "packed"))),
        "is damaged, or no .caffemodel",
    ),
    "a number without an end": (b"\xff" * 12, "is damaged, or no .caffemodel: a number is too long"),
    "a name that is no text": (
        network(chunk(2, chunk(4, b"\xff\xfe") + chunk(6, blob(ONE)))), "is damaged, or no .caffemodel",
    ),
    "other layers": (network(old_layer("ip1", blob(ONE), blob(ONE))), "these are not AlexNet's weights: missing conv1"),
    "without biases": (
        network(*(new_layer(name, blob(ONE)) for name in SIDES)),
        "conv1 has 1 arrays, where a weight and a bias are expected",
    ),
    "without axes": (
        network(*(new_layer(name, blob(ONE), blob(ONE)) for name in SIDES)),
        "an array of conv1 has shape (2, 2), where 4 axes are expected",
    ),
    "other sizes": (
        network(*(new_layer(name, blob(np.ones((1,) * len(shape))), blob(np.ones(1)))
                  for name, shape in SIDES.items())),
        "its features.conv1.weight has the shape (1, 1, 1, 1), and this network's (96, 3, 11, 11)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", DAMAGED)
def test_train_py_refuses_what_it_cannot_use_before_it_writes(fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = DAMAGED[fault]
    written(tmp_path / "net.caffemodel", content)

    line = refused(*WORDS, "init_from=net.caffemodel", run_dir=tmp_path / "run").splitlines()[-1]
    assert line.startswith("error: `init_from` is net.caffemodel: ")
    assert message in line


def test_an_unreadable_file_is_one_error(tmp_path):
    with pytest.raises(RunError, match=r"cannot be read: Is a directory"):
        read_caffemodel(tmp_path)
