"""Checks whether the parts of a config fit: model and data, batch and devices, optimiser and schedule."""

from __future__ import annotations

import math
from typing import Any

from alexnet_lab.base.errors import ConfigError, did_you_mean
from alexnet_lab.base.formats import counted
from alexnet_lab.base.ranges import COUNTED, TOP_K, check_metric_name
from alexnet_lab.config.schema import EARLY_EPOCHS, Callbacks, Train, Trainer
from alexnet_lab.data.field_rules import check_colour, check_folders, has_validation_images
from alexnet_lab.models.geometry import check_model
from alexnet_lab.training.schedule_rules import check_drops, check_passes, check_step_length, needs_layer_groups

GRAPHS = "alexnet_lab.training.cuda_graphs.CudaGraphs"

FACTS = {"num_classes": "num_classes", "in_channels": "channels", "image_size": "image_size"}
"""Fields of a model that the data determines."""


def check_fit(config: Train) -> None:
    """Raises ConfigError with the reason if parts of a config do not fit each other."""
    _check_facts(config.model, config.data)
    check_model(config.model["_target_"], config.model)
    _check_augment(config.augment or {}, config.data)
    _check_folders(config.data)
    _check_batch(config.data, config.trainer)
    _check_trainer(config.trainer)
    _check_graphs(config.callbacks, config.trainer)
    _check_schedule(config.schedule or {}, config.optimizer)
    _check_top5(config)
    _check_metrics(config)
    _check_lenet5_1998(config)
    _check_validation(config)
    _check_sweep(config)


def _check_facts(model: dict[str, Any], data: dict[str, Any]) -> None:
    for name in ("batch_size", *FACTS.values()):
        if name not in data:
            raise ConfigError(f"`data.{name}` is missing; every run needs it, with a data module of your own too")
    for field, fact in FACTS.items():
        if field in model and model[field] != data[fact]:
            raise ConfigError(
                f"`model.{field}` is {model[field]} but the data has {data[fact]} (`data.{fact}`); "
                f"leave model.{field} at ${{data.{fact}}}"
            )


def _check_augment(augment: dict[str, Any], data: dict[str, Any]) -> None:
    side, padding = min(data.get("stored_size", data["image_size"]), data["image_size"]), augment.get("padding", 0)
    if padding >= side:
        raise ConfigError(
            f"`augment.padding` is {padding}, but the views are of {side} px, so that some would be empty; "
            f"set it to at most {side - 1}"
        )
    if {"channels", "normalization"} <= data.keys():
        check_colour(augment.get("pca_colour", "none"), data["channels"], data["normalization"])


def _check_folders(data: dict[str, Any]) -> None:
    if {"test_folder", "val_folder", "val_fraction"} <= data.keys():
        check_folders(data["test_folder"], data["val_folder"], data["val_fraction"])


def _check_batch(data: dict[str, Any], trainer: Trainer) -> None:
    devices, nodes = trainer.devices, trainer.num_nodes
    if isinstance(devices, int) and data["batch_size"] % (devices * nodes):
        what = ("" if nodes == 1 else f"{nodes} nodes of ") + counted(devices, "device")
        raise ConfigError(
            f"`data.batch_size` is {data['batch_size']} images in total, which {what} cannot share equally; "
            f"set a multiple of {devices * nodes}"
        )


def _check_trainer(trainer: Trainer) -> None:
    """Refuses Trainer arguments that need or contradict others, or that would start processes."""
    for unit in ("epochs", "steps"):
        least, most = getattr(trainer, f"min_{unit}"), getattr(trainer, f"max_{unit}")
        if least is not None and least > most != -1:
            raise ConfigError(
                f"`trainer.min_{unit}` is {least}, but `trainer.max_{unit}` is {most}; set min_{unit} to at most {most}"
            )
    if trainer.check_val_every_n_epoch is None and not isinstance(trainer.val_check_interval, int):
        raise ConfigError(
            f"`trainer.check_val_every_n_epoch` is null, which counts validations in batches, but "
            f"`trainer.val_check_interval` is {trainer.val_check_interval}; set it to a number of batches"
        )
    if trainer.benchmark and trainer.deterministic:
        raise ConfigError(
            "`trainer.benchmark` is true, so cuDNN times its algorithms and may choose another one next time, but "
            "`trainer.deterministic` promises the same weights; set trainer.deterministic=false"
        )
    strategy = trainer.strategy
    if isinstance(strategy, str) and any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise ConfigError(
            f"`trainer.strategy` is {strategy}, which starts its own processes, but the launcher starts them; "
            f"set trainer.strategy=ddp and trainer.devices"
        )


