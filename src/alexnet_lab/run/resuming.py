"""A run that goes on: by its own config, from the last checkpoint that is whole."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.config import check_saved
from alexnet_lab.run import identity
from alexnet_lab.run.directory import RunDirectory
from alexnet_lab.training.checkpoint_io import ForeignCheckpointError, load_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

OWN_KEYS = ("resume=", "resume_force=", "trusted_packages=")
"""What the command line may say of a run that goes on."""


def saved_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The own config of the run to go on with, checked, and held against its last checkpoint.

    Args:
        config: With `resume`; `resume_force`, which lets the config differ from the checkpoint's; and
            `trusted_packages`: what the run's own config says of these does not count.

    Raises:
        ConfigError: The command line sets something else, or the run's config names what is not trusted.
        RunError: There is nothing to go on with, or the config is not that of the checkpoint.
    """
    others = [word for word in config.get("overrides", []) if not word.startswith(OWN_KEYS)]
    if others:
        raise ConfigError(f"resume takes the run's own config; it cannot be changed by {others[0]}")
    directory = RunDirectory(str(config["resume"]))
    result = directory.read_result()
    if result is not None and result.get("status") == "completed":
        raise RunError(f"{directory.path} is a finished run; there is nothing to go on with")
    given = {
        "run_dir": str(config["resume"]),
        "resume_force": bool(config.get("resume_force")),
    }
    try:
        checked = check_saved(directory.read_config() | given, config.get("trusted_packages", []))
    except ConfigError as error:
        raise ConfigError(f"{directory.config}: {error}") from error
    _, checkpoint = newest_whole(directory)
    identity.check_same_config(checkpoint, checked, directory.config, forced=given["resume_force"])
    identity.tell_other_code(checkpoint)
    return checked


def seconds_so_far(directory: RunDirectory) -> float:
    """How long a run had taken up to the checkpoint that it goes on from; says if that is not the last one."""
    return float(newest_whole(directory, tell=True)[1].get(identity.SECONDS, 0.0))


def newest_whole(directory: RunDirectory, *, tell: bool = False) -> tuple[Path, dict[str, Any]]:
    """The first of a run's checkpoints that is whole, the last one first, and what it holds.

    Args:
        directory: Of the run.
        tell: Say what is passed over.

    Raises:
        RunError: There is none, or one that asks for code to be run.
    """
    there = [path for path in (directory.last, directory.previous, directory.best) if path.exists()]
    damaged: list[RunError] = []
    for path in there:
        try:
            checkpoint = load_checkpoint(path)
        except ForeignCheckpointError:
            raise  # nothing of such a run is to be trusted
        except RunError as error:
            damaged.append(error)
            continue
        if damaged and tell:
            log.warning("%s; going on from %s, of %s", damaged[0], path.name, place_of(checkpoint))
        return path, checkpoint
    if damaged:
        raise damaged[0]
    raise RunError(f"{directory.path} has no checkpoint to go on from; start it again with its config.yaml")


def place_of(checkpoint: Mapping[str, Any]) -> str:
    """Where in a run a checkpoint was written: "epoch 3, step 120"."""
    return f"epoch {checkpoint.get('epoch', 0) + 1}, step {checkpoint.get('global_step', 0)}"
