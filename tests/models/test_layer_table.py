# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportOptionalMemberAccess=false, reportIndexIssue=false, reportOperatorIssue=false
# (torch types every sub-module as Tensor | Module)
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alexnet_lab.models.__main__ import main
from alexnet_lab.models.layer_table import document, layer_rows, layer_table
from alexnet_lab.models.zoo import build

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


def rows(name, **overrides):
    with torch.device("meta"):
        net = build(name, overrides)
    shape = getattr(net, "input_shape", (3, 64, 64))
    return {row.name.rpartition(".")[2]: row for row in layer_rows(net, shape)}


def test_document_is_what_the_networks_say():
    """A model that was added is missing until the page is regenerated; existing rows are correct."""
    rows, derived = DOCUMENT.read_text(encoding="utf-8").splitlines(), document().splitlines()
    assert set(rows) <= set(derived), "regenerate it: python -m alexnet_lab.models --markdown > docs/models.md"
    assert len(rows) >= 33


def test_rows_of_alexnet():
    table = rows("alexnet")
    conv1 = table["conv1"]
    assert (conv1.window.kernel, conv1.window.stride, conv1.window.padding) == (11, 4, 0)
    assert conv1.output == (96, 55, 55)
    assert (conv1.parameters, conv1.macs, conv1.memory) == (34_944, 105_415_200, 4 * 96 * 55 * 55)
    assert table["fc6"].output == (4096,)
    assert table["fc6"].receptive_field is None


def test_receptive_fields_of_alexnet():
    """Each window of k pixels adds (k - 1) times the product of the strides before it."""
    table = rows("alexnet")
    fields = [
        table[name].receptive_field for name in ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
    ]
    assert fields == [11, 19, 51, 67, 99, 131, 163, 195]


@pytest.mark.parametrize("name", ["pool1", "conv2", "pool2", "conv5"])
def test_receptive_field_is_what_the_gradient_reaches(name):
    torch.manual_seed(0)
    net = build("alexnet", {"width": 1 / 16, "image_size": 224, "activation": "tanh", "norm": "none"})
    for layer in net.weighted_layers().values():
        torch.nn.init.normal_(layer.weight, 0, 1 / layer.weight[0].numel() ** 0.5)
    for pool in ("pool1", "pool2"):  # an average lets every pixel through, a maximum one
        setattr(net.features, pool, torch.nn.AvgPool2d(3, 2))
    images = torch.randn(1, 3, 224, 224, requires_grad=True)
    x = images
    for step, layer in net.features.named_children():
        x = layer(x)
        if step == name:
            break
    middle = x.shape[-1] // 2
    (gradient,) = torch.autograd.grad(x[0, :, middle, middle].sum(), images)
    touched = gradient[0].abs().sum(0).nonzero()
    reached = (touched.max(0).values - touched.min(0).values + 1).tolist()
    expected = rows("alexnet", norm="none")[name].receptive_field
    assert reached == [expected, expected]


def test_totals_of_the_table():
    with torch.device("meta"):
        net = build("alexnet")
    last = layer_table(net, (3, 224, 224)).splitlines()[-1].split()
    assert last[:6] == ["total", "image", "3", "x", "224", "x"]
    assert "60,965,224" in last
    assert "724,406,816" in last


@pytest.mark.parametrize(
    ("name", "trainable", "not_trainable"),
    [
        ("alexnet_bn", "178.59 MiB 46,815,312", "0.01 MiB 2,752"),  # as Keras prints it, in its own unit, for seed 004
        ("lenet5_1998", "0.23 MiB 60,000", "0.00 MiB 840"),  # the bitmaps of the ten digits, 7x12
    ],
)
def test_trainable_and_other_numbers_of_the_table(name, trainable, not_trainable):
    with torch.device("meta"):
        net = build(name)
    lines = [" ".join(line.split()) for line in layer_table(net, net.input_shape).splitlines()]
    assert lines[-3:-1] == [f"trainable {trainable}", f"not trainable {not_trainable}"]


