"""What only a GPU that computes can show: `make test-gpu`, in under ten minutes. Skipped without one."""

from __future__ import annotations

import copy
import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import QUICK, Outcome, command, finished

from alexnet_lab.data.augment import KERNELS, AugmentParams, Geometry, apply
from alexnet_lab.data.loader import RawBatch, gpu_reader, on_gpu
from alexnet_lab.data.normalize import Normalizer
from alexnet_lab.models.layers import Conv2d, response_norm
from alexnet_lab.models.layers.fused import Constants, Triton
from alexnet_lab.models.layers.response_norm import Plain, local_response_norm
from alexnet_lab.training.checkpoint_io import load_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

MODULES = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
"""Where disturbances.py is found, and this package where it is not installed."""

GPUS = torch.cuda.device_count()
ACCELERATOR = "gpu"
COUNTS = [pytest.param(n, marks=pytest.mark.skipif(n > GPUS, reason=f"there are {GPUS} GPUs")) for n in (1, 2, 4)]
TWO = COUNTS[1:2]

PAPER = Constants(5, 1e-4, 0.75, 2.0, 1)
SHAPE = (64, 96, 27, 27)  # above `LEAST_NUMBERS`


@pytest.mark.parametrize(("size", "padding"), [(224, 0), (32, 4)])
def test_views_have_the_bits_of_the_cpu(size, padding):
    rng = np.random.default_rng(0)
    stored = size if padding else size + 32
    images = torch.from_numpy(rng.integers(0, 256, (32, 3, stored, stored), dtype=np.uint8))
    geometry = Geometry(stored, size, padding)
    top, left = (torch.from_numpy(rng.integers(0, geometry.room + 1, 32)) for _ in range(2))
    shift = torch.from_numpy(rng.normal(0, 20, (32, 3)).astype(np.float32))
    draws = AugmentParams(top, left, torch.from_numpy(rng.random(32) < 0.5), shift, 1 / 1.1)
    normalizer = Normalizer(torch.full((3, 1, 1), 117.3), torch.full((3, 1, 1), 1 / 58.4))
    labels = torch.arange(32)
    there = on_gpu(RawBatch(images, labels, labels, 32, draws), torch.device("cuda"))
    views = apply(there.images, there.draws, geometry, normalizer.to(torch.device("cuda")))
    assert not KERNELS.broken
    assert torch.equal(views.cpu(), apply(images, draws, geometry, normalizer))


def test_batches_that_a_thread_copies_arrive_whole():
    gpu, rng = torch.device("cuda"), np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 64, 3, 64, 64), dtype=np.uint8)

    def read(number: int) -> RawBatch:
        pinned = torch.from_numpy(images[number]).pin_memory()
        return RawBatch(pinned, torch.full((64,), number), torch.arange(64), 64, None)

    reader = gpu_reader(read, gpu)
    for number in range(40):
        batch = reader(number).ready()
        assert torch.equal(batch.images.cpu(), torch.from_numpy(images[number]))
        assert batch.labels.tolist() == [number] * 64


TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""A share of the largest value: half a unit in the last place, where that is larger than the formula's own error."""


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("constants", [PAPER, Constants(5, 1e-4, 0.75, 1.0, 2), Constants(4, 1e-3, 0.6, 2.0, 1)])
def test_response_norm_in_triton_equals_the_formula_in_float64(constants, dtype, layout):
    generator = torch.Generator("cuda").manual_seed(0)
    x, slope = (
        (60 * torch.randn(SHAPE, generator=generator, device="cuda")).to(dtype).contiguous(memory_format=layout)
        for _ in range(2)
    )
    form, exact = Triton(), Plain()
    assert form.suits(x, constants)
    pairs = (
        (form.forward(x, constants), exact.forward(x.double(), constants)),
        (form.backward(x, slope, constants), exact.backward(x.double(), slope.double(), constants)),
    )
    assert not form.kernels.broken
    for ours, true in pairs:
        assert ours is not None
        assert ours.stride() == x.stride()
        assert ((ours - true).abs() <= 1.1 * TOLERANCE[dtype] * true.abs().max()).all()


