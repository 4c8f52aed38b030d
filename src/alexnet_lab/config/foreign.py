"""Config files from elsewhere (`--config-path`, `--config-dir`, `hydra.searchpath`) choose values; they start nothing.

Hydra calls what the node `hydra` of a config names, and sets environment variables by it, before any check of ours
could look: so that node is composed beforehand, and only what the command line itself says may call something.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.types import RunMode
from omegaconf import OmegaConf

from alexnet_lab.base.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.")
"""Where launchers and sweepers come from."""

TRUST = "trusted_packages"


def is_foreign() -> bool:
    """Whether this command line takes config files from elsewhere."""
    arguments, _ = get_args_parser().parse_known_args()
    elsewhere = arguments.config_path is not None or arguments.config_dir is not None
    return elsewhere or any("hydra.searchpath" in word for word in arguments.overrides)


def check_hydra(config_dir: Path, config_name: str) -> None:
    """Refuses what Hydra itself would call or set, where config files from elsewhere ask for it.

    Args:
        config_dir: The folder of our yaml files.
        config_name: The primary config, unless the command line names another.

    Raises:
        ConfigError: Naming the key.
    """
    arguments, _ = get_args_parser().parse_known_args()
    path = create_config_search_path(arguments.config_path or str(config_dir))
    if arguments.config_dir is not None:
        folder = f"file://{Path(arguments.config_dir).absolute()}"
        path.prepend("command-line", folder, SearchPathQuery(provider="schema"))
    named = arguments.config_name or config_name
    composed = ConfigLoaderImpl(path).load_configuration(
        named, arguments.overrides, RunMode.MULTIRUN, validate_sweep_overrides=False
    )
    words = {word.partition("=")[0].lstrip("+~") for word in arguments.overrides}
    node: Any = OmegaConf.to_container(composed.hydra, resolve=False)
    for key in _dangerous(node):
        if not any(key == word or key.startswith(f"{word}.") for word in words):
            raise ConfigError(
                f"`{key}` is set by a config file from elsewhere, and would be called or put into the environment; "
                f"take it out there, or say it on the command line"
            )


def _dangerous(node: Mapping[str, Any]) -> Iterator[str]:
    """The keys of the node `hydra` that call something other than Hydra's plugins and Python's logging."""
    for name in node.get("callbacks") or {}:
        yield f"hydra.callbacks.{name}"
    for name in (node.get("job") or {}).get("env_set") or {}:
        yield f"hydra.job.env_set.{name}"
    for name in ("launcher", "sweeper"):
        for key, target in _targets(node.get(name), f"hydra.{name}", "_target_"):
            if not str(target).startswith(PLUGINS):
                yield key
    for name in ("job_logging", "hydra_logging"):
        yield from (key for key, _ in _targets(node.get(name), f"hydra.{name}", "()"))
        classes = _targets(node.get(name), f"hydra.{name}", "class")
        yield from (key for key, target in classes if not str(target).startswith("logging."))


def _targets(node: Any, path: str, wanted: str) -> Iterator[tuple[str, Any]]:
    """Path and value of each key `wanted`, however deep."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if key == wanted:
            yield f"{path}.{key}", value
        yield from _targets(value, f"{path}.{key}", wanted)


def trust_is_typed() -> bool:
    """Whether the command line itself says whom to trust."""
    arguments, _ = get_args_parser().parse_known_args()
    return any(word.partition("=")[0].lstrip("+") == TRUST for word in arguments.overrides)


def refuse_trust(config: Mapping[str, Any]) -> None:
    """Refuses packages that a config file from elsewhere trusts: only who types the command may trust.

    Raises:
        ConfigError: With what to type.
    """
    if config.get(TRUST):
        raise ConfigError(
            f"`{TRUST}` is {config[TRUST]} in a config file from elsewhere, which cannot grant trust to itself; "
            f"if you trust them, say so on the command line: {TRUST}=[{','.join(map(str, config[TRUST]))}]"
        )
