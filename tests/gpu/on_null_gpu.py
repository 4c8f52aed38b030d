"""What the tests of this folder run in a process that sees null GPUs: `python on_null_gpu.py FOLDER DATA`; prints JSON.

One process for all of it: importing torch takes longer than any of the checks.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from commands import call
from torch import nn

import alexnet_lab
from alexnet_lab.base.errors import Interrupted
from alexnet_lab.config import check_train
from alexnet_lab.run import engine
from alexnet_lab.sweeps.jobs import run_job
from alexnet_lab.training.callbacks import network_of
from alexnet_lab.training.metrics import ErrorCounts

if TYPE_CHECKING:
    from collections.abc import Collection

CONFIGS = Path(__file__).parents[2] / "configs"

TORCHVISION = (
    "alexnet", "vgg11", "resnet18", "googlenet", "inception_v3", "mobilenet_v3_small", "squeezenet1_1",
    "shufflenet_v2_x0_5", "efficientnet_b0", "densenet121", "swin_t", "convnext_tiny", "vit_b_16",
)  # fmt: skip

QUICK = ("logger=csv", "data.batch_size=16", "callbacks.augmentation_preview=false", "launcher.workers=false",
         "trainer.max_epochs=1", "trainer.limit_train_batches=6", "trainer.limit_val_batches=2",
         "trainer.limit_test_batches=2")  # fmt: skip


def steps() -> dict[str, str]:
    """One training step of each network in each precision, with deterministic operations: the error, or nothing."""
    names = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml") if path.stem != "torchvision")
    choices = [(f"model={name}",) for name in names]
    choices += [("model=torchvision", f"model.name={name}") for name in TORCHVISION]
    torch.use_deterministic_algorithms(True)
    return {" ".join(words): error for words in choices if (error := step(words))}


def step(words: tuple[str, ...]) -> str:
    """The error of one step of a network."""
    try:
        kinds = {"model=lenet5": "digits", "model=cuda_convnet": "cifar10", "model=": "imagenette"}
        chosen = next(data for start, data in kinds.items() if words[0].startswith(start))
        config = check_train(alexnet_lab.compose(*words, f"data={chosen}", "trainer.accelerator=gpu"))
        net = network_of(engine.build_classifier(config)).cuda().train()
        data = config.data
        images = torch.rand(4, data["channels"], data["image_size"], data["image_size"], device="cuda")
        labels = torch.zeros(4, dtype=torch.int64, device="cuda")
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
                loss = nn.functional.cross_entropy(net(images).float(), labels)
            loss.backward()
    except Exception as error:  # whatever it is, the test shows it
        return f"{type(error).__name__}: {error}"
    finally:
        gc.collect()
    return ""


def resumed_counts() -> list[float]:
    """The state of the metrics in a second checkpoint within an epoch, after a resume: CPU and GPU numbers meet."""
    counts = ErrorCounts(10)
    counts.set_numbers([3, 1, 0, 0.5, 2.0, 1.0])
    counts.update(torch.zeros(2, 10, device="cuda"), torch.zeros(2, dtype=torch.int64, device="cuda"),
                  torch.zeros(2, device="cuda"))  # fmt: skip
    return counts.numbers()[4:]


def interrupted_run(folder: Path, data: str) -> dict[str, Any]:
    """A run that is interrupted in step 3 and resumed, with checkpoints within the epoch before and after."""
    run = folder / "interrupted"
    words = (*QUICK, "trainer=gpu", f"data.dir={data}", "callbacks.checkpoint.every_steps=1")
    config = alexnet_lab.compose(*words, f"run_dir={run}", "+callbacks.stop._target_=disturbances.Stop")
    try:
        alexnet_lab.train(config)
        said = "it was not interrupted"
    except Interrupted as error:
        said = str(error)
    step = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    result = alexnet_lab.train({"resume": str(run), "trusted_packages": ["disturbances"]})
    return {
        "said": said.partition(";")[0],
        "step": step,
        "steps": result["steps"],
        "status": result["status"],
        "gpus": result["gpus"],
    }


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


FAMILIES = (
    (("lenet5",), ("diagonal_lm", "sgd"), ("data=digits",)),
    (("cuda_convnet",), ("cuda_convnet",), ("data=digits", "data.image_size=32")),
    (("alexnet", "caffenet"), ("adam", "krizhevsky", "rmsprop", "sgd"),
     ("data=digits", "data.image_size=224", "model.width=0.1")),
    (("torchvision",), ("adam",), ("data=digits", "data.image_size=64", "model.name=squeezenet1_1")),
)  # fmt: skip
"""The starts of networks' names, those of optimisers that fit, and words for images of their size and few weights."""


def plan() -> dict[str, tuple[str, ...]]:
    """Whole runs by name: each network at least once, and each optimiser in each precision."""
    chosen = {}
    for models, optimizers, words in FAMILIES:
        pairs = itertools.cycle(itertools.product(named("optimizer", optimizers), PRECISIONS))
        count = max(len(named("model", models)), len(named("optimizer", optimizers)) * len(PRECISIONS))
        for model, (optimizer, precision) in itertools.islice(
            zip(itertools.cycle(named("model", models)), pairs, strict=False), count
        ):
            name = f"{model} {optimizer} {precision}"
            chosen[name] = (f"model={model}", f"optimizer={optimizer}", f"trainer.precision={precision}", *words)
    return chosen


