"""Turns Hydra's and OmegaConf's errors about a command line or yaml file into one line with the fix."""

from __future__ import annotations

import contextlib
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexnet_lab.base import targets
from alexnet_lab.base.errors import AlexNetLabError, ConfigError, did_you_mean, one_line
from alexnet_lab.base.flatten import at
from alexnet_lab.config.command_line import explain_several, explain_unreadable
from alexnet_lab.config.hydra_adapter import VERSION_BASE, arguments, composed_until, raised_by_hydra
from alexnet_lab.config.resume_overrides import group_names
from alexnet_lab.config.schema import LAUNCHER_OWNS, Trainer
from alexnet_lab.config.signatures import read_signature, torchvision_models
from alexnet_lab.config.unknown_keys import unknown_key
from alexnet_lab.config.validate import SUPPLIED

UNREADABLE = (yaml.YAMLError, UnicodeDecodeError)
"""What Hydra raises for a file that is no yaml."""

OF_THE_REQUEST = (AlexNetLabError, HydraException, OmegaConfBaseException, *UNREADABLE)
"""Errors that are always about a user's words or files."""

MAY_BE_EXPLAINED = (*OF_THE_REQUEST, OSError, AttributeError, ValueError)
"""The same, and errors of Python's that Hydra raises about some of them."""

PYTHON_ERRORS = {
    "Expected header format": "a config file cannot be read: {}",  # Hydra's ValueError about the first line of a file
    "Invalid loaded object type": "a config file cannot be read: {}; allowed: keys with values",  # OmegaConf's OSError
    "'NoneType' object has no attribute '_set_flag'": "`hydra` is null in the config; leave it out",  # AttributeError
}
"""What an error of Python's means, by a part of its text."""

MERGING = "Error merging override "
"""The start of Hydra's error about a value that OmegaConf does not take."""

MERGE_ERRORS = {
    "is not Optional": "give it a value, or leave it out",
    "to string": "give it one text; quote its commas and brackets",
    "DictConfig with ListConfig": "give it keys with values: {KEY: VALUE}",
}
"""The fix of such an error, by a part of OmegaConf's text."""

BAD_CHOICE = "Config group override must be a string"
"""The start of Hydra's ValueError about `logger=null`."""

SEVERAL = re.compile(
    r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'(?:$| requires --multirun)", re.MULTILINE
)
"""The start of Hydra's error about a word with several values without -m."""


def own_error(error: BaseException | None) -> AlexNetLabError | None:
    """The first error of ours among the causes, for example from a resolver."""
    while error is not None and not isinstance(error, AlexNetLabError):
        error = error.__cause__ or error.__context__
    return error


def omegaconf_error(error: OmegaConfBaseException) -> ConfigError:
    """OmegaConf's error with the key that it concerns."""
    message = one_line(error.msg or error).split(" full_key:")[0]
    key = None if str(error.full_key).startswith("hydra.overrides") else error.full_key  # a word, as typed
    if "Missing mandatory value" in message:
        key = key or message.rpartition(": ")[2]
        return ConfigError(f"`{key}` has no value; set it on the command line: {key}=...")
    return ConfigError(f"`{key}`: {message}" if key else message)


def explain(error: Exception, config_dir: Path, config_name: str, *, runs: bool) -> AlexNetLabError | None:
    """Explains an error about a command line or a yaml file in one line; None for an error about something else.

    Args:
        error: One of `MAY_BE_EXPLAINED`.
        config_dir: The folder of the yaml files.
        config_name: The primary config in it.
        runs: Whether the command can start several runs.
    """
    own = own_error(error) if isinstance(error, OF_THE_REQUEST) else None
    if own is not None:
        return own
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_choice(error, config_dir)
    if isinstance(error, OverrideParseException):
        return ConfigError(explain_unreadable(str(error.override)))
    unknown = UNKNOWN_KEY.search(str(error))
    key = next(filter(None, unknown.groups())).partition("@")[0] if unknown else ""
    config = composed_until(error) if key else None
    if key and config is None:
        config = _composed_without(config_dir, config_name, hydra_too=key.startswith("hydra."))
    if config is not None:  # otherwise a yaml file has the wrong key, not the command line
        return _unknown_override(key, config, groups_of(config_dir / f"{config_name}.yaml"))
    several = SEVERAL.match(str(error))
    if several:
        groups = groups_of(config_dir / f"{config_name}.yaml")
        return ConfigError(explain_several(several.group(1), groups, runs=runs))
    return _as_it_is(error) if isinstance(error, OF_THE_REQUEST) else _explain_python_error(error, config_dir)


UNKNOWN_KEY = re.compile(
    r"Could not override '([^']+)'"
    r"|No earlier Group Default for '([^']+)'"  # Hydra 1.4
    r"|Interpolation key '([^']+)' not found"  # a sweep's level names the model's own value, which the model lacks
)
"""Messages of Hydra and OmegaConf about a key that does not exist."""


def _as_it_is(error: Exception) -> ConfigError:
    """An error whose own text suffices."""
    if isinstance(error, UNREADABLE):
        return ConfigError(f"a config file cannot be read: {one_line(error)}")
    cause = f": {error.__cause__}" if error.__cause__ else ""
    if isinstance(error, OmegaConfBaseException):
        return omegaconf_error(error)
    fix = next((fix for part, fix in MERGE_ERRORS.items() if part in cause), None)
    if fix and str(error).startswith(MERGING):
        return ConfigError(f"`{str(error).removeprefix(MERGING)}`: {fix}")
    return ConfigError(one_line(f"{error}{cause}").split(" full_key:")[0])