def test_response_norm_compiles_once_for_a_shape_and_any_batch():
    kernels = pytest.importorskip("alexnet_lab.models.layers.norm_kernels")

    def compiled() -> int:
        all_four = (
            kernels.norm_kernel, kernels.gradient_kernel, kernels.strip_norm_kernel, kernels.strip_gradient_kernel
        )  # fmt: skip
        return sum(len(caches[0]) for kernel in all_four for caches in kernel.device_caches.values())

    def step(batch: int) -> None:
        x = torch.randn(batch, 96, 55, 55, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        response_norm.local_response_norm(x).sum().backward()

    step(128)
    after_first = compiled()
    for batch in (127, 64, 33):
        step(batch)
    assert compiled() == after_first


@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")  # torch 2.11 suggests it when it compiles
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # by torch 2.11, which uses it
def test_response_norm_of_a_compiled_network_runs_the_same_kernels():
    x = torch.randn(SHAPE, device="cuda", generator=torch.Generator("cuda").manual_seed(0)).requires_grad_()
    results = []
    for norm in (local_response_norm, torch.compile(local_response_norm, fullgraph=True)):
        out = norm(x)
        results.append([out, *torch.autograd.grad(out, x, torch.ones_like(out))])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("layer", [Conv2d(3, 96, 11, stride=4), Conv2d(96, 256, 5, padding=2, groups=2)])
def test_convolution_in_half_precision_is_that_of_float64(layer):
    layer = copy.deepcopy(layer).cuda().to(memory_format=torch.channels_last)
    x = (
        torch.randn(8, layer.in_channels, 63, 63, device="cuda")
        .bfloat16()
        .contiguous(memory_format=torch.channels_last)
    )
    slope = torch.randn_like(layer(x.float()))

    def results(layer: torch.nn.Module, x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        x = x.detach().requires_grad_()
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float64):
            out = layer(x)
        return out, *torch.autograd.grad(out, (x, *layer.parameters()), slope.to(out.dtype))

    ours = results(layer, x, torch.bfloat16)
    exact = copy.deepcopy(layer).double()
    for name, value in exact.named_parameters():
        value.data = dict(layer.named_parameters())[name].bfloat16().double()
    true = results(exact, x.double(), torch.float64)
    for one, other in zip(ours, true, strict=True):
        assert (one - other).norm() <= 2**-7 * other.norm()


def test_response_norm_keeps_its_input_alone():
    x = torch.randn(128, 96, 55, 55, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    bytes_of_x = x.numel() * x.element_size()
    before = torch.cuda.memory_allocated()
    out = response_norm.local_response_norm(x)
    assert torch.cuda.memory_allocated() - before <= 1.01 * bytes_of_x  # its output
    torch.cuda.reset_peak_memory_stats()
    out.backward(torch.ones_like(out))
    assert torch.cuda.max_memory_allocated() - before <= 3.05 * bytes_of_x  # output, its gradient, the input's


def train(place: Path, data: Path, *words: str, gpus: int = 1) -> Outcome:
    """`python train.py` on GPUs."""
    batches = ("trainer.limit_train_batches=6", "trainer.limit_val_batches=2", "trainer.limit_test_batches=2")
    devices = (f"trainer.accelerator={ACCELERATOR}", f"trainer.devices={gpus}")
    quick = (*QUICK, *devices, *batches, "trainer.max_epochs=2", f"data.dir={data}", *words)
    return finished(command("train.py", *quick, cwd=place, PYTHONPATH=MODULES), timeout=500)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]


def losses(run: Path) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file)]


def test_losses_are_near_those_of_the_cpu(tmp_path, digits_dir):
    run_dirs = [tmp_path / "gpu", tmp_path / "cpu"]
    for run_dir, accelerator in zip(run_dirs, (ACCELERATOR, "cpu"), strict=True):
        outcome = train(tmp_path, digits_dir, f"run_dir={run_dir}", f"trainer.accelerator={accelerator}")
        assert outcome.code == 0, outcome.err
    assert losses(run_dirs[0]) == pytest.approx(losses(run_dirs[1]), rel=1e-4)


