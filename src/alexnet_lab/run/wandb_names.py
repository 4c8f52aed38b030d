"""Names of runs that fit into W&B's sidebar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_lab.base.checked_files import read_yaml
from alexnet_lab.base.errors import RunError
from alexnet_lab.config.default_paths import job_name

STAMPED = re.compile(r"\d{4}-(\d\d)-(\d\d)_(\d\d)-(\d\d)-\d\d_(.+)")
"""A default run directory: date, time, model and data."""

GROUP = re.compile(r"(?<![^_])(?:model|data|augment|loss|optimizer|schedule|trainer|callbacks)\.")
"""The group of a key, at its start."""

AGENT_FILE = "WANDB_SWEEP_PARAM_PATH"
"""The variable in which `wandb agent` names the file of a run's parameters."""


def short_name(folder: str) -> str:
    """The name of a run directory without what W&B shows elsewhere: year, seconds and groups of keys.

    Example:
        >>> short_name("2026-11-26_11-35-07_alexnet_cifar10")
        'alexnet_cifar10_1126-1135'
        >>> short_name("model.norm-lrn_optimizer.learning_rate-0.01_seed-0")
        'norm-lrn_learning_rate-0.01_seed-0'
    """
    stamped = STAMPED.fullmatch(folder)
    if stamped is not None:
        month, day, hour, minute, rest = stamped.groups()
        return f"{rest}_{month}{day}-{hour}{minute}"
    return GROUP.sub("", folder) or folder


def agent_name(environment: Mapping[str, str]) -> str | None:
    """The name of a run that `wandb agent` starts: its parameters; None without an agent.

    Args:
        environment: The environment variables.
    """
    try:
        content: Any = read_yaml(Path(environment[AGENT_FILE]))
        items = [f"{key}={item['value']}" for key, item in content.items() if key != "wandb_version"]
    except (KeyError, AttributeError, TypeError, OSError, RunError):
        return None
    return short_name(job_name(items)) if items else None
