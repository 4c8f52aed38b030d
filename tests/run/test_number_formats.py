"""bfloat16 on processors with and without arithmetic for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from commands import call, compose_raw, evaluated

from alexnet_lab.base import cores
from alexnet_lab.base.cores import Bfloat16, bfloat16_arithmetic
from alexnet_lab.run import devices, train

if TYPE_CHECKING:
    from pathlib import Path

FLAGS = {
    "flags\t\t: fpu sse2 avx2 fma\n": Bfloat16.EMULATED,
    "flags\t\t: fpu avx2 avx512f avx512bw\n": Bfloat16.CONVERTED,
    "flags\t\t: fpu avx512bw avx512_bf16\n": Bfloat16.NATIVE,
    "flags\t\t: fpu avx2 amx_bf16 amx_tile\n": Bfloat16.NATIVE,
    "Features\t: fp asimd i8mm bf16\n": Bfloat16.NATIVE,
    "Features\t: fp asimd\n": Bfloat16.EMULATED,
    "model name\t: bf16\n": Bfloat16.EMULATED,
}


@pytest.mark.parametrize(("line", "expected"), FLAGS.items(), ids=str)
def test_the_processors_flags_say_whether_it_computes_in_bfloat16(line: str, expected: Bfloat16, tmp_path: Path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{line}\nprocessor\t: 1\n{line}")
    assert bfloat16_arithmetic(cpuinfo) is expected
    assert bfloat16_arithmetic(tmp_path / "none") is Bfloat16.EMULATED


@pytest.fixture(params=[Bfloat16.NATIVE, Bfloat16.CONVERTED, Bfloat16.EMULATED], ids=lambda found: found.value)
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bfloat16:
    """A processor that computes so."""
    for module in (cores, devices):
        monkeypatch.setattr(module, "bfloat16_arithmetic", lambda: request.param)
    return request.param


def test_the_cpu_recipe_takes_the_fastest_format(processor):
    expected = "bf16-mixed" if processor is Bfloat16.NATIVE else "32-true"
    assert compose_raw("experiment=alexnet_cifar10_cpu")["trainer"]["precision"] == expected
    assert compose_raw("experiment=alexnet_cifar10")["trainer"]["precision"] == "bf16-mixed"


def test_emulated_bfloat16_is_warned_of_and_evaluated_in_float32(processor, tmp_path, digits_dir):
    words = (
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=2",
        f"data.dir={digits_dir}",
        f"run_dir={tmp_path}/run",
    )
    outcome = call(train, "train", *words, "trainer.precision=bf16-mixed")
    assert outcome.code == 0, outcome.err
    emulated = processor is Bfloat16.EMULATED
    warning = "trainer.precision=bf16-mixed is emulated, about 20 times slower"
    assert (warning in outcome.err) == emulated
    outcome = evaluated(f"run={tmp_path}/run")
    assert outcome.code == 0, outcome.err
    assert (
        "run was trained with trainer.precision=bf16-mixed, which this machine lacks; it is evaluated in 32-true"
        in outcome.err
    ) == emulated


@pytest.mark.parametrize(
    ("accelerator", "precision", "native", "emulated"),
    [
        ("cpu", "bf16-mixed", "bf16-mixed", "32-true"),
        ("auto", "16-mixed", "bf16-mixed", "32-true"),
        ("gpu", "16-mixed", "16-mixed", "16-mixed"),
        ("cpu", "32-true", "32-true", "32-true"),
        ("cpu", "bf16-true", "bf16-true", "bf16-true"),
    ],
)
def test_the_format_of_evaluation(accelerator, precision, native, emulated, monkeypatch):
    monkeypatch.setattr(devices, "GPUS", dict.fromkeys(devices.GPUS, (lambda: 0,)))
    for found, expected in ((Bfloat16.NATIVE, native), (Bfloat16.EMULATED, emulated)):
        monkeypatch.setattr(devices, "bfloat16_arithmetic", lambda found=found: found)
        assert devices.usable_precision(accelerator, precision) == expected


@pytest.mark.parametrize(
    ("accelerator", "gpus", "expected"),
    [
        ("gpu", 0, "auto"),
        ("cuda", 0, "auto"),
        ("mps", 0, "auto"),
        ("gpu", 1, "gpu"),
        ("cpu", 1, "cpu"),
        ("auto", 0, "auto"),
    ],
)
def test_the_device_of_evaluation(accelerator, gpus, expected, monkeypatch):
    monkeypatch.setattr(devices, "GPUS", dict.fromkeys(devices.GPUS, (lambda: gpus,)))
    assert devices.usable_accelerator(accelerator) == expected
