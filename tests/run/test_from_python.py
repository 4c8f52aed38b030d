"""`compose`, `train` and `load` from Python: a notebook does what the command does, and Hydra keeps nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import hydra
import numpy as np
import pytest
import torch
from commands import CONFIGS, QUICK, compose_raw
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from PIL import Image

import alexnet_lab
from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.config import check_evaluate, check_export, check_train
from alexnet_lab.evaluation.evaluate import evaluate
from alexnet_lab.evaluation.predict import stored_images

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ("model=alexnet", "data=cifar10", "trainer.max_epochs=1", "model.norm=none", "run_dir=somewhere")


@pytest.mark.parametrize("words", [WORDS, ("logger=[wandb,tensorboard]", "run_dir=somewhere")])
def test_composed_config_is_that_of_the_command_line(words):
    assert alexnet_lab.compose(*words) == check_train(compose_raw(*words)).model_dump()


def test_a_checked_config_can_be_trained(digits_dir, tmp_path):
    words = (*QUICK, f"data.dir={digits_dir}", "debug=fast", f"run_dir={tmp_path / 'run'}")
    assert alexnet_lab.train(check_train(alexnet_lab.compose(*words)))["status"] == "completed"


def test_nothing_of_hydra_is_left_behind(monkeypatch):
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # tests that call a command in this process leave theirs
    before = list(sys.argv)
    first, second = alexnet_lab.compose("seed=1", "run_dir=a"), alexnet_lab.compose("seed=2", "run_dir=a")
    assert (first["seed"], second["seed"], first["overrides"]) == (1, 2, ["seed=1", "run_dir=a"])
    with pytest.raises(ConfigError):
        alexnet_lab.compose("seed=x")
    assert not GlobalHydra.instance().is_initialized()
    assert not HydraConfig.initialized()
    assert sys.argv == before


def test_compose_within_a_hydra_application_leaves_that_as_it_was():
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.2"):
        own = hydra.compose("train", ["seed=5"], return_hydra_config=True)
        HydraConfig.instance().set_config(own)
        running = GlobalHydra.instance().hydra
        assert alexnet_lab.compose("seed=6")["seed"] == 6
        assert GlobalHydra.instance().hydra is running
        assert HydraConfig.get().overrides.task == ["seed=5"]
        assert hydra.compose("train", ["seed=7"]).seed == 7
    HydraConfig.instance().cfg = None
    GlobalHydra.instance().clear()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("batch_size=64",), r"unknown key `batch_size`; did you mean `data.batch_size`\?"),
        (("model.nrom=lrn", "model=alexnet"), r"unknown key `model.nrom`; did you mean `norm`\?"),
        (("model=alexnot",), r"there is no `model=alexnot`; did you mean `alexnet`\?"),
        (("trainer.max_epochs=none",), r"`trainer.max_epochs` is 'none' \(str\); allowed: "),
        (("seed=0,1",), r"seed=0,1"),
        (("logger=null",), r"a group takes the name of one of its files"),
        (("model=[lenet5,alexnet]",), r"`model=\[lenet5,alexnet\]`: a group takes the name of one of its files"),
        (("resume=a", "model=[lenet5]"), r"`model=\[lenet5\]`: a group takes the name of one of its files"),
        (
            ("resume=a", "trainer.max_epochs=${seed}"),
            r"=\$\{seed\}`: Interpolation key 'seed' not found; with resume= a",
        ),
        (("sweep=ideas",), r"`sweep=ideas` compares several runs, .*; add -m: python train.py -m sweep=ideas"),
        (("sweep.factor=seed",), r"`sweep.factor=seed` compares several runs"),
        (
            ("--help",),
            r"compose\(\) takes overrides as separate arguments, e\.g\. 'trainer.max_epochs=1'; got '--help'",
        ),
        ((["seed=1"],), r"compose\(\) takes overrides as separate arguments, .*; got \['seed=1'\]"),
    ],
)
def test_wrong_overrides_are_one_line(words, message):
    with pytest.raises(ConfigError, match=message) as raised:
        alexnet_lab.compose(*words)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, r"^the config lacks `seed`, `run_dir`, .*; compose a complete one: alexnet_lab.compose\(\"model=lenet5\""),
        ({"seed": 1, "model": {}}, r"^the config lacks `run_dir`, `data`, .*; compose a complete one"),
        ("model=alexnet", r"^train\(\) takes a dictionary, got str; compose a complete one"),
    ],
)
def test_a_config_that_is_none_says_what_to_do(config, message):
    with pytest.raises(ConfigError, match=message):
        alexnet_lab.train(config)


@pytest.mark.parametrize(
    "use",
    [
        lambda name: alexnet_lab.compose(f"init_from={name}"),
        alexnet_lab.load,
        lambda name: alexnet_lab.load(f"{name}.safetensors"),
        lambda name: alexnet_lab.train({"resume": name}),
        lambda name: alexnet_lab.train(alexnet_lab.compose(f"data.dir={name}")),
        lambda name: check_export({"run": "x", "out": f"{name}.onnx"}),
        lambda name: evaluate(check_evaluate({"run": name})),
    ],
)
def test_a_path_that_is_too_long_is_one_line(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"^a{300}\S* cannot be used: File name too long$"):
        use("a" * 300)


@pytest.fixture(scope="module")
def trained(digits_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("python") / "run"
    words = (*QUICK, f"data.dir={digits_dir}", f"run_dir={run}", "trainer.limit_train_batches=4")
    result = alexnet_lab.train(alexnet_lab.compose(*words, "trainer.max_epochs=1"))
    assert (result["status"], result["steps"]) == ("completed", 4)
    return run


def settings_of_torch() -> tuple[Any, ...]:
    backends = torch.backends
    return (
        torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), backends.cudnn.benchmark,
        backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32,
    )  # fmt: skip


@pytest.mark.parametrize("last", ["train", "load", "predict"])
def test_settings_of_torch_stay_the_callers(last, trained, digits_dir, tmp_path):
    own = (3, False, True, True, True)
    torch.set_num_threads(3)
    torch.use_deterministic_algorithms(mode=False)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    if last == "train":
        words = (*QUICK, f"data.dir={digits_dir}", "debug=fast", f"run_dir={tmp_path / 'run'}")
        alexnet_lab.train(alexnet_lab.compose(*words))
    else:
        for path in (trained, trained / "checkpoints" / "best.safetensors"):
            run = alexnet_lab.load(path)
            assert settings_of_torch() == own
            run.predict(torch.zeros(1, 1, 8, 8)) if last == "predict" else None
    assert settings_of_torch() == own


def test_a_run_is_continued_from_python(trained):
    request = alexnet_lab.compose(f"resume={trained}", "trainer.max_epochs=2")
    assert request["changes"] == {"trainer.max_epochs": 2}
    assert alexnet_lab.train(request)["steps"] == 8


def test_a_loaded_run_predicts_what_its_test_counted(trained):
    run = alexnet_lab.load(trained)
    rows = run.data.rows("test")
    images, labels = np.asarray(rows.images)[rows.indices], rows.labels[rows.indices]
    probabilities = run.predict(images)
    assert probabilities.shape == (len(labels), 10)
    assert probabilities.sum(1).numpy() == pytest.approx(np.ones(len(labels)), abs=1e-5)
    error = float((probabilities.argmax(1).numpy() != labels).mean())
    recorded = json.loads((trained / "result.json").read_text())["metrics"]["test/top1_error"]
    assert error == pytest.approx(recorded, abs=1e-6)
    assert torch.allclose(run.predict(torch.from_numpy(images[:3] / 255)), probabilities[:3], atol=1e-6)
    mirrored, torchs = run.predict(images[:3, :, :, ::-1]), run.predict(torch.from_numpy(images[:3]).flip(3))
    assert torch.equal(mirrored, torchs)
    assert isinstance(run.net, torch.nn.Module)
    assert (run.config["seed"], run.class_names[3]) == (0, "3")


def test_a_loaded_run_reads_its_data_from_another_folder(trained, digits_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(digits_dir.parent)
    run = alexnet_lab.load(os.path.relpath(trained), data_dir=digits_dir.name)
    monkeypatch.chdir(tmp_path)
    assert run.data.num_test == 359
    assert list(tmp_path.iterdir()) == []


def test_threads_of_a_server_predict_what_one_thread_does(trained):
    run = alexnet_lab.load(trained)
    requests = [torch.rand(number + 1, 1, 8, 8) for number in range(8)]
    alone = [run.predict(images) for images in requests]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run.predict, requests))
    assert all(map(torch.equal, together, alone))


def test_what_is_no_run_and_no_array_is_named(trained):
    best = trained / "checkpoints" / "best.ckpt"
    with pytest.raises(
        ConfigError, match=r"^`run_dir` is the file .*best\.ckpt; allowed: a run directory, or the best\.s"
    ):
        alexnet_lab.load(best)
    with pytest.raises(ConfigError, match=r"^`images` is of type Image; allowed: an array or a tensor \(B, C, H, W\)"):
        alexnet_lab.load(best.with_suffix(".safetensors")).predict(cast("Any", Image.new("L", (8, 8))))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.array([[None]]), "`images` is object; allowed: uint8 from 0 to 255, or floating point from 0 to 1"),
        (torch.zeros(1, 1, 8, 8).to_sparse(), "`images` is torch.sparse_coo; allowed: uint8"),
        (torch.zeros(1, 1, 8, 8, device="meta"), "`images` is without content; allowed: uint8"),
        (np.zeros((1, 1, 8, 8), np.longdouble), "`images` is float128; allowed: uint8"),
        (torch.zeros(1, 1, 8, 8).to(torch.float8_e4m3fn), "`images` is torch.float8_e4m3fn; allowed: uint8"),
    ],
    ids=["object", "sparse", "meta", "longdouble", "float8"],
)
def test_arrays_without_pixels_are_named(images, message, trained):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        alexnet_lab.load(trained).predict(images)


def test_views_that_there_are_not_are_named(trained):
    with pytest.raises(ConfigError, match=r"^`views` is 'five' \(str\); allowed: 'center', 'ten' or 'nine'$"):
        alexnet_lab.load(trained).predict(torch.zeros(1, 1, 8, 8), views=cast("Any", "five"))


def test_images_of_another_size_are_scaled_and_cut():
    images = torch.zeros(2, 1, 40, 60, dtype=torch.uint8)
    images[:, :, :, 10:50] = 200  # the centre square
    assert stored_images(images, 1, 20).shape == (2, 1, 20, 20)
    assert torch.equal(stored_images(images, 1, 20)[:, :, 5:15, 5:15], torch.full((2, 1, 10, 10), 200).byte())
    assert torch.equal(stored_images(images[..., 10:50], 1, 40), images[..., 10:50])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 8, 8), r"`images` has the shape \(2, 3, 8, 8\); allowed: \(B, 1, H, W\)"),
        (torch.zeros(8, 8), r"`images` has the shape \(8, 8\)"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int64), r"`images` is torch.int64; allowed: uint8 from 0 to 255, or"),
        (torch.full((1, 1, 8, 8), 255.0), r"`images` has numbers from 255 to 255; allowed: floating point from 0"),
        (torch.full((1, 1, 8, 8), torch.nan), r"`images` has numbers from nan to nan"),
    ],
)
def test_images_that_are_none(images, message):
    with pytest.raises(ConfigError, match=message):
        stored_images(images, 1, 8)


NOTEBOOK = """
import sys
assert not hasattr(sys.modules["__main__"], "__file__")
sys.argv = ["ipykernel_launcher.py", "-f", "/run/kernel-1.json"]
from alexnet_lab import compose, train
words = {words}
for devices in (1, 2):
    result = train(compose(*words, f"trainer.devices={{devices}}", f"run_dir=run{{devices}}"))
    assert (result["status"], result["steps"]) == ("completed", 2), result
"""


def test_a_notebook_trains_in_its_own_process_and_in_workers(digits_dir, tmp_path):
    words = [*QUICK, f"data.dir={digits_dir}", "trainer.max_steps=2", "trainer.limit_val_batches=0"]
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK.format(words=words)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run2" / "result.json").read_text())["status"] == "completed"


def test_importing_the_package_is_quick():
    code = (
        "import sys, alexnet_lab; print(len({'torch', 'hydra', 'lightning', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
