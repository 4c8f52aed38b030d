"""Default directories and names for runs and sweeps."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from alexnet_lab.base import shell
from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.flatten import within
from alexnet_lab.config.schema import Train

MAX_LENGTH, MAX_BYTES = 120, 255
"""Of a folder's name, in characters and in UTF-8; file systems allow no more bytes."""

OUTWARD = (
    "launcher", "logger", "sweep", "run_dir", "data.dir", "data.verify", "hydra", "model_summary",
    "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.num_threads", "trainer.progress_bar",
    "callbacks.augmentation_preview", "callbacks.cuda_graphs", "callbacks.layer_statistics", "callbacks.train_set",
    *(f"callbacks.checkpoint.{key}" for key in ("every_minutes", "every_steps", "every_epochs", "keep")),
)  # fmt: skip
"""Keys and groups that decide where and how a run is computed and what it shows, but not its result."""


@cache
def is_outward(key: str) -> bool:
    """Whether a key leaves the result of a run unchanged; the only table for sweeps, resumed runs and reports.

    Example:
        >>> is_outward("launcher.retries"), is_outward("trainer.devices"), is_outward("model.norm")
        (True, True, False)
    """
    return within(key.replace("/", "."), OUTWARD)


VARIANT = "sweep.variant"
"""The key that names a job's variant. It is only a label: the keys that the variant sets decide the result."""


def job_name(words: Iterable[str]) -> str:
    """Makes a job's folder name from its overrides; the seed comes last.

    Example:
        >>> job_name(["seed=0", "model.norm=lrn"])
        'model.norm-lrn_seed-0'
        >>> job_name(["sweep.variant=no_lrn", "seed=0"])
        'no_lrn_seed-0'
    """
    ordered = sorted(
        (word.lstrip("+~").removeprefix(f"{VARIANT}=") for word in words),
        key=lambda word: (word.startswith("seed="), word),
    )
    name = "_".join(re.sub(r"[^\w.+-]+", "-", word) for word in ordered) or "job"  # 1e+18 is not 1e-18
    return name if _cut(name) == name else f"{_cut(name, 9)}-{short_hash(ordered)}"


def _cut(name: str, reserved: int = 0) -> str:
    """The longest start of a name that leaves room for `reserved` more characters."""
    content = name[: MAX_LENGTH - reserved].encode("utf-8", "surrogateescape")  # of bytes that are no UTF-8
    return content[: MAX_BYTES - reserved].decode(errors="ignore")


def short_hash(words: Iterable[str]) -> str:
    """The first eight hexadecimal digits of a hash of some words."""
    return hashlib.sha256("\n".join(words).encode(errors="backslashreplace")).hexdigest()[:8]


def default_run_dir(model: str, data: str, now: str) -> str:
    """`logs/runs/<date>_<time>_<model>_<data>`; in a multirun without our sweeper, a folder of its directory."""
    if of_hydra("mode") != RunMode.MULTIRUN:
        return f"logs/runs/{now}_{model}_{data}"
    return f"{of_hydra('sweep.dir')}/{job_name(of_hydra('overrides.task'))}"


def of_hydra(path: str) -> Any:
    """A value below `hydra` in the config; empty while Hydra composes, when `~key` reads the former value of a key."""
    return OmegaConf.select(cast("DictConfig", HydraConfig.get()), path) if HydraConfig.initialized() else ""


DEFAULT_RUN_DIR = re.compile(r"logs/runs/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_.+")


def has_default_run_dir(config: Train) -> bool:
    """Whether the user has not chosen the run's directory, so another name is acceptable if this one is taken."""
    chosen = any(word.lstrip("+").startswith("run_dir=") for word in config.overrides)
    return not chosen and DEFAULT_RUN_DIR.fullmatch(config.run_dir) is not None


def check_multirun(argv: Sequence[str]) -> None:
    """Refuses sweep overrides without -m, which would silently train one run.

    Args:
        argv: The command line.

    Raises:
        ConfigError: -m is missing; the message contains the corrected command.
    """
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        return
    name = hydra.runtime.choices.get("sweep")
    words = (word for word in (*hydra.overrides.task, *hydra.overrides.hydra) if _is_of_sweep(word))
    word = next(words, None) if name is None else f"sweep={name}"
    if word is not None:
        command = shell.command(Path(argv[0]).name, "-m", *argv[1:])
        raise ConfigError(f"`{word}` compares several runs, and this command starts one; add -m: {command}")


def _is_of_sweep(word: str) -> bool:
    """Whether an override only has a meaning in a sweep."""
    key = word.lstrip("+").partition("=")[0]
    return key.startswith(("sweep.", "hydra.sweep.", "hydra.sweeper.")) and key != "sweep.dry_run"


def default_sweep_dir(choices: Mapping[str, Any], words: Iterable[str]) -> str:
    """A directory that depends only on the sweep, so the same command resumes it.

    Args:
        choices: The chosen file of each group.
        words: The overrides of the command line.

    Returns:
        `logs/sweeps/<sweep>_<model>_<data>`. Without `sweep=NAME`, the swept keys and a hash of the overrides that
        affect the result replace the name.
    """
    overrides = OverridesParser.create().parse_overrides(list(words))
    chosen = {item.key_or_group: str(item.input_line).partition("=")[2] for item in overrides}
    parts = [re.sub(r"[^\w.-]+", "-", str(chosen.get(group, choices[group]))) for group in ("model", "data")]
    if choices.get("sweep"):
        return "logs/sweeps/" + _cut("_".join([str(choices["sweep"]), *parts]))
    swept = [item.key_or_group.rpartition(".")[2] for item in overrides if item.is_sweep_override()]
    factors = "-".join(key for key in swept if key != "seed") or "seeds"
    compared = (
        item
        for item in overrides
        if item.is_sweep_override() or not is_outward(item.key_or_group) or item.key_or_group == "sweep.variants"
    )
    inward = sorted(str(item.input_line) for item in compared)
    return "logs/sweeps/" + _cut("_".join([factors, *parts]), 9) + f"_{short_hash(inward)}"


def variable(name: str, default: str | None) -> str | None:
    """An environment variable; an empty one counts as not set."""
    return os.environ.get(name) or default


def default_tags(*choices: str) -> ListConfig:
    """The comma-separated tags in WANDB_TAGS; without any, the chosen files."""
    tags = [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]
    return OmegaConf.create(tags or list(choices))


def for_model(target: str, choices: Mapping[str, Any]) -> Any:
    """Chooses a sweep's value by the class of the model.

    Args:
        target: The model's `_target_`.
        choices: By class name; `other` applies to all other classes.

    Example:
        >>> for_model("alexnet_lab.models.LeNet5", {"LeNet5": "max,average,min", "other": "overlapping"})
        'max,average,min'
    """
    name = target.rpartition(".")[2]
    return choices[name if name in choices else "other"]


def folder_name(path: str | None) -> str | None:
    """The last part of a path; None for no path."""
    return path.rstrip("/").rpartition("/")[2] if path else None
