"""From a config's `_target_` to the object: only names of trusted packages, with plain keyword arguments."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from alexnet_lab.base.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TRUSTED_PACKAGES = ("alexnet_lab", "lightning", "torch", "torchmetrics", "torchvision")
"""The packages whose names a `_target_` may hold; a config adds its own by `trusted_packages`."""


def check_target(target: str, trusted: tuple[str, ...] = ()) -> None:
    """Refuses a `_target_` that is no dotted name or lies outside the trusted packages.

    Raises:
        ConfigError: With the packages that are allowed.
    """
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise ConfigError(f"`_target_: {target}` is not a dotted name such as alexnet_lab.models.AlexNet")
    if parts[0] not in (*TRUSTED_PACKAGES, *trusted):
        allowed = ", ".join((*TRUSTED_PACKAGES, *trusted))
        raise ConfigError(
            f"`_target_: {target}` lies outside the trusted packages ({allowed}); "
            f"if you trust it, set trusted_packages=[{parts[0]}]"
        )


def locate(target: str, trusted: tuple[str, ...] = ()) -> Callable[..., Any]:
    """The class or function of a dotted name such as `alexnet_lab.models.AlexNet`.

    Raises:
        ConfigError: The name is not trusted, does not exist, or is nothing that can be called.
    """
    check_target(target, trusted)
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"`_target_: {target}` was not found: {error}") from error
    if not callable(found):
        raise ConfigError(f"`_target_: {target}` is a {type(found).__name__}, which cannot be called")
    return found


def build(spec: Mapping[str, Any], *args: Any, trusted: tuple[str, ...] = (), **extra: Any) -> Any:
    """Calls the `_target_` of `spec` with `args`, the other keys of `spec`, and `extra`."""
    fields = {key: value for key, value in spec.items() if key != "_target_"}
    return locate(spec["_target_"], trusted)(*args, **fields, **extra)
