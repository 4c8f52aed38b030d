"""Figures: what they show, from made-up data; and all of them from a real run, as files that can be opened."""

from __future__ import annotations

import shutil
import typing
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from evaluating import another_run, run_eval, seal
from PIL import Image

import alexnet_lab
from alexnet_lab.base.errors import ConfigError
from alexnet_lab.config import check_evaluate
from alexnet_lab.config.schema import Evaluate
from alexnet_lab.config.schema import Figure as FigureName
from alexnet_lab.evaluation import evaluate, gallery
from alexnet_lab.evaluation.augmentation_steps import single_factors
from alexnet_lab.evaluation.error_rates import reliability
from alexnet_lab.evaluation.figures import network, predictions, registry, retrieval_figures, style, training
from alexnet_lab.evaluation.figures.architecture import architecture_figure
from alexnet_lab.evaluation.figures.registry import FIGURES
from alexnet_lab.evaluation.kernels import Kernels
from alexnet_lab.evaluation.layer_outputs import activation_curves
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.models import AlexNet, LeNet5, LeNet51998
from alexnet_lab.models.layer_table import layer_rows
from alexnet_lab.run import train

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def texts(figure: Figure) -> list[str]:
    """All that is written in a figure."""
    figure.canvas.draw()
    found = figure.findobj(lambda item: hasattr(item, "get_text"))
    return [item.get_text() for item in found if item.get_text()]  # pyright: ignore[reportAttributeAccessIssue]


def image(channels: int = 3, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (channels, side, side), dtype=np.uint8)


def test_config_names_the_figures_that_there_are():
    assert typing.get_args(FigureName) == tuple(FIGURES)
    assert Evaluate(run="x", figures="all").figures == "all"


@pytest.mark.parametrize("wanted", ["kernel", ["kernel"], ["confusion", 3]])
def test_unknown_figure(wanted):
    with pytest.raises(ConfigError, match=r"`figures(\.\d)?` is .*'confusion', .*'kernels'"):
        check_evaluate({"run": "x", "figures": wanted})


def test_matplotlib_is_imported_only_where_figures_are_made():
    """And pyplot nowhere: it would want a screen."""
    source = Path(alexnet_lab.__file__).parent
    users = {path for path in source.rglob("*.py") if "import matplotlib" in (text := path.read_text()) or
             "from matplotlib" in text}  # fmt: skip
    assert {path.parent.name for path in users} <= {"figures", "report"}
    assert not any("import pyplot" in path.read_text() or "matplotlib.pyplot" in path.read_text() for path in users)
    lazy = (source / "evaluation" / "evaluate.py").read_text()
    assert "        from alexnet_lab.evaluation.figures" in lazy
    assert "\nfrom alexnet_lab.evaluation.figures" not in lazy


