"""Each network of configs/model as an ONNX file: the same logits, for one image and for three."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from alexnet_lab.base.errors import RunError
from alexnet_lab.data.channel_statistics import Statistics
from alexnet_lab.data.recorded import RecordedDataModule
from alexnet_lab.export import onnx_file, torch_file
from alexnet_lab.export.command import difference
from alexnet_lab.export.served import Served
from alexnet_lab.models import zoo

DESCRIPTION = {"class_names": ["a", "b"], "run": "none", "versions": {"alexnet_lab": "1.2.3"}}

NAMES = [name for name in zoo.names() if name != "alexnet_seed001"]  # which 32 px cannot feed, as published


def built(name: str, **overrides: Any) -> tuple[Any, RecordedDataModule]:
    """A narrow version of a network, and data that are stored 8 px larger, with a random mean image."""
    torch.manual_seed(0)
    narrow = {"width": 0.0625} if "width" in zoo.read(name) else {}
    net = zoo.build(name, narrow | overrides).eval()
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):  # a fresh one is nearly the identity
                layer.get_buffer("running_mean").normal_()
                layer.get_buffer("running_var").uniform_(0.5, 2.0)
    channels, size, _ = zoo.published(name).shape
    rng, stored = np.random.default_rng(0), size + 8
    mean = rng.uniform(0, 255, (channels, stored, stored)).astype(np.float32)
    spread = np.full(channels, 50.0)
    statistics = Statistics(mean, mean.mean((1, 2)).astype(np.float64), spread, spread, np.eye(channels))
    fields = {
        "channels": channels, "image_size": size, "stored_size": stored, "num_classes": zoo.published(name).classes,
        "normalization": "unit" if name == "lenet5_1998" else "mean_image",
    }  # fmt: skip
    return net, RecordedDataModule.of(fields, None, class_names=[], statistics=statistics)


def compared(net: Any, data: RecordedDataModule, writer: Any, path: Any, **options: Any) -> float:
    """The largest difference of the logits of a written network, for 1 and for 3 images."""
    run: Any = SimpleNamespace(net=net, data=data)
    writer.write(Served(run), DESCRIPTION, path, **options)
    statistics, side = data.transform.statistics, data.image_size
    mean = statistics.mean_image[:, 4 : 4 + side, 4 : 4 + side] if data.normalization == "mean_image" else 0.0
    scale = 1.0 if data.normalization == "mean_image" else 255.0
    worst = []
    for count in (1, 3):
        shape = (count, data.channels, data.stored_size, data.stored_size)
        pixels = np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
        inputs = (pixels[:, :, 4 : 4 + side, 4 : 4 + side].astype(np.float32) - mean) / scale
        with torch.no_grad():
            wanted = net(torch.from_numpy(inputs)).numpy()
        worst.append(difference(writer.logits(path, pixels), wanted))
    return max(worst)


NORMS = {  # alpha is that of the plain sum times the window's size
    "alexnet": [(5e-4, 0.75, 2.0, 5)] * 2,
    "alexnet_caffe": [(1e-4, 0.75, 1.0, 5)] * 2,
    "alexnet_code2012": [(1e-4, 0.75, 2.0, 5)] * 4,  # of each tower by itself
    "cuda_convnet_11pct": [(1e-3, 0.75, 1.0, 9)] * 2,
}


def norms(path: Any) -> list[tuple[float, ...]]:
    """Alpha, beta, bias and size of each operator LRN."""
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "LRN"]
    found = [{item.name: onnx.helper.get_attribute_value(item) for item in node.attribute} for node in nodes]
    return [tuple(constants[name] for name in ("alpha", "beta", "bias", "size")) for constants in found]


@pytest.mark.parametrize("name", NAMES)
def test_onnx_gives_the_logits_of_torch(name, tmp_path):
    path = tmp_path / "net.onnx"
    assert compared(*built(name), onnx_file, path) <= 1e-5
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert b"site-packages" not in path.read_bytes()
    (pixels,) = model.graph.input
    channels, side, _ = zoo.published(name).shape
    dimensions = [found.dim_param or found.dim_value for found in pixels.type.tensor_type.shape.dim]
    assert (pixels.name, dimensions) == ("pixels", ["batch", channels, side + 8, side + 8])
    if name in NORMS:
        assert norms(path) == [pytest.approx(constants) for constants in NORMS[name]]


@pytest.mark.parametrize("name", ["alexnet_code2012", "cuda_convnet_11pct", "lenet5_1998"])
def test_torch_export_gives_the_logits_of_torch(name, tmp_path):
    assert compared(*built(name), torch_file, tmp_path / "net.pt2") <= 1e-5


@pytest.mark.parametrize("name", NORMS)
def test_the_response_norm_as_a_convolution(name, tmp_path):
    path = tmp_path / "net.onnx"
    assert compared(*built(name), onnx_file, path, response_norm="convolution") <= 1e-5
    assert norms(path) == []


def test_a_window_of_even_size_is_no_operator(tmp_path):
    """ONNX's window would reach one map too far up."""
    assert compared(*built("alexnet", lrn_size=4, lrn_alpha=1e-3), onnx_file, tmp_path / "net.onnx") <= 1e-5
    assert norms(tmp_path / "net.onnx") == []


def test_weights_beyond_the_formats_limit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST", 1000)
    net, data = built("lenet5")
    run: Any = SimpleNamespace(net=net, data=data)
    with pytest.raises(RunError, match=r"has 0\.0 GiB of weights, but an ONNX file holds at most 2 GiB; set format="):
        onnx_file.write(Served(run), DESCRIPTION, tmp_path / "net.onnx")


class Undecided(torch.nn.Module):
    """Its operations depend on the pixels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :10] if float(images.sum()) > 0 else images.flatten(1)[:, 10:20]


def test_a_network_that_cannot_be_traced_is_refused_in_one_line(tmp_path):
    run: Any = SimpleNamespace(net=Undecided(), data=built("lenet5")[1])
    with pytest.raises(RunError, match="torch cannot export the network: ") as raised:
        torch_file.write(Served(run), DESCRIPTION, tmp_path / "net.pt2")
    assert len(str(raised.value)) < 400
    assert "\n" not in str(raised.value)
