"""Resolves a config's `_target_` to an object of the right kind, and calls it with plain keyword arguments.

The command line and the config files it names are code: they may name anything that can be imported. A run directory
or a checkpoint is data, possibly from somebody else, and a `_target_` is a call. A well-known package is not enough
there (`torch.hub.load` runs code from the net), so each group accepts names of one module of ours and classes of one
kind from other packages. Everything else needs `trusted_packages` on the command line.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from alexnet_lab.base.errors import AlexNetLabError, ConfigError, one_line
from alexnet_lab.base.fields import SHORT
from alexnet_lab.base.flatten import within


class Kind(NamedTuple):
    """What the `_target_` of one group may be."""

    base: str  # dotted name of the class of the built object
    ours: str  # the part of this package with the names
    theirs: tuple[str, ...] = ()  # modules of other packages whose classes are allowed if derived from `base`
    also: str | None = None  # a second class for the built object
    untrusted: tuple[str, ...] = ()  # exceptions among these classes, which write wherever their fields say


KINDS = {
    "model": Kind("torch.nn.Module", "models", ("torch.nn", "torchvision.models")),
    "module": Kind("lightning.LightningModule", "training"),
    "data": Kind("lightning.LightningDataModule", "data"),
    "augment": Kind("builtins.object", "data.augment"),
    "transforms": Kind("torchvision.transforms.v2.Transform", "data.transforms", ("torchvision.transforms.v2",)),
    "loss": Kind("torch.nn.Module", "training.losses", ("torch.nn",)),
    "optimizer": Kind("torch.optim.Optimizer", "training", ("torch.optim",)),
    "schedule": Kind("builtins.dict", "training", (), "torch.optim.lr_scheduler.LRScheduler"),
    "metrics": Kind("torchmetrics.Metric", "training.extra_metrics", ("torchmetrics.classification", "torchmetrics")),
    "logger": Kind("lightning.pytorch.loggers.Logger", "run.tracking"),
    "callbacks": Kind(
        "lightning.pytorch.callbacks.Callback", "training", ("lightning.pytorch.callbacks",), None,
        ("BasePredictionWriter", "ModelCheckpoint", "OnExceptionCheckpoint", "SpikeDetection"),
    ),
    "trainer.strategy": Kind("lightning.pytorch.strategies.Strategy", "run", ("lightning.pytorch.strategies",)),
    "trainer.profiler": Kind("lightning.pytorch.profilers.Profiler", "run"),
}  # fmt: skip
"""What is allowed without `trusted_packages`, by group or key of the config."""

SEVERAL = ("callbacks", "logger", "metrics", "transforms")
"""Groups that may hold several parts, each under a name."""

OURS = "alexnet_lab"


def parts(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every part of a config with a `_target_`, by its dotted key.

    Example:
        >>> parts({"model": {"_target_": "m.Net"}, "callbacks": {"ema": {"_target_": "c.EMA"}, "train_set": False}})
        {'model': {'_target_': 'm.Net'}, 'callbacks.ema': {'_target_': 'c.EMA'}}
    """
    found: dict[str, dict[str, Any]] = {}
    for key in KINDS:
        group, _, name = key.partition(".")
        node = config.get(group)
        node = node.get(name) if name and isinstance(node, dict) else node
        if not isinstance(node, dict):
            continue
        fields = [(name, spec) for name, spec in node.items() if name != "_target_"]
        named = {name: spec for name, spec in fields if isinstance(spec, dict) and "_target_" in spec}
        if "_target_" in node:
            found[key] = {name: value for name, value in node.items() if key not in SEVERAL or name not in named}
        if key in SEVERAL:
            found |= {f"{key}.{name}": spec for name, spec in named.items()}
    return found


def kind_of(key: str) -> Kind:
    """What the `_target_` at a dotted key may be: `callbacks.ema` is one of the callbacks."""
    return KINDS[key if key in KINDS else key.partition(".")[0]]


def target_of(spec: Any, group: str) -> str:
    """The `_target_` of a part, which in Python may be any object.

    Raises:
        ConfigError: It is no dictionary with a `_target_`.

    Example:
        >>> target_of({"_target_": "torch.optim.AdamW", "lr": 0.001}, "optimizer")
        'torch.optim.AdamW'
    """
    if not isinstance(spec, dict):
        raise ConfigError(
            f"`{group}` is {SHORT.repr(spec)} ({type(spec).__name__}); allowed: a plain dictionary of "
            f"its fields and a `_target_` ({_allowed(group)})"
        )
    if not isinstance(spec.get("_target_"), str):
        found = f"is {SHORT.repr(spec['_target_'])}" if "_target_" in spec else "is missing"
        raise ConfigError(f"`{group}._target_` {found}; allowed: {_allowed(group)}")
    return spec["_target_"]