@pytest.fixture(scope="module")
def drawn(digits_run, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """All figures of the small finished run."""
    run = shutil.copytree(digits_run, tmp_path_factory.mktemp("drawn") / "run")
    return run, run_eval(run, figures="all")


@pytest.mark.parametrize("name", FIGURES)
def test_all_figures_of_a_run(name, drawn):
    run, found = drawn
    assert f"figures/{name}.png" in found["figures"]
    with Image.open(run / "eval" / "figures" / f"{name}.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert min(pixels.shape) > 200
    assert pixels.max() == 255  # on white
    assert pixels.std() > 5
    svg = ET.parse(run / "eval" / "figures" / f"{name}.svg").getroot()
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"


def test_retrieval_reports_its_numbers(drawn):
    numbers = drawn[1]["retrieval"]
    assert numbers["queries"] == 359
    assert set(numbers["precision_by_features"]) == {"1", "2", "5", "10", "20", "50", "100"}
    assert numbers["precision_by_features"]["1"] > 0.8
    assert drawn[1]["codes"]["precision_by_codes"]["10"] > 0.6


def test_retrieval_among_few_images(run, monkeypatch):
    monkeypatch.setattr(gallery, "MOST_GALLERY", 7)
    found = run_eval(run, figures="retrieval")
    assert found["retrieval"]["gallery"] == 7
    assert {row["metric"] for row in found["comparisons"]} == {"precision_at_5"}


def test_figures_are_the_same_bytes_each_time(run, tmp_path):
    run_eval(run, figures=["confusion", "kernels"])
    folder = run / "eval" / "figures"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    run_eval(run, figures=["kernels", "confusion"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert set(first) == {"confusion.png", "confusion.svg", "kernels.png", "kernels.svg"}


def test_other_evaluations_have_folders_of_their_own(run):
    found = run_eval(run, figures="confusion", split="val")
    assert found["figures"] == ["figures/val_center/confusion.png", "figures/val_center/confusion.svg"]


def test_kernels_say_their_towers_saturations():
    pattern = np.random.default_rng(0).standard_normal((20, 1, 5, 5)).astype(np.float32)
    grey, colour = pattern.repeat(3, axis=1), pattern * np.array([1, -1, 0], dtype=np.float32)[:, None, None]
    words = texts(network.kernels_figure(Kernels([grey, colour])))
    assert "tower 1: 20 kernels, mean colour saturation 0.00" in words
    assert "tower 2: 20 kernels, mean colour saturation 1.00" in words
    assert "First layer: 40 kernels of 5x5 pixels; the towers' saturations differ with p <0.001" in words


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_kernels_of_any_depth(channels):
    weights = np.random.default_rng(0).standard_normal((7, channels, 5, 5)).astype(np.float32)
    words = texts(network.kernels_figure(Kernels([weights])))
    assert ("saturation" in " ".join(words)) == (channels == 3)


def test_mosaic_keeps_every_tile():
    tiles = np.arange(5 * 4 * 3, dtype=np.float32).reshape(5, 2, 2, 3) / np.float32(60)
    canvas = network.mosaic(tiles, 3)
    assert canvas.shape == (5, 8, 3)
    assert np.array_equal(canvas[3:5, 3:5], tiles[4])
    assert (canvas[:, 2] == 1).all()


def test_confusion_shows_each_number_and_name():
    words = texts(predictions.confusion_figure([[12, 3], [0, 77]], ["cat $x$", "dog"], "T"))
    assert {"12", "3", "77", "cat $x$", "dog", "T"} <= set(words)
    assert "0" not in words[: words.index("T")]


@pytest.mark.parametrize("classes", [2, 30, 150])
def test_confusion_of_many_classes(classes):
    names = [f"class {index} {'long' * 20}" for index in range(classes)]
    words = texts(predictions.confusion_figure(np.eye(classes, dtype=int).tolist(), names, "T"))
    assert any("class 1" in word for word in words) == (classes <= 100)


def test_reliability_bars_are_the_accuracies():
    probabilities = torch.tensor([[0.9, 0.1], [0.95, 0.05], [0.6, 0.4], [0.3, 0.7]])
    figure = predictions.reliability_figure(reliability(probabilities, torch.tensor([0, 1, 0, 1]), 10), "T")
    bars = [(bar.get_x(), bar.get_height()) for bar in figure.axes[0].patches]  # pyright: ignore[reportAttributeAccessIssue]
    assert bars == [pytest.approx(pair) for pair in ((0.6, 1.0), (0.7, 1.0), (0.9, 0.5))]


def test_sheets_name_classes_and_probabilities():
    shown = predictions.Shown(image(), "ship", ["truck", "ship"], [0.97, 0.02])
    words = texts(predictions.mistakes_figure([shown] * 3, "T"))
    assert words.count("truck 97%") == words.count("ship") == 3
    words = texts(predictions.top5_figure([shown, shown._replace(label=None)], "T"))
    assert words.count("97%") == 2
    assert words.count("?") == 1


def test_no_mistake_is_no_error():
    assert texts(predictions.mistakes_figure([], "none")) == ["none"]


def test_retrieval_marks_other_classes():
    found = [(image(), "ship"), (image(), "cassette player")]
    figure = retrieval_figures.retrieval_figure(
        [retrieval_figures.Query(image(), "ship", found, found)], "T", ("F", "P")
    )
    words = texts(figure)
    assert words.count("ship") == 3
    assert words.count("cassette player") == 2


def test_the_column_of_the_run_shows_its_transforms_too(compose, tmp_path):
    words = (
        "augment=none",
        "+transforms.invert._target_=torchvision.transforms.v2.RandomInvert",
        "trainer.max_steps=1",
    )
    train(compose(f"run_dir={tmp_path / 'run'}", *words, "+transforms.invert.p=1.0"))
    shown = single_factors(FinishedRun(str(tmp_path / "run"), num_threads=1), 3)
    assert len(shown["unchanged"]) == 3
    for plain, seen in zip(shown["unchanged"], shown["all of this run"], strict=True):
        assert np.array_equal(seen, 255 - plain)


def test_augmentation_has_a_column_for_each_factor():
    words = texts(training.augmentation_figure({"as stored": [image()] * 2, "cropped": [image(1)] * 2}, "T"))
    assert words == ["as stored", "cropped", "T"]


def test_training_error_says_when_a_quarter_is_reached():
    curves = [("relu", [(1, 0.5), (2, 0.25), (3, 0.1)]), ("tanh", [(1, 0.6), (2, 0.5)])]
    words = texts(training.training_error_figure(curves, "T"))
    assert "relu: 2 epochs to 25%" in words
    assert "tanh: never 25%" in words


def test_training_error_of_one_epoch_has_no_broken_epochs():
    (axes,) = training.training_error_figure([("relu", [(1, 0.5)])], "T").axes
    assert all(tick == round(tick) for tick in axes.get_xticks())


def test_runs_of_one_name_have_a_training_error_each(run, tmp_path):
    other = another_run(run, tmp_path / "elsewhere" / "run")
    subject = evaluate.predicted(check_evaluate({"run": [str(run), str(other)], "num_threads": 1}))
    drawn = FIGURES["training_error"].make(registry.FigureInputs(subject))
    assert len(drawn.figure.axes[0].get_legend_handles_labels()[1]) == 2


def test_all_figures_leave_out_what_cannot_be_drawn(run, monkeypatch, capsys):
    path = run / "metrics.csv"
    path.write_text(path.read_text().replace("train/top1_error", "train/other"))
    seal(run)
    monkeypatch.setattr(registry, "FIGURES", {name: FIGURES[name] for name in ("activations", "training_error")})
    assert run_eval(run, figures="all")["figures"] == [f"figures/activations.{kind}" for kind in ("png", "svg")]
    assert "no figure training_error: " in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"figures=training_error: .* contains no training errors"):
        run_eval(run, figures="training_error")


def test_activation_curves_are_functions_and_slopes():
    x, curves = activation_curves()
    values, slopes = curves["tanh"]
    assert values == pytest.approx(np.tanh(x), abs=1e-6)
    assert slopes == pytest.approx(1 - np.tanh(x) ** 2, abs=1e-6)
    assert curves["relu"][1][x > 0.01].tolist() == [1.0] * 199 + [1.0]
    sigmoid = 1 / (1 + np.exp(-x))
    assert curves["sigmoid"][1] == pytest.approx(sigmoid * (1 - sigmoid), abs=1e-6)


def test_glyphs_that_the_font_lacks_are_no_error(tmp_path):
    with style.styled():
        figure = predictions.confusion_figure([[1]], ["鯉"], "T")
    assert [path.name for path in style.save(figure, tmp_path, "x")] == ["x.png", "x.svg"]


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        (["top5", "feature_maps"], r"figures=feature_maps shows one network; give one run"),
        ("augmentation", r"figures=augmentation shows one network"),
        ("kernels", r"figures=kernels of several runs compares two towers .*/run has one tower; give one run"),
    ],
)
def test_figures_of_one_network_are_not_made_of_several(figures, message, run, tmp_path):
    other = another_run(run, tmp_path / "other")
    with pytest.raises(ConfigError, match=message):
        run_eval([str(run), str(other)], figures=figures)
    assert not (run / "eval").exists()


def test_figures_that_need_classes(run, tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    Image.fromarray(image(1)[0]).save(folder / "a.png")
    with pytest.raises(ConfigError, match="figures=confusion needs the classes of the images"):
        run_eval(run, figures="confusion", data={"root": str(folder)})
    monkeypatch.setattr(registry, "FIGURES", {name: FIGURES[name] for name in ("confusion", "top5")})
    found = run_eval(run, figures="all", data={"root": str(folder)})
    assert found["figures"] == [f"figures/own_mine_center/top5.{kind}" for kind in ("png", "svg")]
    monkeypatch.chdir(folder)
    subject = evaluate.predicted(check_evaluate({"run": str(run), "num_threads": 1, "data": {"root": "."}}))
    assert registry.FigureInputs(subject).title == "run, mine"
    assert [path.name for path in (run / "eval" / "predictions").iterdir()] == ["own_mine_center.npz"]


def test_ensemble_of_two_runs(run, digits_run, tmp_path, compose):
    other = shutil.copytree(digits_run, tmp_path / "other")
    path = other / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["net.classifier.output.bias"][3] += 5.0
    torch.save(checkpoint, path)
    seal(other)
    found = run_eval([str(run), str(other)], figures=["confusion", "training_error"])
    single = [run_eval(one)["metrics"]["test/top1_error"] for one in (run, other)]
    assert found["single_metrics"]["test/top1_error"] == pytest.approx(sum(single) / 2)
    assert found["runs"] == ["run", "other"]
    assert (run / "eval" / "ensemble_of_2_test_center.json").is_file()
    assert (run / "eval" / "figures" / "ensemble_of_2_test_center" / "confusion.svg").is_file()


@pytest.mark.parametrize(
    ("net", "shape", "blocks"),
    [
        (LeNet5(), (1, 28, 28), "image c1 s2 c3 s4 c5 f6 output"),
        (LeNet51998(), (1, 28, 28), "image c1 s2 c3 s4 c5 f6 output"),
        (
            AlexNet(num_classes=10, image_size=64, width=0.125),
            (3, 64, 64),
            "image conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5 fc6 fc7 fc8",
        ),
    ],
)
def test_architecture_has_a_block_for_each_layer_with_its_size(net, shape, blocks):
    rows = layer_rows(net, shape)
    drawn = architecture_figure(rows, shape, "title")
    labels = [text.get_text().split("\n") for text in drawn.axes[0].texts]
    assert " ".join(label[0] for label in labels) == blocks
    sizes = {row.name.rpartition(".")[2]: "x".join(map(str, row.output)) for row in rows} | {
        "image": "x".join(map(str, shape))
    }
    assert [label[1] for label in labels] == [sizes[label[0]] for label in labels]


def test_architecture_shows_both_sides_of_a_window_that_is_not_square():
    rows = layer_rows(torch.nn.Sequential(torch.nn.Conv2d(3, 4, (1, 7), stride=(1, 2))), (3, 8, 8))
    drawn = architecture_figure(rows, (3, 8, 8), "title")
    assert drawn.axes[0].texts[1].get_text() == "0\n4x8x1\n1x7, stride 1x2"
