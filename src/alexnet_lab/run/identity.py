"""Whether a checkpoint belongs to the config beside it: a run goes on as what it was, or not at all."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from lightning import Callback

from alexnet_lab.base.errors import RunError
from alexnet_lab.base.nested import flat
from alexnet_lab.run import provenance

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lightning import LightningModule, Trainer

log = logging.getLogger(__name__)

KEY = "config"
"""Of the config in a checkpoint."""

SECONDS = "wall_seconds"
"""Of the time that a run had taken, all its attempts together."""

CODE = "code"
"""Of the versions of the packages and of this one's source."""

FREE = ("run_dir", "resume", "resume_force", "trusted_packages", "launcher", "logger", "sweep", "overrides")
"""What may differ: a run directory may be moved, trust is given anew, and a sweep may go on under another launcher."""


class KeepIdentity(Callback):
    """Puts into a run's checkpoints what it is: config, code, and the time that it took so far."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self._code = provenance.code()
        self._start = time.monotonic()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the three."""
        checkpoint |= {KEY: self.config, CODE: self._code, SECONDS: time.monotonic() - self._start}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Goes on counting the time."""
        self._start = time.monotonic() - checkpoint.get(SECONDS, 0.0)


def tell_other_code(checkpoint: Mapping[str, Any]) -> None:
    """Warns where the code is not that of the checkpoint: what it computes may be the same, or not."""
    before, now = checkpoint.get(CODE, {}), provenance.code()
    changed = [f"{name} {before[name]} -> {now.get(name)}" for name in before if before[name] != now.get(name)]
    if changed:
        log.warning("the code has changed since the checkpoint: %s; the run may end otherwise", ", ".join(changed))


def check_same_config(
    checkpoint: Mapping[str, Any], config: Mapping[str, Any], path: Path, *, forced: bool = False
) -> None:
    """Refuses a config that is not the one that a checkpoint was trained by; one without a config fits any.

    Args:
        checkpoint: What the file holds.
        config: To go on by.
        path: Of the run's config.yaml, for the message.
        forced: Warn instead.

    Raises:
        RunError: With the first keys that differ.
    """
    found = differences(checkpoint.get(KEY, config), config)
    if found:
        others = f" and {len(found) - 3} more" if len(found) > 3 else ""
        message = f"{path} is not the config of its checkpoint: {'; '.join(found[:3])}{others}"
        if not forced:
            raise RunError(f"{message}; bring it back to what it was, start a new run, or set resume_force=true")
        log.warning("%s; resume_force goes on", message)


def differences(trained: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """The keys in which two configs differ, with both values: "`seed` is 1, the checkpoint has 0"."""
    one, other = (flat({key: value for key, value in item.items() if key not in FREE}) for item in (trained, config))
    keys = [key for key in one | other if one.get(key, "nothing") != other.get(key, "nothing")]
    return [f"`{key}` is {other.get(key, 'nothing')!r}, the checkpoint has {one.get(key, 'nothing')!r}" for key in keys]