def check_target(target: str, group: str, trusted: tuple[str, ...] = ()) -> None:
    """Refuses a `_target_` that is no dotted name or does not belong to its group, by its name alone.

    Args:
        target: Such as `alexnet_lab.models.AlexNet`.
        group: The key of the part in the config: see `parts`.
        trusted: Other packages whose names are all allowed.

    Raises:
        ConfigError: With the names that are allowed.
    """
    names = target.split(".")
    if len(names) < 2 or not all(part.isidentifier() for part in names):
        raise ConfigError(
            f"`{group}`: `_target_: {target[:100]}` is not a dotted name such as alexnet_lab.models.AlexNet"
        )
    if names[0] != OURS and names[0] in trusted:
        return
    kind, module = kind_of(group), ".".join(names[:-1])
    is_class = names[-1][0].isupper() and names[-1] not in kind.untrusted
    if _is_ours(module, kind) or (module in kind.theirs and is_class):
        return
    allowed = _allowed(group)
    if names[0] == OURS:
        raise ConfigError(f"`{group}._target_` is {target}; allowed: {allowed}")
    raise ConfigError(
        f"`{group}`: `_target_: {target}` is outside the trusted packages; allowed: {allowed}; "
        f"if you trust {names[0]}, add 'trusted_packages=[{names[0]}]' to the command"
    )


def _allowed(group: str) -> str:
    """What a `_target_` may be without `trusted_packages`."""
    kind = kind_of(group)
    return ", ".join((f"names of {OURS}.{kind.ours}", *(f"classes of {name}" for name in kind.theirs)))


def packages_beyond(config: Mapping[str, Any]) -> set[str]:
    """The packages of a config's `_target_`s that their groups only accept with trust.

    Args:
        config: Nested; a `_target_` that is no dotted name is ignored.

    Example:
        >>> packages_beyond({"model": {"_target_": "mine.Net"}, "optimizer": {"_target_": "torch.optim.AdamW"}})
        {'mine'}
    """
    found: set[str] = set()
    for group, spec in parts(config).items():
        target = str(spec["_target_"])
        package = target.partition(".")[0]
        try:
            check_target(target, group)
        except ConfigError:
            if package.isidentifier() and package != OURS:
                found.add(package)
    return found


def locate(target: str, group: str, trusted: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Imports the class or function of a dotted name such as `alexnet_lab.models.AlexNet`.

    Raises:
        ConfigError: The name is not allowed in this group, does not exist, or has the wrong kind.
    """
    check_target(target, group, trusted)
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"`_target_: {target}` was not found: {error}") from error
    except Exception as error:  # a user's package may raise anything
        raise ConfigError(f"`_target_: {target}`: importing {module_name} raises {_explained(error)}") from error
    if not callable(found):
        raise ConfigError(f"`_target_: {target}` is a {type(found).__name__}, which cannot be called")
    _check_kind(found, target, group, trusted)
    return found


def _check_kind(found: Any, target: str, group: str, trusted: tuple[str, ...]) -> None:
    """Refuses names that our modules only import, classes of another kind and, unless trusted, functions."""
    kind, package = kind_of(group), target.partition(".")[0]
    if package == OURS:
        if not _is_ours(str(getattr(found, "__module__", "")), kind):
            raise ConfigError(f"`{group}._target_` is {target}, which is not defined in {OURS}.{kind.ours}")
        return
    fits = issubclass(found, _bases(group)) if isinstance(found, type) else package in trusted
    if not fits:
        raise ConfigError(f"`{group}._target_` is {target}, which is no class derived from {_base_names(group)}")


def build(spec: Mapping[str, Any], group: str, *args: Any, trusted: tuple[str, ...] = (), **extra: Any) -> Any:
    """Calls the `_target_` of `spec` with `args`, the other keys of `spec`, and `extra`.

    Raises:
        ConfigError: As `locate`; another package rejects the fields; or the result is not of the group's kind.
    """
    target = target_of(spec, group)
    fields = {key: value for key, value in spec.items() if key != "_target_"}
    found = locate(target, group, trusted)
    try:
        built = found(*args, **fields, **extra)
    except Exception as error:
        if isinstance(error, AlexNetLabError):
            raise
        if target.startswith(f"{OURS}."):
            if not isinstance(error, ValueError):
                raise
            raise ConfigError(f"`{group}`: {one_line(error)}") from error  # torch's, about the fields we hand on
        raise ConfigError(f"`{group}`: {target} does not take these fields: {_explained(error)}") from error
    if not isinstance(built, _bases(group)):
        raise ConfigError(f"`{group}._target_: {target}` gives a {type(built).__name__}, not a {_base_names(group)}")
    return built


def _explained(error: Exception) -> str:
    """An error of another package in one line."""
    text = one_line(error)[:300]
    return text if isinstance(error, TypeError | ValueError) and text else f"{type(error).__name__}: {text}"


def _base_names(group: str) -> str:
    kind = kind_of(group)
    return kind.base if kind.also is None else f"{kind.base} or {kind.also}"


def _bases(group: str) -> tuple[type, ...]:
    names = [name for name in (kind_of(group).base, kind_of(group).also) if name is not None]
    return tuple(pkgutil.resolve_name(name) for name in names)


def _is_ours(module: str, kind: Kind) -> bool:
    """Whether a module is the part of this package for a kind, or is inside it."""
    return within(module, [f"{OURS}.{kind.ours}"])
