"""`compose(...)` for Python: composes the same config as a command line, without Hydra's global state."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase
from omegaconf import open_dict

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.config import resume_overrides
from alexnet_lab.config.command_line import arranged, unset_empty_data_variable
from alexnet_lab.config.default_paths import check_multirun
from alexnet_lab.config.hydra_adapter import VERSION_BASE
from alexnet_lab.config.main import plain, register_resolvers
from alexnet_lab.config.messages import MAY_BE_EXPLAINED, explain, refuse_lists
from alexnet_lab.config.validate import check_train

CONFIGS = Path(__file__).parents[3] / "configs"
"""The yaml files of the repository."""

NAME = "train"
"""The primary config."""


def compose(*overrides: str) -> dict[str, Any]:
    """Composes the config of one run for `alexnet_lab.train`, as `python train.py OVERRIDES` does.

    With `resume=RUN_DIR` the result is the request to resume that run, with the other overrides as changes.

    Args:
        overrides: In Hydra's grammar, one argument each.

    Returns:
        The complete, checked config: plain dictionaries, lists, numbers and strings.

    Raises:
        ConfigError: An override is wrong. The message names the key, the value and the allowed values.

    Example:
        >>> compose("model=alexnet", "data=cifar10", "trainer.max_epochs=1")["model"]["num_classes"]
        10
    """
    for word in overrides:
        if not isinstance(word, str) or word.startswith("-"):
            raise ConfigError(
                f"compose() takes overrides as separate arguments, e.g. 'trainer.max_epochs=1'; got {word!r}"
            )
    if not (CONFIGS / f"{NAME}.yaml").is_file():
        raise ConfigError(f"there is no {CONFIGS}; install a clone of the repository with pip install -e")
    register_resolvers()
    unset_empty_data_variable()
    words = arranged(overrides)
    try:
        with _command_line(words), _own_hydra():
            refuse_lists(CONFIGS)
            if resume_overrides.set_aside(CONFIGS) is not None:
                return resume_overrides.request(_composed(sys.argv[1:]), words, CONFIGS, NAME)
            return check_train(_composed(words)).model_dump()
    except MAY_BE_EXPLAINED as error:
        explained = explain(error, CONFIGS, NAME, runs=False)
        if explained is None:
            raise
        raise explained from None


def _composed(words: list[str]) -> dict[str, Any]:
    """The resolved config that Hydra composes from overrides."""
    config = hydra.compose(NAME, words, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    check_multirun(sys.argv)
    with open_dict(config):
        del config["hydra"]
    return plain(config)


@contextlib.contextmanager
def _own_hydra() -> Iterator[None]:
    """Within the block Hydra is initialised for our files; afterwards its state is restored."""
    running = GlobalHydra.instance().hydra
    current = HydraConfig.instance().cfg
    base = VersionBase.instance().version_base
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONFIGS), **VERSION_BASE):
            yield
    finally:
        GlobalHydra.instance().hydra = running
        HydraConfig.instance().cfg = current
        VersionBase.instance().version_base = base


@contextlib.contextmanager
def _command_line(words: list[str]) -> Iterator[None]:
    """Within the block `sys.argv` contains the overrides, for messages; a notebook's contains its kernel's file."""
    before, sys.argv = sys.argv, [f"{NAME}.py", *words]
    try:
        yield
    finally:
        sys.argv = before
