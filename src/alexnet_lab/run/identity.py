"""Whether a checkpoint belongs to the config beside it: a run goes on as what it was, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning import Callback

from alexnet_lab.base.errors import RunError
from alexnet_lab.base.nested import flat

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lightning import LightningModule, Trainer

KEY = "config"
"""Of the config in a checkpoint."""

FREE = ("run_dir", "resume", "trusted_packages", "launcher", "logger", "sweep", "overrides")
"""What may differ: a run directory may be moved, trust is given anew, and a sweep may go on under another launcher."""


class KeepConfig(Callback):
    """Puts the run's config into its checkpoints."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the config."""
        checkpoint[KEY] = self.config


def check_same_config(checkpoint: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> None:
    """Refuses a config that is not the one that a checkpoint was trained by; one without a config fits any.

    Args:
        checkpoint: What the file holds.
        config: To go on by.
        path: Of the run's config.yaml, for the message.

    Raises:
        RunError: With the first keys that differ.
    """
    found = differences(checkpoint.get(KEY, config), config)
    if found:
        others = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise RunError(
            f"{path} is not the config of its checkpoint: {'; '.join(found[:3])}{others}; "
            f"bring it back to what it was, or start a new run"
        )


def differences(trained: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """The keys in which two configs differ, with both values: "`seed` is 1, the checkpoint has 0"."""
    one, other = (flat({key: value for key, value in item.items() if key not in FREE}) for item in (trained, config))
    keys = [key for key in one | other if one.get(key, "nothing") != other.get(key, "nothing")]
    return [f"`{key}` is {other.get(key, 'nothing')!r}, the checkpoint has {one.get(key, 'nothing')!r}" for key in keys]
