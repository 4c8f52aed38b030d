"""What bad input gets: one line that names the key, exit code 2, no torch, nothing written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
from commands import CONFIGS, REPOSITORY, call, compose_raw

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.files import atomic_path
from alexnet_lab.config import check_evaluate, check_export, check_report, check_saved, check_train

if TYPE_CHECKING:
    from pathlib import Path

COMMAND_LINES = {
    "model=alexnt": "there is no `model=alexnt`; did you mean `alexnet`?",
    "data=cifar": "there is no `data=cifar`; did you mean `cifar10`?",
    "schedule=xyz": "there is no `schedule=xyz`; allowed: ",
    "model=alexnet data=cifar10 model.nrom=none": "unknown key `model.nrom`; did you mean `norm`?",
    "+model.actvation=tanh": "unknown key `model.actvation`; did you mean `activation`?",
    "optimzer.learning_rate=1": "`optimzer.learning_rate`; did you mean `optimizer.learning_rate`?",
    "optimzer.lrate=1": "unknown key `optimzer.lrate`; did you mean `optimizer`?",
    "modell=lenet5": "unknown key `modell`; did you mean `model`?",
    "hydra.run.dirr=x": "unknown key `hydra.run.dirr`; did you mean `dir`?",
    "seed.x=1": "unknown key `seed.x`; no keys are allowed here",
    "trainer.max_epoch=3": "unknown key `trainer.max_epoch`; did you mean `max_epochs`?",
    "callbacks=early_stopping callbacks.early_stopping.patience=3": "`callbacks.early_stopping.patience`; did you mean",
    "+callbacks.early_stoping={}": "unknown key `callbacks.early_stoping`; did you mean `early_stopping`?",
    "logger.projct=a": "unknown key `logger.projct`; did you mean `project`?",
    "+data.seed=1": "unknown key `data.seed`; did you mean `seed` or `data.val_seed`?",
    "seed=1.5": "`seed` is 1.5 (float); allowed: integer",
    "seed=null": "`seed` is None (NoneType); allowed: integer",
    "seed=-1": "`seed` is -1 (int); allowed: greater than or equal to 0",
    "data.batch_size=0": "`data.batch_size` is 0 (int); allowed: greater than or equal to 1",
    "data.batch_size=three": "`data.batch_size` is 'three' (str); allowed: integer",
    "data.batch_size=true": "`data.batch_size` is True (bool); allowed: integer",
    "optimizer.learning_rate=nan": "`optimizer.learning_rate` is nan (float); allowed: a finite number",
    "optimizer.momentum=1.0": "`optimizer.momentum` is 1.0 (float); allowed: less than 1",
    "loss.label_smoothing=1.0": "`loss.label_smoothing` is 1.0 (float); allowed: less than 1",
    "model.activation=rleu": "`model.activation` is 'rleu' (str); allowed: 'relu', 'tanh' or 'sigmoid'",
    "trainer.precision=fp16": "`trainer.precision` is 'fp16' (str); allowed: '32-true'",
    "trainer.limit_train_batches=1.5": "`trainer.limit_train_batches` is 1.5 (float); allowed: ",
    "callbacks.early_stopping=3": "`callbacks.early_stopping` is 3 (int); allowed: a group of keys",
    "run_dir=null": "`run_dir` is None (NoneType); allowed: string",
    "data.batch_size=16 trainer.devices=3": "`data.batch_size` is 16 images in total, which 3 devices cannot share",
    "model.num_classes=9": "`model.num_classes` is 9 but the data has 10 (`data.num_classes`)",
    "model=alexnet data=cifar10 model.stem=published": "does not fit AlexNet with stem=published",
    "model._target_=alexnet_lab.models.LeNt": "`_target_: alexnet_lab.models.LeNt` does not exist",
    "model._target_=alexnet_lab.nothing.Net": "allowed: names of alexnet_lab.models, classes of torch.nn",
    "model._target_=nopackage.Net": "there is no package `nopackage`",
    "model._target_=torch.nn.nothing.Net": "there is no module `torch.nn.nothing`",
    "model._target_=torch.nn.Linear": "`data.num_classes`? allowed in `model`: bias, device, dtype, in_features",
    "model._target_=alexnet_lab.models.nothing.Net": "there is no module `alexnet_lab.models.nothing`",
    "model._target_=LeNet5": "`_target_: LeNet5` is not a dotted name",
    "model._target_=3": "`model._target_` is 3; allowed: a dotted name such as alexnet_lab.models.AlexNet",
    "logger=wandb logger._target_={_target_:a.b}": "`logger._target_` is {'_target_': 'a.b'}; allowed: a dotted name",
    "~model._target_": "`model` is switched off or has no `_target_`",
    "resume=3": "`resume` is 3 (int); allowed: string",
    "~model": "`model` is missing",
    "schedule=step ~schedule.drop_epochs": "`schedule.drop_epochs` is missing",
    "schedule=step schedule.drop_epochs=[3.5]": "`schedule.drop_epochs.0` is 3.5 (float); allowed: integer",
    "data=image_folder": "`data.root` has no value; set it on the command line: data.root=...",
    "data=image_folder data.root=null": "`data.root` has no value",
    "data.dir=${hydra.job.nam}": "Interpolation key 'hydra.job.nam' not found",
    "data.dir=${hydra.job.num}": "`hydra.job.num` has no value; set it on the command line: hydra.job.num=...",
    "seed=???": "`seed` has no value; set it on the command line: seed=...",
    "model.activation=[": "cannot read `model.activation=[` on the command line",
    "logger=null": "`logger=null`: a group takes the name of one of its files; there are csv, tensorboard, wandb",
    "data.batch_size=18 trainer.devices=2 trainer.num_nodes=2": "images in total, which 2 nodes of 2 devices cannot",
    "foo": "cannot read `foo` on the command line",
    "seed=${nope}": "`seed`: Interpolation key 'nope' not found",
    "--config-name=nope": "there is no config `nope`",
    "--config-dir=nope": "nope' not found",
}


KEYS_OF_OTHER_GROUPS = {
    "-m sweep=ideas_cifar10 variant=all_ideas,no_lrn": "`variant`; did you mean `sweep.variant`?",
    "learning_rate=0.1": "`learning_rate`; did you mean `optimizer.learning_rate`?",
    "-m lr=0.1,0.2": "`lr`; did you mean `optimizer.learning_rate`?",
    "+lr=0.1": "`lr`; did you mean `optimizer.learning_rate`?",
    "batch_size=64": "`batch_size`; did you mean `data.batch_size`?",
    "max_epochs=3": "`max_epochs`; did you mean `trainer.max_epochs`?",
    "epochs=3": "`epochs`; did you mean `trainer.max_epochs`?",
    "batchsize=64": "`batchsize`; did you mean `data.batch_size`?",
    "model=alexnet data=cifar10 width=0.5": "`width`; did you mean `model.width`?",
    "-m model=alexnet data=cifar10 norm=lrn,none": "`norm`; did you mean `model.norm`?",
    "trainer.batch_size=64": "`trainer.batch_size`; did you mean `data.batch_size`?",
    "model.batch_size=64": "`model.batch_size`; did you mean `data.batch_size`? allowed in `model`: activation, c1_pad",
    "+model.batch_size=64": "`model.batch_size`; did you mean `data.batch_size`? allowed in `model`: activation, c1_p",
    "+trainer.learning_rate=1": "`trainer.learning_rate`; did you mean `optimizer.learning_rate`?",
    "data.model=lenet5": "`data.model`; did you mean `model`? allowed in `data`: ",
    "early_stopping.patience=3": "`early_stopping.patience`; did you mean `callbacks.early_stopping`?",
    "name=x": "`name`; did you mean `sweep.name` or `logger.name`?",
    "hydra.swep.dir=x": "`hydra.swep.dir`; did you mean `hydra.sweep.dir` or `hydra.run.dir`?",
}


def check(config: dict[str, Any]) -> None:
    check_train(config)


@pytest.mark.parametrize("function", [check_train, check_saved, check_evaluate, check_export, check_report])
@pytest.mark.parametrize("raw", [[1], None, "seed=1", [("seed", 1)]])
def test_a_config_that_is_no_dictionary_is_refused(function, raw):
    kind = type(raw).__name__
    with pytest.raises(ConfigError, match=f"^the config is a {kind}; allowed: a dictionary, such as compose\\(\\) ret"):
        function(raw)


def one_error_line(err: str) -> bool:
    return err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")


@pytest.mark.parametrize(("line", "message"), (COMMAND_LINES | KEYS_OF_OTHER_GROUPS).items())
def test_bad_command_line_is_reported_in_one_line(line, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = call(check, "train", *line.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert one_error_line(outcome.err)
    assert message in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_path_that_is_too_long_is_reported_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = call(check, "train", f"init_from={'a' * 300}")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == f"error: {'a' * 300} cannot be used: File name too long\n"


@pytest.mark.parametrize("fails", ["mkstemp", "fsync"])
def test_a_file_that_cannot_be_written_is_reported_by_its_own_name(fails, tmp_path, monkeypatch):
    def full(*_: object, **names: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", *[f".{name}x.part" for name in names.values()][:1])

    def write(_: dict[str, Any]) -> None:
        monkeypatch.setattr(tempfile if fails == "mkstemp" else os, fails, full)
        with atomic_path(tmp_path / "summary.csv"):
            pass

    outcome = call(write, "train")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == f"error: {tmp_path}/summary.csv cannot be used: No space left on device\n"


def test_missing_data_have_one_exit_code_however_the_config_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("data=image_folder", "data.root=nowhere")
    for more in ((), ("--cfg", "job", "--resolve"), ("hydra.run.dir=runs_${data.num_classes}",)):
        outcome = call(check, "train", *words, *more)
        assert outcome.code == 1
        assert outcome.err.startswith("error: there is no folder nowhere/train: ")


YAML_FILES = {
    "model:\n  actvation: relu\n": "unknown key `model.actvation`; did you mean `activation`?",
    "trainr:\n  max_epochs: 1\n": "unknown key `trainr`; did you mean `trainer`?",
    "batch_size: 64\n": "unknown key `batch_size`; did you mean `data.batch_size`?",
    "trainer:\n  max_epochs: 0\n": "`trainer.max_epochs` is 0 (int); allowed: greater than or equal to 1",
    "defaults:\n  - override /model: alexnt\n": "there is no `model=alexnt`; did you mean `alexnet`?",
    "defaults:\n  - override /modl: alexnet\n": "unknown key `modl`; did you mean `model`?",
    "model: [\n  activation: relu\n": "a config file cannot be read: while parsing a flow sequence",
    "just words": "unknown key `just words`",
    "hydra: null\n": "`hydra` is null in the config; leave it out",
    "hydra:\n  sweeper: null\n": "`hydra.sweeper` is null in the config, but -m needs it; leave it out",
    "hydra:\n  launcher: null\n": "`hydra.launcher` is null in the config, but -m needs it; leave it out",
}


@pytest.mark.parametrize(("text", "message"), YAML_FILES.items())
def test_bad_yaml_file_is_reported_in_one_line(text, message, tmp_path):
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\n" + text)
    flags = ["-m"] if text.startswith("hydra") else []
    outcome = call(check, "train", *flags, f"--config-dir={tmp_path}", "experiment=mine")
    assert outcome.code == 2
    assert one_error_line(outcome.err)
    assert message in outcome.err


def test_yaml_file_that_is_no_text(tmp_path):
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_bytes(b"\xff\xfe\x00")
    outcome = call(check, "train", f"--config-dir={tmp_path}", "experiment=mine")
    assert outcome.code == 2
    assert one_error_line(outcome.err)
    assert "a config file cannot be read: 'utf-8' codec" in outcome.err


def test_good_yaml_file_of_another_folder_counts(tmp_path):
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\nmodel:\n  activation: tanh\n")
    config = compose_raw(f"--config-dir={tmp_path}", "experiment=mine")
    assert (config["model"]["activation"], config["experiment"]) == ("tanh", "mine")


def test_a_key_is_sought_beside_those_of_the_yaml_file_of_another_folder(tmp_path):
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\ndefaults:\n  - override /model: alexnet\n  - override /data: cifar10\n")
    outcome = call(check, "train", f"--config-dir={tmp_path}", "experiment=mine", "model.nrom=none")
    assert outcome.err == "error: unknown key `model.nrom`; did you mean `norm`?\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "`run` has no value; set it on the command line: run=..."),
        (("run=a", "veiws=ten"), "unknown key `veiws`; did you mean `views`?"),
        (("run=a", "views=two"), "`views` is 'two' (str); allowed: 'center', 'ten' or 'nine'"),
        (("run=a", "root=b"), "unknown key `root`; did you mean `data.root`?"),
        (
            ("run=a", "data.split=val"),
            "unknown key `data.split`; did you mean `split`? allowed in `data`: dir, root, s",
        ),
        (("run=a", "+data.rot=b"), "unknown key `data.rot`; did you mean `root`?"),
        (("run=3",), "`run` is 3 (int); allowed: "),
        (("run=a", "split=all"), "`split` is 'all' (str); allowed: 'test', 'val' or 'train'"),
    ],
)
def test_bad_command_line_of_eval(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = call(check_evaluate, "eval", *words)
    assert outcome.code == 2
    assert one_error_line(outcome.err)
    assert message in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_wrong_job_of_a_multirun_is_reported_before_any_starts(tmp_path):
    seen: list[int] = []
    outcome = call(
        lambda config: seen.append(check_train(config).seed),
        "train", "-m", "seed=-1,7", f"hydra.sweep.dir={tmp_path}",
    )  # fmt: skip
    assert (outcome.code, seen) == (2, [])
    assert "error: `seed` is -1 (int)" in outcome.err


def test_hydra_full_error_shows_the_traceback_and_is_as_before_afterwards(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError, match="greater than or equal to 1"):
        _main_with("data.batch_size=0")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    assert call(check, "train", "data.batch_size=0").code == 2
    assert "HYDRA_FULL_ERROR" not in os.environ


def _main_with(*words: str) -> None:
    from alexnet_lab.config.main import main

    before, sys.argv = sys.argv, ["train.py", *words]
    try:
        main(check, CONFIGS, "train")
    finally:
        sys.argv = before


NO_TORCH = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    heavy = [name for name in ("torch", "numpy", "lightning", "wandb", "torchvision") if name in sys.modules]
    print("imported:", heavy)
"""


@pytest.mark.parametrize(
    ("script", "words", "code"),
    [
        ("train.py", ["--help"], 0),
        ("train.py", ["model=alexnet", "data=cifar10", "model.nrom=none"], 2),
        ("train.py", ["model=alexnet", "data=cifar10", "model.stem=published"], 2),
        ("train.py", ["optimizer._target_=torch.optim.AdamV"], 2),
        ("train.py", ["--cfg", "job"], 0),
        ("train.py", ["--cfg", "job", "--resolve"], 0),
        ("train.py", ["--info", "defaults"], 0),
        ("eval.py", ["rn=x"], 2),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else str(value),
)
def test_answers_without_heavy_imports_and_files(script, words, code, tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, "-c", NO_TORCH, str(REPOSITORY / script), *words],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr
    assert ended.stdout.splitlines()[-1] == "imported: []"
    assert "Traceback" not in ended.stderr
    assert (ended.stderr.count("\n") == 1) is (code == 2)
    assert list(tmp_path.iterdir()) == []
