"""Checks whether a checkpoint belongs to the config beside it: a run continues as the same experiment or not at all."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.base.flatten import within
from alexnet_lab.config import check_saved
from alexnet_lab.config.continuing import FORCED, RECORDS, ROUNDING, Difference, differences
from alexnet_lab.config.schema import Train
from alexnet_lab.run import provenance

log = logging.getLogger(__name__)

KEY = "config"
"""Checkpoint key: the config."""

SECONDS = "wall_seconds"
"""Checkpoint key: the run's time so far, over all attempts."""

CODE = "code"
"""Checkpoint key: the versions of the packages and a hash of this one's source."""


class KeepIdentity(Callback):
    """Saves the run's config, code and time so far in its checkpoints."""

    def __init__(self, config: Train) -> None:
        self.config = config.model_dump()
        self._code = provenance.code()
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """The run's time so far, over all attempts."""
        return time.monotonic() - self._start

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds config, code and time."""
        checkpoint |= {KEY: self.config, CODE: self._code, SECONDS: self.seconds}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continues to count the time."""
        self._start = time.monotonic() - checkpoint.get(SECONDS, 0.0)


def with_defaults(saved: dict[str, Any], trusted: Sequence[str]) -> dict[str, Any]:
    """A checkpoint's config, with defaults for keys that did not exist when it was written."""
    try:
        return check_saved(saved, trusted).model_dump()
    except ConfigError:  # the differences will show what is wrong
        return saved


def warn_of_other_code(checkpoint: Mapping[str, Any]) -> None:
    """Warns if the code differs from that of the checkpoint, since it may compute something else."""
    before, now = checkpoint.get(CODE, {}), provenance.code()
    changed = [f"{name} {before[name]} -> {now.get(name)}" for name in before if before[name] != now.get(name)]
    if changed:
        log.warning("the code has changed since the checkpoint: %s; the result may differ", ", ".join(changed))


def check_same_config(
    checkpoint: Mapping[str, Any], config: Train, path: Path, asked: set[str], *, forced: bool = False
) -> list[Difference]:
    """Refuses a config that describes another experiment than that of a checkpoint.

    Args:
        checkpoint: The content of the file; one without a config fits any.
        config: Of the run from now on.
        path: Of the run's config.yaml, for the message.
        asked: Keys that a command line has changed; others were changed in the file itself.
        forced: Warn instead, if the new value has an effect.

    Returns:
        All differences, including those that are free or extend the training.

    Raises:
        RunError: With the first keys that differ.
    """
    now = config.model_dump()
    found = list(differences(with_defaults(checkpoint.get(KEY, now), config.trusted_packages), now))
    others = [item for item in found if item.kind == "other" or (item.kind == "longer" and item.key not in asked)]
    if not others:
        return found
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    differing = [f"`{item.key}` is {item.new!r}, the checkpoint has {item.old!r}" for item in others[:3]]
    message = f"{path} is not the config of its checkpoint: {'; '.join(differing)}{more}"
    if not forced:
        raise RunError(f"{message}; restore it, start a new run, or set resume_force=true")
    for item in others:
        if item.kind == "other" and not within(item.key, FORCED):
            raise RunError(
                f"resume_force cannot change `{item.key}` from {item.old!r} to {item.new!r}: the checkpoint would "
                f"undo it; restore it, or start a new run"
            )
    log.warning("%s; resume_force continues anyway", message)
    return found


def log_free(found: list[Difference]) -> None:
    """Logs the free differences in one line, and whether bits may differ."""
    items = [item for item in found if item.kind == "free" and not within(item.key, RECORDS)]
    if items:
        rounding = any(within(item.key, ROUNDING) for item in items)
        note = "; losses agree to rounding, bits may differ" if rounding else ""
        log.info("from now on %s%s", ", ".join(map(str, items)), note)