def _explain_python_error(error: Exception, config_dir: Path) -> ConfigError | None:
    """The meaning of an error of Python's that Hydra or OmegaConf raises; None for one of other code."""
    text = str(error)
    if BAD_CHOICE in text:
        return _no_name(config_dir)
    meaning = next((meaning for part, meaning in PYTHON_ERRORS.items() if part in text), None)
    if meaning is None and isinstance(error, ValueError) and raised_by_hydra(error):
        meaning = "{}"
    return None if meaning is None else ConfigError(meaning.format(text))


def _no_name(config_dir: Path) -> ConfigError:
    """The error for a choice that is no file of its group, such as `logger=null`."""
    for word in arguments().overrides:
        group, _, choice = word.partition("=")
        files = sorted(path.stem for path in (config_dir / group).glob("*.yaml"))
        if files and choice not in files and not (group == "callbacks" and choice.startswith("[")):
            return ConfigError(f"`{word}`: a group takes the name of one of its files; there are {', '.join(files)}")
    return ConfigError("a group takes the name of one of its files")


def refuse_lists(config_dir: Path) -> None:
    """Raises ConfigError for a list of files of one group: Hydra would merge all of them, as only callbacks can be."""
    groups = group_names(config_dir) - {"callbacks"}
    for word in arguments().overrides:
        if word.partition("=")[2].startswith("[") and word.partition("=")[0] in groups:
            raise _no_name(config_dir)


def _missing_choice(error: MissingConfigException, config_dir: Path) -> ConfigError:
    """The error for a group without a file of the chosen name."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    if not group:
        return ConfigError(f"there is no config `{name}`: {one_line(error)}")
    files = sorted(path.stem for path in (config_dir / group).glob("*.yaml"))  # Hydra lists none for one of several
    problem, options = f"there is no `{group}={name}`", [str(item) for item in error.options or files]
    theirs = torchvision_models() if group == "model" else []
    nearest = get_close_matches(name.lower(), [*options, *theirs], n=1)
    if nearest and nearest[0] not in options:
        return ConfigError(
            f"{problem}, but torchvision has a {nearest[0]}; type model=torchvision model.name={nearest[0]}"
        )
    return ConfigError(f"{problem}; {did_you_mean(name, options)}")


def groups_of(file: Path) -> list[str]:
    """The groups that the command line may choose from, read from the defaults list of a primary config."""
    entries = yaml.safe_load(file.read_text(encoding="utf-8")).get("defaults", [])
    names = [next(iter(entry)).split()[-1] for entry in entries if isinstance(entry, dict)]
    return [name for name in names if "/" not in name]


def _unknown_override(key: str, config: DictConfig, groups: list[str]) -> ConfigError:
    """The error for a key that does not exist; names its first wrong part."""
    plain = cast("dict[str, Any]", OmegaConf.to_container(config))  # without resolving what may not exist
    node: Any = plain
    parts = key.split(".")
    for place, part in enumerate(parts):
        names = [str(name) for name in node if not str(name).startswith("_")] if isinstance(node, dict) else []
        if part not in names:
            known = [name for name in names if name != "hydra"] + groups if node is plain else names
            whole = dict.fromkeys(groups) | plain
            target = _target_with_field(key, whole)
            if target is not None:
                return ConfigError(f"`{key}` is not set in the config; to pass it to {target}, type +{key}=...")
            return ConfigError(f"{unknown_key(key, known, whole, '.'.join(parts[: place + 1]))}{how_to_add(key)}")
        node = node[part]
    choose = "choose one of its files, or " if key in groups else ""
    add = f"set its keys: {key}.KEY=value" if node else f"add keys: +{key}.KEY=value"
    return ConfigError(f"`{key}` is a group of keys and takes no value; {choose}{add}")


def _target_with_field(key: str, config: dict[str, Any]) -> str | None:
    """The `_target_` of a key's group, if it takes a field of that name which the config does not set."""
    group, _, name = key.rpartition(".")
    target = at(config, f"{group}._target_")
    if not isinstance(target, str) or name in SUPPLIED.get(group, ()):
        return None
    with contextlib.suppress(ConfigError):  # the check of the group reports a wrong target
        signature = read_signature(target)
        return target if signature and name in signature.fields else None
    return None


def how_to_add(key: str) -> str:
    """How to add this key, or the reason why it cannot be added."""
    group, _, name = key.partition(".")
    if group in targets.SEVERAL and name.endswith("._target_"):
        return f"; to add a part, type +{key}=..."
    if group != "trainer" or name in Trainer.model_fields:
        return ""
    if name in LAUNCHER_OWNS:
        return f"; `{name}` cannot be set: {LAUNCHER_OWNS[name]}"
    signature = read_signature("lightning.Trainer")
    return f"; to pass it to lightning.Trainer, type +{key}=..." if signature and name in signature.fields else ""


def _composed_without(config_dir: Path, config_name: str, *, hydra_too: bool) -> DictConfig | None:
    """The config with the groups chosen on the command line, without the other overrides; None: it has errors too."""
    given = arguments()
    groups = group_names(config_dir)
    chosen = [word for word in given.overrides if word.partition("=")[0] in groups]
    if given.config_dir is not None:
        chosen.append(f"hydra.searchpath=[file://{Path(given.config_dir).absolute()}]")
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir), **VERSION_BASE):
        for words in (chosen, []):
            with contextlib.suppress(HydraException, OmegaConfBaseException):  # the first error is the one to report
                return hydra.compose(config_name, words, return_hydra_config=hydra_too)
    return None
