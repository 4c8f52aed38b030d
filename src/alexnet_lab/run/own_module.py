"""A LightningModule that `module` names in place of `Classifier`: what it gets, and what it has to offer."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from lightning import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn

from alexnet_lab.base import shell
from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.targets import build, locate
from alexnet_lab.config.schema import Train
from alexnet_lab.training import Classifier
from alexnet_lab.training.callbacks import network_of
from alexnet_lab.training.checkpoint_io import check_content
from alexnet_lab.training.freezing import freeze

log = logging.getLogger(__name__)

GROUPS = {"model": "net", "optimizer": "optimizer", "schedule": "schedule", "loss": "loss"}
"""Groups of the config, and the parameter that hands each over."""

NEEDED = ("forward", "training_step", "configure_optimizers")
"""Methods without which nothing can be trained."""

CLASSIFIER_ONLY = ("to_error", "to_loss")
"""Callbacks that read what `Classifier` counts."""


def build_module(config: Train) -> LightningModule:
    """The LightningModule of a config: `alexnet_lab.training.Classifier`, or the class that `module._target_` names.

    Requirements of a class of your own:

    - It is a `lightning.LightningModule` with `training_step`, `configure_optimizers`, and a `forward` that makes
      logits (B, num_classes) of images (B, C, H, W). Subclasses of `Classifier` have all of them.
    - Its constructor gets the fields of the config's group `module` and, of the following names, those that it lists:
      `net` (the network of the group `model`; in a subclass of `Classifier` its dictionary), `optimizer`, `schedule`
      and `loss` (their dictionaries, for `build_optimizer` and `build_schedule`), `metrics` (those of further metrics
      by name), `num_classes`, `memory_format` and `trusted_packages`. A subclass of `Classifier` may take them
      as `**fields`. Groups that it does not list have no effect, and cannot be set on the command line.
    - A batch unpacks as `images, labels = batch[:2]`.
    - It logs `train/loss`, `val/loss`, `val/top1_error`, `test/loss`, `test/top1_error` with `self.log(...,
      on_epoch=True)`, errors as fractions; with several processes also `sync_dist=True`. `metrics.csv`, `best.ckpt`,
      sweeps and reports read these names.
    - `validation_step` and `test_step` return the logits, for the confusion matrix and `eval.py`. Without `test_step`
      nothing is tested.
    - The whole module is the network: its parameters and the multiply-adds of `forward` are counted, and its batch
      normalisations and dropouts are made independent of the number of processes.
    - What it saves with `save_hyperparameters` is numbers, texts, lists and dictionaries.

    Args:
        config: A checked config.

    Raises:
        ConfigError: The class refuses its fields, or is no LightningModule.
    """
    found = locate(config.module["_target_"], "module", config.trusted)
    return build(config.module, "module", trusted=config.trusted, **_supplied(found, config))


def _supplied(found: Callable[..., Any], config: Train) -> dict[str, Any]:
    """What the constructor gets from the rest of the config."""
    trusted, names = config.trusted, _taken(found)
    fields = {name: getattr(config, group) for group, name in GROUPS.items()} | {
        "num_classes": config.data["num_classes"],
        "memory_format": "channels_last" if config.trainer.channels_last else "contiguous",
        "metrics": config.metrics,
        "trusted_packages": config.trusted_packages,
    }
    if "net" in names and not _is_classifier(found):
        fields["net"] = build(config.model, "model", trusted=trusted)
    return {name: value for name, value in fields.items() if name in names}


def _taken(found: Callable[..., Any]) -> set[str]:
    """The names that a constructor takes; a subclass of `Classifier` hands `**fields` on."""
    parameters = inspect.signature(found).parameters
    hands_on = any(item.kind is item.VAR_KEYWORD for item in parameters.values()) and _is_classifier(found)
    return set(parameters) | (set(inspect.signature(Classifier).parameters) if hands_on else set())


def _is_classifier(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, Classifier)


def build_network(config: Train) -> nn.Module:
    """The network that a run trains, with the layers of `freeze` frozen: that of `model`, or a module of one's own."""
    net = _unfrozen(config)
    freeze(net, config.freeze)
    return net


def _unfrozen(config: Train) -> nn.Module:
    if locate(config.module["_target_"], "module", config.trusted) is Classifier:
        return build(config.model, "model", trusted=config.trusted)
    module = build_module(config)
    _check_module(module, config)
    return network_of(module)


def _check_module(module: LightningModule, config: Train) -> None:
    """Raises ConfigError where a module of one's own cannot do what the config asks for."""
    target = config.module["_target_"]
    taken = _taken(locate(target, "module", config.trusted))
    missing = [name for name in NEEDED if not is_overridden(name, module, parent=LightningModule)]
    if missing:
        raise ConfigError(f"`module`: {target} has no {', '.join(missing)}; each has to be defined")
    asked = [name for name in CLASSIFIER_ONLY if getattr(config.callbacks, name) is not None]
    if asked and not isinstance(module, Classifier):
        raise ConfigError(
            f"`callbacks.{asked[0]}` reads what alexnet_lab.training.Classifier counts, and {target} is no subclass "
            f"of it; set callbacks.{asked[0]}=null"
        )
    if config.metrics and "metrics" not in taken:
        raise ConfigError(
            f"`metrics` are counted by alexnet_lab.training.Classifier, and {target} takes none; leave them out"
        )
    unsafe = [name for name, value in module.hparams.items() if not _is_plain(value)]
    if unsafe:
        raise ConfigError(
            f"`module`: {target} saves {unsafe[0]} ({type(module.hparams[unsafe[0]]).__name__}) as a hyperparameter, "
            f"but checkpoints hold only numbers, texts, lists and dictionaries; leave it out: "
            f"self.save_hyperparameters(ignore={unsafe})"
        )
    _check_groups(target, taken, config.overrides)


def _is_plain(value: Any) -> bool:
    """Whether a checkpoint may hold a value: it is read without running code."""
    try:
        check_content(value)
    except ConfigError:
        return False
    return True


def _check_groups(target: str, names: set[str], words: list[str]) -> None:
    """Refuses words of the command line that would have no effect, and logs which groups have none."""
    unused = [group for group, name in GROUPS.items() if name not in names]
    for word in words:
        group = shell.override_key(word).partition(".")[0]
        if group in unused:
            raise ConfigError(
                f"`{word}` has no effect: {target} takes no `{GROUPS[group]}`; leave it out, or give the constructor "
                f"a parameter of that name"
            )
    if unused:
        log.info("%s takes no %s: these groups of the config have no effect", target, ", ".join(unused))
