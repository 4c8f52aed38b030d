"""The run that a config requests, new or resumed, checked without heavy imports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_lab.base import shell
from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.flatten import changed, nested
from alexnet_lab.base.targets import packages_beyond
from alexnet_lab.config import check_saved, check_train, continuing
from alexnet_lab.config.schema import Train
from alexnet_lab.run.run_directory import RunDirectory

COMPOSE = 'compose a complete one: alexnet_lab.compose("model=lenet5", "data=digits", "trainer.max_epochs=1")'
"""The fix for an incomplete config."""


def checked(config: Mapping[str, Any]) -> Train:
    """The checked config of the requested run, a new or a resumed one.

    Raises:
        ConfigError: The config is wrong, or incomplete.
        RunError: See `requested`.
    """
    if not isinstance(config, dict):
        raise ConfigError(f"train() takes a dictionary, got {type(config).__name__}; {COMPOSE}")
    if config.get("resume"):
        return requested(config)
    missing = [f"`{name}`" for name, field in Train.model_fields.items() if field.is_required() and name not in config]
    if missing:
        raise ConfigError(f"the config lacks {', '.join(missing)}; {COMPOSE}")
    if config.get("resume_force"):
        raise ConfigError("`resume_force` only applies to a resumed run; add resume=RUN_DIR")
    return check_train(config)


def requested(config: Mapping[str, Any]) -> Train:
    """The checked config of a resumed run with the changes of the command line, without heavy imports.

    Args:
        config: With `resume`, and optionally `changes` (values by dotted key), `overrides` (the words they come from),
            `resume_force` and `trusted_packages`. The run's own values of these do not count.

    Raises:
        ConfigError: A change is wrong, or would make another experiment of the run.
        RunError: There is no run, or its config cannot be read.
    """
    run = str(config["resume"])
    directory = RunDirectory(run)
    given = {"run_dir": run, "resume": None, "resume_force": config.get("resume_force", False)}
    trusted, changes = list(config.get("trusted_packages", [])), config.get("changes") or {}
    if Path(changes.get("run_dir", run)) != directory.path:
        raise ConfigError("`run_dir`: a run stays in its directory; copy that first (cp -r), and resume the copy")
    try:
        saved = check_saved(directory.read_config() | given, trusted).model_dump()
    except ConfigError as error:
        raise ConfigError(f"{directory.config}: {error}") from error
    trusted = sorted({*trusted, *packages_beyond(nested(changes))})  # the command line is code
    checked = check_saved(changed(saved, {**changes, **given}), trusted)
    continuing.check_changes(saved, checked.model_dump())
    if checked.launcher.slurm:
        raise ConfigError("`launcher=slurm` sends jobs of a sweep to the cluster; continue this run by srun")
    return checked.model_copy(update={"overrides": merged(saved["overrides"], config.get("overrides", []))})


def merged(before: list[str], now: list[str]) -> list[str]:
    """Merges the words of a run's command line with those that resume it; for the same key the later word wins.

    Example:
        >>> merged(["seed=1", "trainer.max_epochs=2"], ["resume=RUN", "trainer.max_epochs=4"])
        ['seed=1', 'trainer.max_epochs=4']
    """
    words = {shell.override_key(word): word for word in [*before, *now]}
    return [word for key, word in words.items() if key not in ("resume", "resume_force", "trusted_packages")]