def _check_graphs(callbacks: Callbacks, trainer: Trainer) -> None:
    """Refuses recorded passes where they would not be those of the run."""
    found = callbacks.model_dump().items()
    key = next((key for key, part in found if isinstance(part, dict) and part.get("_target_") == GRAPHS), None)
    if key is None:
        return
    if callbacks.layer_statistics:  # its hooks on the layers would keep every pass from being replayed
        raise ConfigError(
            f"`callbacks.layer_statistics` is true, but `callbacks.{key}` works with false; set it, or leave the "
            f"callback out: '~callbacks.{key}'"
        )
    allowed = {"accelerator": ("auto", "gpu", "cuda"), "devices": (1,), "num_nodes": (1,),
               "accumulate_grad_batches": (1,)}  # fmt: skip
    for field, values in allowed.items():
        value = getattr(trainer, field)
        if value not in values:
            raise ConfigError(
                f"`trainer.{field}` is {value}, but `callbacks.{key}` works with "
                f"{' or '.join(map(str, values))}; set it, or leave the callback out: '~callbacks.{key}'"
            )


def monitors(config: Train) -> dict[str, str]:
    """The monitored metric of each key that has one."""
    found = {
        "callbacks.checkpoint.monitor": config.callbacks.checkpoint.monitor,
        "callbacks.early_stopping.monitor": (config.callbacks.early_stopping or {}).get("monitor"),
        "schedule.monitor": (config.schedule or {}).get("monitor"),
    }
    return {key: monitor for key, monitor in found.items() if isinstance(monitor, str)}


def _check_top5(config: Train) -> None:
    """Refuses to monitor the top-5 error with five classes or fewer, where it is always 0 and not measured."""
    classes = config.data.get("num_classes")
    if not isinstance(classes, int) or classes > TOP_K:
        return
    for key, metric in (monitors(config) | {"sweep.metric": config.sweep.metric}).items():
        if metric.endswith("top5_error"):
            raise ConfigError(
                f"`{key}` is {metric}, which is measured for more than {TOP_K} classes, and the data has {classes}; "
                f"set it to {metric.replace('top5', 'top1')}"
            )


def _check_metrics(config: Train) -> None:
    """Refuses names that a metric cannot have, and monitors that nothing measures."""
    names = [name for name, spec in config.metrics.items() if spec is not None]
    for name in names:
        check_metric_name(name)
    for key, monitor in monitors(config).items():
        if monitor.partition("/")[2] not in (*COUNTED, *names):
            known = [f"val/{name}" for name in (*COUNTED, *names)]
            raise ConfigError(f"`{key}` is {monitor}, which nothing measures; {did_you_mean(monitor, known)}")


def _check_schedule(schedule: dict[str, Any], optimizer: dict[str, Any]) -> None:
    """Schedules that treat biases or the first layer separately need an optimiser with separate groups."""
    name = str(schedule.get("_target_")).removeprefix("alexnet_lab.training.")
    keeps_biases = None if schedule.get("lower_biases", True) else "schedule.lower_biases=false"
    wishes = {
        "published.recorded": "schedule=recorded_145",
        "published.dexp": "schedule.bias_target_factor" if schedule.get("bias_target_factor") is not None else None,
        "schedules.plateau": keeps_biases,
        "schedules.step": keeps_biases,
    }
    if wishes.get(name) and optimizer["_target_"] != "alexnet_lab.training.krizhevsky.krizhevsky_sgd":
        raise needs_layer_groups(wishes[name])
    if name == "schedules.step":
        check_drops(schedule["drop_epochs"])
    elif name == "schedules.plateau":
        least, rate = schedule["min_learning_rate"], optimizer.get("learning_rate", math.inf)
        if least > rate:
            raise ConfigError(
                f"`schedule.min_learning_rate` is {least}, but `optimizer.learning_rate` is {rate}; "
                f"set it to at most {rate}"
            )
    elif name == "published.by_pass":
        check_passes(schedule["passes"], schedule["factors"])
    elif name == "published.caffe_step":
        check_step_length(schedule["step_iterations"], schedule["step_share"])


