"""What the tests of this folder run in a process that sees null GPUs: `python on_null_gpu.py FOLDER DATA`; prints JSON.

One process for all of it: importing torch takes longer than any of the checks.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

import alexnet_lab
from alexnet_lab.base.errors import Interrupted
from alexnet_lab.run import engine
from alexnet_lab.training.callbacks import network_of
from alexnet_lab.training.metrics import ErrorCounts

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
        config = alexnet_lab.compose(*words, f"data={chosen}", "trainer.accelerator=gpu")
        net = network_of(engine.build_classifier(config)).cuda().train()
        data = config["data"]
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
    place, store = Path(sys.argv[1]), sys.argv[2]
    found = {
        "counts": resumed_counts(),
        "runs": runs(place, store),
        "interrupted": interrupted_run(place, store),
        "precision": precisions(),
        "waits": waits(place, store),
        "steps": steps(),
    }
    print(json.dumps(found))
