"""From a config's `_target_` to the object: a name of the right kind, called with plain keyword arguments.

A config may come from elsewhere (a run directory that somebody sent), and a `_target_` is a call. So it is not enough
that a package is well known: `torch.hub.load` runs code from the net. Each group of the config takes names of one
module of ours, and of other packages the classes of one kind.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from alexnet_lab.base.errors import ConfigError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Kind(NamedTuple):
    """What the `_target_` of one group may be."""

    base: str  # dotted name of the class that what is built belongs to
    ours: str  # the part of this package that holds the names
    theirs: tuple[str, ...] = ()  # modules of other packages whose classes count if they are derived from `base`


KINDS = {
    "model": Kind("torch.nn.Module", "models", ("torch.nn", "torchvision.models")),
    "data": Kind("lightning.LightningDataModule", "data"),
    "augment": Kind("builtins.object", "data.augment"),
    "loss": Kind("torch.nn.Module", "training.losses", ("torch.nn",)),
    "optimizer": Kind("torch.optim.Optimizer", "training", ("torch.optim",)),
    "schedule": Kind("builtins.dict", "training"),
    "logger": Kind("lightning.pytorch.loggers.Logger", "run.tracking"),
}
"""By the group of the config. Beyond it only the packages count that the command line names by `trusted_packages`."""

OURS = "alexnet_lab"

KNOWN_PACKAGES = sorted({OURS} | {module.partition(".")[0] for kind in KINDS.values() for module in kind.theirs})


def check_target(target: str, group: str, trusted: tuple[str, ...] = ()) -> None:
    """Refuses a `_target_` that is no dotted name or not of the kind of its group, by its name alone.

    Args:
        target: Such as `alexnet_lab.models.AlexNet`.
        group: A key of `KINDS`.
        trusted: Packages of which any name counts.

    Raises:
        ConfigError: With the names that are allowed.
    """
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(
            f"`{group}`: `_target_: {target[:100]}` is not a dotted name such as alexnet_lab.models.AlexNet"
        )
    if parts[0] in trusted:
        return
    if parts[0] not in KNOWN_PACKAGES:
        allowed = ", ".join((*KNOWN_PACKAGES, *trusted))
        raise ConfigError(
            f"`{group}`: `_target_: {target}` lies outside the trusted packages ({allowed}); "
            f"if you trust it, set trusted_packages=[{parts[0]}] on the command line"
        )
    kind, module = KINDS[group], ".".join(parts[:-1])
    is_class = parts[-1][0].isupper()
    if not (_is_ours(module, kind) or (module in kind.theirs and is_class)):
        theirs = "".join(f", classes of {name}" for name in kind.theirs)
        raise ConfigError(f"`{group}._target_` is {target}; allowed: names of {OURS}.{kind.ours}{theirs}")


def locate(target: str, group: str, trusted: tuple[str, ...] = ()) -> Callable[..., Any]:
    """The class or function of a dotted name such as `alexnet_lab.models.AlexNet`.

    Raises:
        ConfigError: The name is not allowed in this group, does not exist, or is nothing of its kind.
    """
    check_target(target, group, trusted)
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"`_target_: {target}` was not found: {error}") from error
    if not callable(found):
        raise ConfigError(f"`_target_: {target}` is a {type(found).__name__}, which cannot be called")
    if target.partition(".")[0] not in trusted:
        _check_kind(found, target, group)
    return found


def _check_kind(found: Any, target: str, group: str) -> None:
    """Refuses what our modules merely import, and what of other packages is no class of the kind."""
    kind = KINDS[group]
    if target.startswith(f"{OURS}."):
        if not _is_ours(str(getattr(found, "__module__", "")), kind):
            raise ConfigError(f"`{group}._target_` is {target}, which is not defined in {OURS}.{kind.ours}")
    elif not (isinstance(found, type) and issubclass(found, _base(group))):
        raise ConfigError(f"`{group}._target_` is {target}, which is no class derived from {kind.base}")


def build(spec: Mapping[str, Any], group: str, *args: Any, trusted: tuple[str, ...] = (), **extra: Any) -> Any:
    """Calls the `_target_` of `spec` with `args`, the other keys of `spec`, and `extra`.

    Raises:
        ConfigError: As `locate`; another package refuses the fields; or what it gives is not of the group's kind.
    """
    target = spec["_target_"]
    fields = {key: value for key, value in spec.items() if key != "_target_"}
    found = locate(target, group, trusted)
    try:
        built = found(*args, **fields, **extra)
    except (TypeError, ValueError) as error:
        if target.startswith(f"{OURS}."):
            raise
        raise ConfigError(f"`{group}`: {target} does not take these fields: {one_line(error)}") from error
    if not isinstance(built, _base(group)):
        raise ConfigError(f"`{group}._target_: {target}` gives a {type(built).__name__}, not a {KINDS[group].base}")
    return built


def _base(group: str) -> type:
    module, _, name = KINDS[group].base.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _is_ours(module: str, kind: Kind) -> bool:
    """Whether a module is the part of this package that holds the names of a kind, or lies in it."""
    place = f"{OURS}.{kind.ours}"
    return module == place or module.startswith(f"{place}.")