def _check_validation(config: Train) -> None:
    """Refuses keys that need validation in a run that has none."""
    cause = _without_validation(config.data, config.trainer)
    waits = _waits_for_validation(config)
    if cause is not None and waits:
        key = cause.partition("=")[0]
        remedy = "to 1" if key == "trainer.check_val_every_n_epoch" else "above 0"
        raise ConfigError(
            f"`{waits[0][0]}` {waits[0][1]}, but `{cause}` leaves nothing to validate; set {key} {remedy}, "
            f"or leave it out"
        )


def _without_validation(data: dict[str, Any], trainer: Trainer) -> str | None:
    """The setting that leaves a run without validation, or None."""
    if not has_validation_images(data):
        return "data.val_fraction=0"
    if trainer.fast_dev_run:
        return None
    if trainer.limit_val_batches == 0 and not trainer.overfit_batches:
        return "trainer.limit_val_batches=0"
    every = trainer.check_val_every_n_epoch
    return f"trainer.check_val_every_n_epoch={every}" if every and every > trainer.max_epochs else None


def _waits_for_validation(config: Train) -> list[tuple[str, str]]:
    """The keys that need validation, and what they use it for."""
    callbacks, sweep, schedule = config.callbacks, config.sweep, config.schedule or {}
    stopping = callbacks.early_stopping or {}
    is_plateau = schedule.get("_target_") == "alexnet_lab.training.schedules.plateau"
    waits = {
        ("schedule", "drops the rate by validation"): is_plateau and schedule["monitor"].startswith("val/"),
        ("callbacks.early_stopping", "stops by validation"): str(stopping.get("monitor")).startswith("val/"),
        ("callbacks.pruning", "compares trials by validation"): callbacks.pruning is not None,
        ("sweep.tuned", "is chosen by validation"): sweep.tuned and sweep.metric.startswith("test/"),
        ("sweep.metric", f"is {sweep.metric}"): sweep.metric.startswith("val/"),
    }
    return [wait for wait, asked in waits.items() if asked]


def _check_lenet5_1998(config: Train) -> None:
    """Refuses parts that were made for the network of 1998 with other networks."""
    model, loss, optimizer = (part["_target_"] for part in (config.model, config.loss, config.optimizer))
    if loss == "alexnet_lab.training.losses.LeNet5Criterion" and model != "alexnet_lab.models.LeNet51998":
        raise ConfigError(
            "`loss=lenet5_1998` needs logits that are negative distances, as model=lenet5_1998 returns them; "
            "set that model, or loss=cross_entropy"
        )
    norm = config.model.get("norm", "none")
    if optimizer == "alexnet_lab.training.diagonal_lm.diagonal_lm" and norm != "none":
        raise ConfigError(
            f"`optimizer=diagonal_lm` knows no second derivatives of a normalisation, and `model.norm` is {norm}; "
            f"set model.norm=none, or choose another optimizer"
        )


def check_minimised(config: Train, by: str) -> None:
    """Raises ConfigError if the sweep's metric is better when higher, and something takes the lowest value.

    Args:
        config: Checked.
        by: What takes it.
    """
    metric = config.sweep.metric
    if metric == "images_per_second":
        raise ConfigError(
            f"{by} takes the lowest value of `sweep.metric`, which is {metric}; set it to an error or loss"
        )


def _check_sweep(config: Train) -> None:
    """Refuses to compare what the runs do not measure."""
    if config.sweep.tuned:
        check_minimised(config, "`sweep.tuned`")
    metric, trainer, callbacks = config.sweep.metric, config.trainer, config.callbacks
    if callbacks.pruning is not None and callbacks.checkpoint.monitor is None:
        raise ConfigError(
            "`callbacks.pruning` compares trials by `callbacks.checkpoint.monitor`, which is null; "
            "set it to val/top1_error"
        )
    shown = [("metric", metric), *(("also", name) for name in config.sweep.also)]
    for key, name in shown:
        callback = name.partition("/")[0]
        if not getattr(callbacks, callback, True):
            remedy = f"set callbacks.{callback}=true" if callback == "train_set" else f"set callbacks={callback}"
            raise ConfigError(f"`sweep.{key}` is {name}, which nothing measures; {remedy}")
    if metric == "train/early_loss" and trainer.max_epochs < EARLY_EPOCHS:
        raise ConfigError(
            f"`sweep.metric` is {metric}, the mean over {EARLY_EPOCHS} epochs, but `trainer.max_epochs` is "
            f"{trainer.max_epochs}; set trainer.max_epochs={EARLY_EPOCHS} or more"
        )