@pytest.mark.parametrize("gpus", COUNTS)
@pytest.mark.parametrize(
    "words", [("model=lenet5",), ("model=alexnet", "model.width=0.25", "trainer.precision=bf16-mixed")]
)
def test_interrupted_run_ends_with_the_bits_of_an_undisturbed_one(words, gpus, tmp_path, digits_dir):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    words = (*words, "trainer.limit_train_batches=30")  # several processes stop at a step divisible by 20
    outcome = train(tmp_path, digits_dir, *words, f"run_dir={whole}", gpus=gpus)
    assert outcome.code == 0, outcome.err
    stop = "+callbacks.stop._target_=disturbances.Stop"
    within = "callbacks.checkpoint.every_steps=1"
    outcome = train(tmp_path, digits_dir, *words, f"run_dir={parts}", stop, within, gpus=gpus)
    assert outcome.code != 0
    words = (f"resume={parts}", "trusted_packages=[disturbances]")
    outcome = finished(command("train.py", *words, cwd=tmp_path, PYTHONPATH=MODULES), timeout=500)
    assert outcome.code == 0, outcome.err
    assert all(torch.equal(value, weights(parts)[name]) for name, value in weights(whole).items())


@pytest.mark.parametrize("gpus", TWO)
def test_number_of_gpus_changes_the_loss_by_rounding_alone(gpus, tmp_path, digits_dir):
    for n in (1, gpus):
        outcome = train(tmp_path, digits_dir, f"run_dir={tmp_path / str(n)}", gpus=n)
        assert outcome.code == 0, outcome.err
    assert losses(tmp_path / "1") == pytest.approx(losses(tmp_path / str(gpus)), rel=1e-5)


@pytest.mark.parametrize("gpus", TWO)
def test_loss_that_is_no_number_in_one_process_ends_all(gpus, tmp_path, digits_dir):
    words = (f"run_dir={tmp_path / 'run'}", "+callbacks.bad._target_=disturbances.BadRank")
    outcome = train(tmp_path, digits_dir, *words, gpus=gpus)
    assert outcome.code == 1
    assert "the training loss is nan in step 3 (epoch 1)" in outcome.err
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("gpus", TWO)
def test_killed_process_costs_an_attempt_and_no_bit(gpus, tmp_path, digits_dir):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(tmp_path, digits_dir, f"run_dir={whole}", gpus=gpus).code == 0
    disturbance = (
        "+callbacks.killed._target_=disturbances.KilledRank", f"+callbacks.killed.marker={tmp_path / 'marker'}",
    )  # fmt: skip
    outcome = train(tmp_path, digits_dir, f"run_dir={killed}", *disturbance, gpus=gpus)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "marker").exists()
    assert json.loads((killed / "result.json").read_text())["attempts"] == 2
    assert all(torch.equal(value, weights(killed)[name]) for name, value in weights(whole).items())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_graphs_replay_the_same_numbers(precision, tmp_path, digits_dir):
    words = (
        "model=alexnet",
        "model.width=0.25",
        f"trainer.precision={precision}",
        "data.batch_size=256",
        "trainer.limit_train_batches=1.0",
    )  # the last batch is smaller
    for name, more in {"plain": "default", "graphs": "cuda_graphs"}.items():
        outcome = train(tmp_path, digits_dir, *words, f"callbacks={more}", f"run_dir={tmp_path / name}")
        assert outcome.code == 0, outcome.err
    graphs = weights(tmp_path / "graphs")
    assert all(torch.equal(value, graphs[name]) for name, value in weights(tmp_path / "plain").items())
    assert losses(tmp_path / "plain") == losses(tmp_path / "graphs")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_host_never_waits(precision, tmp_path, digits_dir):
    words = (f"run_dir={tmp_path / 'run'}", "trainer.limit_train_batches=14", f"trainer.precision={precision}",
             "+callbacks.no_waiting._target_=disturbances.NoWaiting")  # fmt: skip
    outcome = train(tmp_path, digits_dir, *words, "optimizer=sgd")
    assert outcome.code == 0, outcome.err
