"""All uses of Hydra's and OmegaConf's private API, each with its reason.

A test forbids private imports elsewhere, so an upgrade of Hydra only needs checking here.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import re
import sys
import traceback
from argparse import Action, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from alexnet_lab.base.errors import ConfigError

SETS_MODE = re.compile(r"^hydra:\n(?:[ #].*\n|\n)*? +mode:|searchpath:", re.MULTILINE)
"""Matches a yaml file that sets `hydra.mode`, or names folders with further files."""

ELSEWHERE = ("--config-dir", "--config-path", "-cd", "-cp", "hydra.searchpath", "+hydra.searchpath")
"""Prefixes of words that add config files from other folders."""


VERSION_BASE: dict[str, Any] = {} if hydra.__version__ >= "1.4" else {"version_base": "1.3"}
"""For Hydra's entry points: 1.3 requires the choice of its own rules, 1.4 warns about the argument."""


def register_resolver(name: str, resolver: Callable[..., Any]) -> None:
    """Makes a function available to the yaml files; OmegaConf 2.4 renames its own function."""
    renamed = "replace" in inspect.signature(OmegaConf.register_resolver).parameters
    register: Any = OmegaConf.register_resolver if renamed else OmegaConf.register_new_resolver
    register(name, resolver, replace=True)


def arguments() -> Namespace:
    """The command line as `hydra.main` reads it. Hydra parses it inside its own call, which is after our checks."""
    return get_args_parser().parse_known_args()[0]


def flags() -> dict[str, Action]:
    """The flags of Hydra's command line, used to reorder flags and to suggest names for misspelt ones."""
    return {flag: action for action in get_args_parser()._actions for flag in action.option_strings}


@contextlib.contextmanager
def composing_fast(config_dir: Path) -> Iterator[None]:
    """Within the block Hydra composes in a quarter of the time.

    - Before it looks up a group, Hydra copies all its sources, including the single store of plugin configs.
    - It composes everything an extra time only to read `hydra.mode`, which none of our files sets.
    - Composing creates thousands of small objects, most of which stay alive, so the garbage collector finds nothing.
    """
    get_mode = Hydra.get_mode
    ConfigStore.__deepcopy__ = lambda self, memo: self  # pyright: ignore[reportAttributeAccessIssue] - a singleton stays one
    if not _may_set_mode(config_dir):
        Hydra.get_mode = lambda self, *_, **__: None
    gc.disable()  # until the task begins
    try:
        yield
    finally:
        del ConfigStore.__deepcopy__  # pyright: ignore[reportAttributeAccessIssue]
        Hydra.get_mode = get_mode
        gc.enable()


@contextlib.contextmanager
def first_choices() -> Iterator[None]:
    """Within the block the config that all jobs of a sweep share has the first choice of each swept group.

    Hydra leaves swept groups out of it, and refuses keys that only their files have: `model.width=0.5` beside
    `model=alexnet,alexnet_caffe`. Jobs are composed from the words as typed.
    """
    compose = Hydra.compose_config

    def with_first(
        self: Hydra, config_name: str | None, overrides: list[str], run_mode: RunMode, *more: Any, **named: Any
    ) -> DictConfig:
        if run_mode != RunMode.MULTIRUN:
            return compose(self, config_name, overrides, run_mode, *more, **named)
        firsts = _first_choices(self, overrides)
        named.pop("parsed_overrides", None)  # Hydra 1.4 has parsed the words as typed
        words = [firsts.get(word, word) for word in overrides]
        config = compose(self, config_name, words, run_mode, *more, **named)
        for name in ("sweeper", "launcher"):
            if config.hydra[name] is None:
                raise ConfigError(f"`hydra.{name}` is null in the config, but -m needs it; leave it out")
        typed = {first: word for word, first in firsts.items()}
        config.hydra.overrides.task = [typed.get(word, word) for word in config.hydra.overrides.task]
        return config

    Hydra.compose_config = with_first
    try:
        yield
    finally:
        Hydra.compose_config = compose


def _first_choices(application: Hydra, words: list[str]) -> dict[str, str]:
    """For each word with several choices of a group, the word with the first of them."""
    loader = application.config_loader
    items = OverridesParser.create(config_loader=loader).parse_overrides(words)
    swept = [item for item in items if item.is_discrete_sweep() and loader.get_group_options(item.key_or_group)]
    firsts = [(item, next(item.sweep_string_iterator(), None)) for item in swept]  # a glob may find none
    return {str(item.input_line): f"{item.get_key_element()}={first}" for item, first in firsts if first is not None}


def _may_set_mode(config_dir: Path) -> bool:
    """Whether the command line or a yaml file may set `hydra.mode`; files in other folders are not read."""
    if any(word.startswith(ELSEWHERE) or "hydra.mode" in word for word in sys.argv[1:]):
        return True
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in config_dir.rglob("*.yaml"))
    return any(SETS_MODE.search(text) for text in texts)


def raised_by_hydra(error: BaseException) -> bool:
    """Whether Hydra's own code raised an error: it uses plain ValueErrors for mistakes on the command line."""
    frames = _frames(error)
    return bool(frames) and frames[-1].f_globals["__name__"].startswith("hydra.")


def composed_until(error: BaseException) -> DictConfig | None:
    """The config as far as Hydra had composed it when an override failed.

    It is taken from Hydra's frame that raised the error; composing it again would take a tenth of a second.
    """
    wanted = ConfigLoaderImpl._apply_overrides_to_config.__code__
    return next((frame.f_locals["cfg"] for frame in _frames(error) if frame.f_code is wanted), None)


def _frames(error: BaseException) -> list[FrameType]:
    """The frames from the one that caught an error to the one that raised it."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def apply_overrides(overrides: list[Override], config: DictConfig) -> None:
    """Sets the values of overrides, as the last step of composing does: a sweep composes each set of groups once."""
    ConfigLoaderImpl._apply_overrides_to_config(overrides, config)


def combinations(overrides: list[Override]) -> list[list[str]]:
    """The overrides of each job of a grid, in the order of Hydra's own sweeper."""
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    return jobs
