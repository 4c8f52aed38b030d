"""Whether a checkpoint belongs to the config beside it: a run continues as the same experiment or not at all."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from lightning import Callback

from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.config import check_saved
from alexnet_lab.config.continuing import FORCED, RECORDS, ROUNDING, Difference, differences, within
from alexnet_lab.run import provenance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lightning import LightningModule, Trainer

log = logging.getLogger(__name__)

KEY = "config"
"""Of the config in a checkpoint."""

SECONDS = "wall_seconds"
"""Of the time that a run had taken, all its attempts together."""

CODE = "code"
"""Of the versions of the packages and of this one's source."""


class KeepIdentity(Callback):
    """Puts into a run's checkpoints what it is: config, code, and the time that it took so far."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self._code = provenance.code()
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """That the run has taken so far, all its attempts together."""
        return time.monotonic() - self._start

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the three."""
        checkpoint |= {KEY: self.config, CODE: self._code, SECONDS: self.seconds}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continues to count the time."""
        self._start = time.monotonic() - checkpoint.get(SECONDS, 0.0)


def with_defaults(saved: dict[str, Any], trusted: Sequence[str]) -> dict[str, Any]:
    """A checkpoint's config with the defaults of keys that did not exist when it was written."""
    try:
        return check_saved(saved, trusted)
    except ConfigError:  # the differences will say what is wrong
        return saved


def warn_of_other_code(checkpoint: Mapping[str, Any]) -> None:
    """Warns where the code is not that of the checkpoint: it may compute something else."""
    before, now = checkpoint.get(CODE, {}), provenance.code()
    changed = [f"{name} {before[name]} -> {now.get(name)}" for name in before if before[name] != now.get(name)]
    if changed:
        log.warning("the code has changed since the checkpoint: %s; the run may end otherwise", ", ".join(changed))


def check_same_config(
    checkpoint: Mapping[str, Any], config: Mapping[str, Any], path: Path, asked: set[str], *, forced: bool = False
) -> list[Difference]:
    """Refuses a config that describes another experiment than the one that a checkpoint was trained by.

    Args:
        checkpoint: What the file holds; one without a config fits any.
        config: Of the run from now on.
        path: Of the run's config.yaml, for the message.
        asked: Keys that a command line has changed; others were changed in the file itself.
        forced: Warn instead, where the new value takes effect.

    Returns:
        The differences, those that are free or let the run train further among them.

    Raises:
        RunError: With the first keys that differ.
    """
    found = list(differences(with_defaults(checkpoint.get(KEY, config), config["trusted_packages"]), config))
    others = [item for item in found if item.kind == "other" or (item.kind == "longer" and item.key not in asked)]
    if not others:
        return found
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    differing = [f"`{item.key}` is {item.new!r}, the checkpoint has {item.old!r}" for item in others[:3]]
    message = f"{path} is not the config of its checkpoint: {'; '.join(differing)}{more}"
    if not forced:
        raise RunError(f"{message}; bring it back to what it was, start a new run, or set resume_force=true")
    for item in others:
        if item.kind == "other" and not within(item.key, FORCED):
            raise RunError(
                f"resume_force cannot change `{item.key}` from {item.old!r} to {item.new!r}: the checkpoint would "
                f"undo it; bring it back to what it was, or start a new run"
            )
    log.warning("%s; resume_force continues anyway", message)
    return found


def log_free(found: list[Difference]) -> None:
    """Logs in one line the other differences, and whether bits may differ."""
    items = [item for item in found if item.kind == "free" and not within(item.key, RECORDS)]
    if items:
        rounding = any(within(item.key, ROUNDING) for item in items)
        note = "; losses agree to rounding, bits may differ" if rounding else ""
        log.info("from now on %s%s", ", ".join(map(str, items)), note)