def test_every_layer_of_lenet_1998_and_of_the_local_net_has_its_window():
    windows = {name: row.window for name, row in (rows("lenet5_1998") | rows("cuda_convnet_11pct")).items()}
    assert [tuple(windows[name]) for name in ("c1", "s2", "c3", "local3")] == [
        (5, 1, 0),
        (2, 2, 0),
        (5, 1, 0),
        (3, 1, 1),
    ]
    assert tuple(rows("cuda_convnet_18pct")["norm1"].window) == (3, 1, 1)


def test_command_prints_the_table(capsys):
    assert main(["alexnet", "image_size=32", "num_classes=10", "width=0.5"]) == 0
    out = capsys.readouterr().out
    assert "features.conv1" in out
    assert "7,156,938" in out


def test_command_prints_the_document(capsys):
    assert main(["--markdown"]) == 0
    assert capsys.readouterr().out == document()


def test_torchvision_has_no_receptive_fields(capsys):
    assert main(["torchvision", "name=squeezenet1_1", "image_size=64"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "Conv2d" in line)
    assert line.split()[-2] == "-"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["alexnt"], "error: unknown model=alexnt; did you mean `alexnet`?"),
        (["alexnet", "nrom=none"], "error: unknown field `nrom` of model=alexnet; did you mean `norm`?"),
        (["alexnet", "norm"], "error: `norm` is no field=value, such as image_size=32"),
        (["alexnet", "norm=lnr"], "error: `norm` is 'lnr' (str); allowed: 'lrn', 'none' or 'batch'"),
        (["alexnet_seed001"], "leaves 6>2>nothing of 32 px (at pool2)"),
        (["lenet5_1998", "in_channels=3"], "reads grey images"),
        (["alexnet", "maps=[1"], "error: `maps=[1` cannot be read: while parsing a flow sequence"),
        (["alexnet", "width=${x}"], "error: `width=${x}` cannot be read: Interpolation key 'x' not found"),
        (["alexnet", "[1=2"], "error: `[1=2` is no field=value, such as image_size=32"),
        (["alexnet", "image_size=100000000", "stem=published", "init=paper"], "cannot be built for images of 3 x 1000"),
        (["alexnet", "maps.0=5"], "error: `maps.0=5` cannot be read: Cannot merge"),
    ],
)
def test_wrong_requests_are_one_line_and_exit_with_2(words, message, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_without_a_model_it_shows_how(capsys):
    assert main([]) == 2
    assert "alexnet_code2012" in capsys.readouterr().out


def test_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "alexnet_lab.models", "lenet5"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "61,706" in done.stdout.splitlines()[-1]
    assert done.stderr == ""


def test_the_layers_of_a_run_are_those_of_its_config(digits_run, capsys):
    assert main([f"run={digits_run}"]) == 0
    assert "61,706" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("config", "words", "message"),
    [
        (None, [], "is no run directory: it has no config.yaml"),
        ("model: 3", [], "`model` is 3 (int); allowed: a record of fields"),
        ("model: {}", [], "`data` is missing"),
        ("model: {_target_: os.system}\ndata: {channels: 1, image_size: 8}", [], "os.system"),
        ("model: {}\ndata: {channels: 1, image_size: -8}", [], "`data.image_size` is -8 (int)"),
        ("model: {}", ["norm=none"], "`norm=none` cannot change the network of a run"),
    ],
)
def test_what_is_no_run_is_one_line(config, words, message, tmp_path, capsys):
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
    assert main([f"run={tmp_path}", *words]) in (1, 2)
    captured = capsys.readouterr()
    assert message in captured.err
    assert (captured.err.count("\n"), captured.out) == (1, "")


def test_a_reader_who_leaves_early_sees_no_traceback():
    line = f"{sys.executable} -m alexnet_lab.models alexnet | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("layer")


@pytest.mark.parametrize(
    ("padding", "kernel", "pixels"),
    [("same", 3, 1), ("same", 5, 2), ("valid", 3, 0), (1, 3, 1), ((0, 3), (1, 7), (0, 3)), ("same", (1, 7), (0, 3))],
)
def test_padding_may_be_named_as_in_torch(padding, kernel, pixels):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, kernel, padding=padding))
    assert layer_rows(net, (3, 8, 8))[0].window == (kernel, 1, pixels)
    cells = layer_table(net, (3, 8, 8)).splitlines()[1].split()
    assert cells[2:5] == [str(value).strip("()").replace(", ", "x") for value in (kernel, 1, pixels)]
