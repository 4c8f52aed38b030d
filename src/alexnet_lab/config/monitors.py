"""The metrics that a config names, and the keys that wait for one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alexnet_lab.base.errors import ConfigError, did_you_mean

COUNTED = ("loss", "top1_error", "top5_error")
"""What every run measures."""

RESERVED = (*COUNTED, "early_loss", "final_loss", "final_top1_error")
"""Names that a metric of the config cannot have."""


def monitors(config: Mapping[str, Any]) -> dict[str, str]:
    """The monitored metric of each key that has one."""
    callbacks = config["callbacks"]
    found = {
        "callbacks.checkpoint.monitor": callbacks["checkpoint"]["monitor"],
        "callbacks.early_stopping.monitor": (callbacks["early_stopping"] or {}).get("monitor"),
        "schedule.monitor": (config["schedule"] or {}).get("monitor"),
    }
    return {key: monitor for key, monitor in found.items() if isinstance(monitor, str)}


def check_metrics(config: Mapping[str, Any]) -> None:
    """Refuses names that a metric cannot have, and monitors that nothing measures.

    Raises:
        ConfigError: With the allowed names.
    """
    names = [name for name, spec in config["metrics"].items() if spec is not None]
    for name in names:
        if not name.isidentifier() or name in RESERVED:
            raise ConfigError(
                f"`metrics.{name}`: the name has to be a word of letters, digits and _, other than "
                f"{', '.join(RESERVED)}; choose another"
            )
    for key, monitor in monitors(config).items():
        if monitor.partition("/")[2] not in (*COUNTED, *names):
            known = [f"val/{name}" for name in (*COUNTED, *names)]
            raise ConfigError(f"`{key}` is {monitor}, which nothing measures; {did_you_mean(monitor, known)}")