def named(group: str, starts: tuple[str, ...]) -> list[str]:
    """The files of a group whose names start so."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml") if path.stem.startswith(starts))


SHORT = (
    "alexnet adam 32-true",
    "cuda_convnet_13pct cuda_convnet_11pct bf16-mixed",
    "lenet5_seed000 diagonal_lm 16-mixed",
)
"""Whole runs for each `make test`; the others take minutes."""


def whole_runs(folder: Path, data: str, chosen: Collection[str]) -> dict[str, str]:
    """How the whole runs ended: interrupted within the epoch, with checkpoints before and after, then tested."""
    return {name: whole_run(folder / name.replace(" ", "_"), data, plan()[name]) for name in chosen}


def whole_run(run: Path, data: str, words: tuple[str, ...]) -> str:
    """How one whole run ended, and the metrics that it measured."""
    given = (*QUICK, "trainer=gpu", *words, f"data.dir={data}", "callbacks.checkpoint.every_steps=2")
    try:
        with contextlib.suppress(Interrupted):
            alexnet_lab.train(
                alexnet_lab.compose(*given, f"run_dir={run}", "+callbacks.stop._target_=disturbances.Stop")
            )
        before = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        result = alexnet_lab.train({"resume": str(run), "trusted_packages": ["disturbances"]})
    except Exception as error:  # whatever it is, the test shows it
        return f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        gc.collect()
    stages = sorted({name.partition("/")[0] for name in result["metrics"]})
    return f"{result['status']}: interrupted in step {before} of {result['steps']}, {', '.join(stages)}"


def runs(folder: Path, data: str) -> dict[str, str]:
    """Whole runs, from the first step to the test: how each ended."""
    choices = {
        "bf16": ("trainer.precision=bf16-mixed", "optimizer=adam"),
        "fp16": ("trainer.precision=16-mixed", "optimizer=krizhevsky_sgd", "schedule=step"),
        "tf32": ("trainer.float32=tf32", "optimizer=rmsprop", "callbacks.layer_statistics=true"),
        "auto": ("trainer.accelerator=auto", "trainer.devices=auto", "callbacks.train_set=true"),
    }
    return {name: status(folder / name, data, words) for name, words in choices.items()}


def status(run: Path, data: str, words: tuple[str, ...]) -> str:
    """How one run ended."""
    try:
        return alexnet_lab.train(
            alexnet_lab.compose(*QUICK, "trainer=gpu", *words, f"data.dir={data}", f"run_dir={run}")
        )["status"]
    except Exception as error:  # whatever it is, the test shows it
        return f"{type(error).__name__}: {error}"


def sweep(folder: Path, data: str) -> int:
    """The exit code of a sweep over two seeds."""
    words = (*QUICK, "trainer=gpu", f"data.dir={data}", f"hydra.sweep.dir={folder / 'sweep'}", "seed=0,1")
    outcome = call(lambda config: run_job(check_train(config)), "train", "-m", *words, "launcher=in_process")
    return outcome.code


def waits(folder: Path, data: str) -> dict[str, str]:
    """Whole runs whose steady state must not wait for the GPU: how each ended."""
    words = ("trainer.limit_train_batches=14", "+callbacks.no_waiting._target_=disturbances.NoWaiting")
    alexnet = (
        "model=alexnet",
        "model.width=0.1",
        "augment=alexnet",
        "augment.pca_colour=none",
        "augment.brightness=0.1",
    )
    choices = {
        "sgd": (),
        "resident": ("data.device=auto", *alexnet),
        "copied": ("data.device=cpu", *alexnet, "optimizer=krizhevsky_sgd", "trainer.precision=bf16-mixed"),
        "clipped": ("optimizer=adam", "trainer.gradient_clip_val=1.0", "trainer.precision=16-mixed"),
        "accumulated": ("trainer.accumulate_grad_batches=2", "callbacks=to_loss"),
    }
    found = {name: status(folder / f"waits_{name}", data, (*words, *choice)) for name, choice in choices.items()}
    return found | {"rmsprop": status(folder / "waits_rmsprop", data, (*words, "optimizer=rmsprop"))}


def precisions() -> dict[str, list[bool]]:
    """Whether convolutions and matrix products use TF32, and cuDNN's benchmark, by `trainer.float32`."""
    found: dict[str, list[bool]] = {}
    for name in ("tf32", "highest"):
        engine.use_tf32(name == "tf32")
        cudnn = torch.backends.cudnn
        found[name] = [cudnn.allow_tf32, bool(torch.backends.cuda.matmul.allow_tf32), cudnn.benchmark]
    return found


if __name__ == "__main__":
    gc.freeze()  # what is imported stays, and `gc.collect` need not look at it
    place, store, *others = Path(sys.argv[1]), *sys.argv[2:]
    found = (
        {"whole": whole_runs(place, store, others)}
        if others
        else {
            "whole": whole_runs(place, store, SHORT),
            "sweep": sweep(place, store),
            "counts": resumed_counts(),
            "runs": runs(place, store),
            "interrupted": interrupted_run(place, store),
            "precision": precisions(),
            "waits": waits(place, store),
            "steps": steps(),
        }
    )
    print(json.dumps(found))
