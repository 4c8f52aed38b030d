"""A config that cannot run is refused before anything is written, in one line and with exit code 2."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from commands import QUICK, call, compose_raw

from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.config import check_train
from alexnet_lab.config.schema import Callbacks, Checkpoint, Trainer
from alexnet_lab.config.wandb_checks import MODES
from alexnet_lab.run import train

if TYPE_CHECKING:
    from pathlib import Path

SHORT = (*QUICK, "trainer.max_epochs=2", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1",
         "trainer.limit_test_batches=1", "callbacks.checkpoint.every_minutes=null")  # fmt: skip

LBFGS = (
    "optimizer._target_=torch.optim.LBFGS ~optimizer.learning_rate ~optimizer.momentum ~optimizer.nesterov "
    "~optimizer.weight_decay ~optimizer.decay_biases"
)
"""The words that put another optimiser in the place of configs/optimizer/sgd.yaml."""

REFUSED = {
    "trainer.max_steps=0": "`trainer.max_steps` is 0 (int); allowed: -1 or greater than or equal to 1",
    "trainer.limit_train_batches=0": "`trainer.limit_train_batches` is 0 (int); allowed: greater than or equal to 1 (a "
    "whole number, such as 2) or greater than 0 (a share, such as 0.5)",
    "trainer.limit_train_batches=0.0": "`trainer.limit_train_batches` is 0.0 (float); allowed: ",
    "trainer.limit_train_batches=1e-9": "`trainer.limit_train_batches` is 1e-09, of 81 batches less than one",
    "trainer.limit_val_batches=0.01": "is 0.01, of 9 batches less than one; set it to 1 (a number of ",
    "trainer.limit_test_batches=0.01": "`trainer.limit_test_batches` is 0.01, of 23 batches less than one",
    "trainer.overfit_batches=1e-9": "`trainer.overfit_batches` is 1e-09, of 81 batches less than one",
    "trainer.val_check_interval=3": "is 3, but an epoch has 2 batches; set it to at most 2, or count across epochs",
    "trainer.val_check_interval=1000 trainer.check_val_every_n_epoch=null": "but the run has 4 batches; set it to at",
    "trainer.max_time='00:00:00:00'": "`trainer.max_time` is '00:00:00:00' (str); allowed: a duration as days:",
    "trainer.min_epochs=9": "`trainer.min_epochs` is 9, but `trainer.max_epochs` is 2; set min_epochs to at most 2",
    "trainer.min_steps=9 trainer.max_steps=8": "`trainer.min_steps` is 9, but `trainer.max_steps` is 8; set min_steps ",
    "trainer.accumulate_grad_batches=10000000000": "allowed: less than 2147483648",
    "trainer.num_threads=100000": "`trainer.num_threads` is 100000 (int); allowed: less than or equal to 1024",
    "trainer.precision=16-mixed trainer.accelerator=cpu": "16-mixed, which needs a GPU; take trainer.precision=",
    "callbacks=early_stopping trainer.limit_val_batches=0": "stops by validation, but `trainer.limit_val_batches=0` ",
    "callbacks=early_stopping trainer.limit_val_batches=0.0": "leaves nothing to validate; set trainer.limit_val_batch",
    "callbacks=early_stopping trainer.check_val_every_n_epoch=3": "set trainer.check_val_every_n_epoch to 1, or leave",
    "callbacks=pruning trainer.limit_val_batches=0": "`callbacks.pruning` compares trials by validation, but `trainer",
    "callbacks=pruning": "`callbacks.pruning` is for the trials of sweep=search, and there is no ",
    "schedule=plateau trainer.limit_val_batches=0": "`schedule` drops the rate by validation, but ",
    "schedule=plateau schedule.patience_epochs=0": "`schedule.patience_epochs` is 0 (int); allowed: greater than or eq",
    "data.batch_size=100000": "`data.batch_size` is 100000, but there are only ",
    "data.batch_size=10000000000": "allowed: less than 2147483648",
    "logger=wandb logger.project=my/proj": "`logger.project` is 'my/proj', but W&B accepts none of the characters",
    f"logger=wandb logger.group={'y' * 129}": "`logger.group` has 129 characters ('yyyyyyyyyyyyyyyyyyyy'...); W&B acce",
    f"logger=wandb tags=[a,{'y' * 65}]": "`tags.1` has 65 characters",
    "model=alexnet data=imagenette data.stored_size=100000": "`data.stored_size` is 100000 (int); allowed: less than ",
    "model=alexnet model.hidden=100000000": " parameters, more than this machine's memory holds; set fewer ",
    "model=alexnet model.width=1e30": "`model`: alexnet_lab.models.AlexNet cannot be built: ",
    "optimizer.learning_rate=1e300": "is 1e+300 (float); allowed: less than or equal to 3.4e+38",
    "optimizer.learning_rate=1e-320": "is 1e-320 (float); allowed: greater than or equal to 1.2e-38",
    "optimizer.learning_rate=0": "is 0 (int); allowed: greater than 0",
    "augment=crop augment.padding=8": "`augment.padding` is 8, but the views are of 8 px, so that some would be empty;",
    "schedule=plateau schedule.min_learning_rate=1": "`schedule.min_learning_rate` is 1.0, but `optimizer.learning_ra",
    "schedule=plateau schedule.factor=1": "`schedule.factor` is 1 (int); allowed: less than 1",
    "optimizer.nesterov=true optimizer.momentum=0": "`optimizer`: Nesterov momentum requires a momentum and zero damp",
    "optimizer=krizhevsky_sgd optimizer.layers={conv9:{weight_decay:0.0}}": "conv9",
    LBFGS: "`optimizer`: torch.optim.LBFGS fails on kernels in the memory layout of `trainer.channels_last`; set train",
    "optimizer={lr:1}": "`optimizer` is a group of keys and takes no value; choose one of its files, or set its keys:",
    "trainer.devices=2 launcher.workers=false": "`launcher.workers` is false, so the run can only use the calling",
    "launcher=slurm": "`launcher=slurm` sends jobs of a sweep to the cluster; add -m",
    "model=torchvision model.name=resnet9999": "resnet9999",
}


@pytest.mark.parametrize(("line", "message"), REFUSED.items(), ids=lambda value: value[:40])
def test_wrong_config_is_refused_before_the_run_directory_is_made(line, message, digits_dir, tmp_path):
    run = tmp_path / "run"
    outcome = call(train, "train", *SHORT, f"data.dir={digits_dir}", f"run_dir={run}", *line.split())
    assert outcome.code == 2, outcome.err
    assert message in outcome.err.splitlines()[-1]
    assert "Exception raised from" not in outcome.err  # the start of torch's C++ stack
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WANDB_MODE", "bogus", "the environment variable WANDB_MODE is 'bogus'; allowed: online, offline, dryrun, "),
        ("WANDB_PROJECT", "my/proj", "`logger.project` (from WANDB_PROJECT) is 'my/proj', but W&B accepts none of"),
        ("WANDB_TAGS", f"a,{'y' * 65}", "`tags.1` (from WANDB_TAGS) has 65 characters"),
        ("WANDB_PROJECT", "my/project logger.project=my/pro", "`logger.project` is 'my/pro', but W&B accepts none"),
        ("WANDB_TAGS", f"{'y' * 66} tags=[{'y' * 65}]", "`tags.0` has 65 characters"),
    ],
)
def test_wrong_variable_of_the_tracker_is_refused(variable, value, message, monkeypatch):
    value, *words = value.split()
    monkeypatch.setenv(variable, value)
    outcome = call(check_train, "train", "logger=wandb", *words)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err
    assert call(check_train, "train", "logger=csv").code == 0


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_of_the_tracker_is_taken(mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", mode)
    assert call(check_train, "train", "logger=wandb").code == 0


def test_wrong_mode_of_the_environment_does_not_matter_where_the_config_says_one(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "bogus")
    assert call(check_train, "train", "logger=wandb", "logger.mode=offline").code == 0


@pytest.mark.parametrize(
    "line",
    [
        "callbacks.checkpoint.monitor=val/top5_error",
        "callbacks=early_stopping callbacks.early_stopping.monitor=val/top5_error",
        "sweep.metric=test/top5_error",
        "schedule=plateau schedule.monitor=val/top5_error",
    ],
)
def test_top5_error_of_five_classes_is_not_measured(line):
    words = [*line.split(), "model=alexnet", "data=imagenette", "data.classes=[tench,church,parachute]"]
    outcome = call(check_train, "train", *words)
    assert outcome.code == 2
    assert "top5_error, which is measured for more than 5 classes, and the data has 3; set it to " in outcome.err
    assert call(check_train, "train", *line.split(), "model=alexnet", "data=imagenette").code == 0


EDGES = (0, 1, -1, 2, 2**31 - 1, 2**31, 10**30, 0.0, 1e-9, 0.5, 1.0, 1e30, "", "x", None, True, [], [1], {})
"""Values at and beyond the ends of what a key may hold."""

APART = ("trainer.devices", "trainer.num_nodes", "trainer.compile", "trainer.max_epochs", "callbacks.pruning")
"""Keys that need another machine, a compiler, or a long time."""


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(config)
    node = config
    *groups, name = key.split(".")
    for group in groups:
        node = node[group]
    node[name] = value
    return config


WORDS = ("callbacks=early_stopping", "trainer.limit_train_batches=1", "seed=0")
SECTIONS = {
    "trainer": Trainer, "callbacks": Callbacks, "callbacks.checkpoint": Checkpoint,
}  # fmt: skip
KEYS = [f"{section}.{name}" for section, schema in SECTIONS.items() for name in schema.model_fields]


@pytest.mark.parametrize("key", [key for key in KEYS if not key.startswith(APART)])
def test_every_value_of_a_key_is_refused_first_or_works(key: str, digits_dir: Path, tmp_path: Path):
    """Nothing in between: no traceback, no error of a library, no run that dies of its config."""
    base = compose_raw(*SHORT, *WORDS, f"data.dir={digits_dir}")
    for number, value in enumerate(EDGES):
        run = tmp_path / str(number)
        config = changed(base, key, value) | {"run_dir": str(run)}
        try:
            assert train(config)["status"] == "completed", value
        except ConfigError:
            assert not run.exists(), value
        except RunError as error:
            if "the training loss is" not in str(error):  # what diverged says so
                pytest.fail(f"{value!r}: {error}")
