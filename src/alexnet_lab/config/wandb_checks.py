"""Checks names and modes that Weights & Biases would refuse at the start of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.targets import OURS, parts
from alexnet_lab.config.schema import Train

OURS_AT_WANDB = f"{OURS}.run.tracking.wandb_logger"
"""The `_target_` of configs/logger/wandb.yaml."""

MODES = {"online": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}
"""The allowed values of WANDB_MODE, and their meaning."""

LONGEST = {"project": 128, "entity": 128, "name": 128, "group": 128, "job_type": 128, "tags": 64}
"""In characters."""

FORBIDDEN = {"project": "/\\#?%:", "entity": "/\\#?%:"}
"""Characters that W&B does not accept."""

VARIABLES = {"project": "WANDB_PROJECT", "entity": "WANDB_ENTITY", "name": "WANDB_NAME", "tags": "WANDB_TAGS"}
"""Environment variables that the config's defaults read."""


def check_wandb(config: Train, environment: Mapping[str, str]) -> None:
    """Raises ConfigError for a name, tag or mode that W&B does not accept; other loggers are not checked.

    Args:
        config: Of a run.
        environment: The environment variables.
    """
    for key, logger in parts({"logger": config.logger}).items():
        if logger["_target_"] == OURS_AT_WANDB:
            _check_logger(key, logger, config.tags, environment)


def _check_logger(
    logger_key: str, logger: Mapping[str, Any], tags: Sequence[str], environment: Mapping[str, str]
) -> None:
    texts = {f"{logger_key}.{field}": (field, logger.get(field)) for field in LONGEST if field != "tags"}
    texts |= {f"tags.{number}": ("tags", tag) for number, tag in enumerate(tags)}
    for key, (field, text) in texts.items():
        if text is not None:
            _check_text(f"`{key}`{_source(field, text, environment)}", field, text)
    mode = environment.get("WANDB_MODE")
    if mode and mode not in MODES and logger["mode"] == "auto":
        raise ConfigError(
            f"the environment variable WANDB_MODE is {mode!r}; allowed: {', '.join(MODES)}; "
            f"or set {logger_key}.mode=offline"
        )


def _source(field: str, text: str, environment: Mapping[str, str]) -> str:
    """Names the environment variable that a text comes from, if any."""
    variable = VARIABLES.get(field, "")
    given = environment.get(variable, "")
    values = [tag.strip() for tag in given.split(",")] if field == "tags" else [given]
    return f" (from {variable})" if text in values else ""


def check_names(names: Mapping[str, str | None]) -> None:
    """Raises ConfigError for a name that W&B does not accept.

    Args:
        names: By `project` or `entity`.
    """
    for field, text in names.items():
        if text is not None:
            _check_text(f"`{field}`", field, text)


def _check_text(key: str, field: str, text: str) -> None:
    found = [sign for sign in FORBIDDEN.get(field, "") if sign in text]
    if found:
        allowed = " ".join(FORBIDDEN[field])
        raise ConfigError(f"{key} is {text!r}, but W&B accepts none of the characters {allowed} in it; remove them")
    if len(text) > LONGEST[field]:
        raise ConfigError(
            f"{key} has {len(text)} characters ({text[:20]!r}...); W&B accepts at most {LONGEST[field]}: shorten it"
        )


SCHEME = "wandb:"
"""The start of `run=wandb:ENTITY/PROJECT/RUN`."""


def parts_of_reference(text: str) -> tuple[str, str, str]:
    """Entity, project and run of `wandb:ENTITY/PROJECT/RUN`.

    Raises:
        ConfigError: It has another form.

    Example:
        >>> parts_of_reference("wandb:team/alexnet-lab/1a2b3c4d")
        ('team', 'alexnet-lab', '1a2b3c4d')
    """
    names = text.removeprefix(SCHEME).split("/")
    if len(names) != 3 or any(not re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII) for name in names):
        raise ConfigError(
            f"`run` is {text!r}; allowed: wandb:ENTITY/PROJECT/RUN with the id of a run, as in the address of its page"
        )
    return names[0], names[1], names[2]
