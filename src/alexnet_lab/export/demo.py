"""format=demo: a page to draw on. It computes a LeNet-5 in plain JavaScript and shows the maps of each layer."""

from __future__ import annotations

from importlib import resources
from typing import Any

from jinja2 import Environment

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.html import json_in_script, policy
from alexnet_lab.evaluation.predict import Predictor
from alexnet_lab.export.demo_layers import Numbers, network_layers
from alexnet_lab.export.description import metrics_of, name_of, whole_test_set
from alexnet_lab.models import LeNet5, LeNet51998
from alexnet_lab.models.counts import num_parameters

MNIST_FRAME = {"box": 20 / 28, "by_mass": True}
"""MNIST's digits were scaled to 20 pixels of 28, and their centre of mass put into the middle (LeCun et al. 1998)."""

FRAMES = {"alexnet_lab.data.DigitsDataModule": {"box": 1.0, "by_mass": False}}
"""How drawings are placed, by data module, where it is not MNIST's way: box is the share of the side that they fill."""


def demo_page(run: Predictor) -> str:
    """The page of a run, as one file.

    Raises:
        ConfigError: The network is no LeNet-5, or its images have colours.
    """
    net, data = run.net, run.data
    if not isinstance(net, LeNet5 | LeNet51998):
        raise ConfigError(
            f"format=demo shows LeNet-5 (model=lenet5, lenet5_1998 and their variants), but {run.path} has "
            f"{run.settings.model['_target_']}; set format=onnx"
        )
    if data.channels != 1:
        raise ConfigError(f"format=demo draws in grey, but {run.path} has images of {data.channels} colours")
    numbers = Numbers()
    layers = [*_input_layers(run, numbers), *network_layers(net, numbers)]
    frame = FRAMES.get(run.settings.data["_target_"], MNIST_FRAME)
    mean = data.transform.statistics.mean_image[0]
    light = float((mean[0].mean() + mean[-1].mean()) / 2) > 255 / 2  # the upper and the lower border
    network = {
        "side": data.stored_size, "classes": data.class_names, "inverted": light, **frame, "layers": layers,
        "numbers": numbers.encoded(),
    }  # fmt: skip
    style, script = _asset("demo.css"), _asset("demo.js")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_asset("demo.html")).render(
        network=json_in_script(network),
        run=name_of(run),
        parameters=num_parameters(net),
        accuracy=_accuracy(run),
        box=round(frame["box"] * data.stored_size),
        by_mass=frame["by_mass"],
        side=data.stored_size,
        digits=data.class_names == list("0123456789"),
        style=style,
        script=script,
        policy=policy([script], style),
    )  # fmt: skip


def _asset(name: str) -> str:
    return (resources.files("alexnet_lab.export") / "assets" / name).read_text(encoding="utf-8")


def _accuracy(run: Predictor) -> str:
    """The test accuracy in words; empty if it is not known."""
    error = metrics_of(run).get("test/top1_error")
    if error is None:
        return ""
    number = whole_test_set(run)
    images = "some test images" if number is None else f"the {number:,} test images"
    return f"It recognises {100 * (1 - error):.2f} % of {images}, which it was not trained on."


def _input_layers(run: Predictor, numbers: Numbers) -> list[dict[str, Any]]:
    """From stored pixels to the network's input: centre crop, normalisation, enlargement."""
    transform = run.data.transform
    geometry, normalizer = transform.geometry(training=False), transform.normalizer()
    mean = normalizer.mean.expand(1, geometry.side, geometry.side)
    layers: list[dict[str, Any]] = [
        {"kind": "crop", "start": geometry.centre, "side": geometry.side},
        {"kind": "normalize", "mean": numbers.add(mean), "scale": float(normalizer.scale)},
    ]
    if geometry.image_size != geometry.side:
        layers.append({"kind": "enlarge", "side": geometry.image_size})
    return layers
