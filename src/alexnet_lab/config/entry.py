"""The way in: Hydra composes, every error becomes one line, and nothing is written before the config is valid."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hydra
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexnet_lab.base import cluster, cores, shell
from alexnet_lab.base.errors import AlexNetLabError, ConfigError, Interrupted, RunError, did_you_mean, one_line
from alexnet_lab.base.log import start_log
from alexnet_lab.base.terminal import outlive_terminal
from alexnet_lab.config import request
from alexnet_lab.config.names import default_run_dir, default_sweep_dir, default_tags, folder_name, variable
from alexnet_lab.config.signatures import read_signature
from alexnet_lab.config.words import arranged, expand_paths, explain_unreadable, settle_data_variable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FULL_ERROR = "HYDRA_FULL_ERROR"
"""Hydra's own switch for tracebacks; ours follows it."""

FLAGS = {"--dry-run": "sweep.dry_run=true"}
"""Flags of ours, which Hydra does not know, and the overrides that they stand for."""

SHARED = ("train",)
"""The commands that several processes may do together."""

UNREADABLE = (yaml.YAMLError, UnicodeDecodeError)
"""What Hydra lets through of a file that is no yaml."""

BAD_HEADER = "Expected header format"
"""How Hydra's ValueError about the first line of a yaml file begins."""

BAD_CHOICE = "Config group override must be a string"
"""How Hydra's ValueError about `logger=null` begins."""


def main(task: Callable[[dict[str, Any]], None], config_dir: Path, config_name: str) -> None:
    """Composes the config from the command line and calls `task` with it, once for each job.

    Exits with 0 if every job succeeded, 2 for a request that is wrong, 1 for a job that failed, 130 after Ctrl-C.

    Args:
        task: Takes the resolved config as plain dictionaries.
        config_dir: The folder of the yaml files.
        config_name: The primary config in it, e.g. "train".
    """
    outlive_terminal()
    traceback_wanted = os.environ.get(FULL_ERROR, "") not in ("", "0")
    register_resolvers()
    settle_data_variable()
    job = _Job(task, traceback_wanted=traceback_wanted)
    try:
        start_log()
        cluster.settle()
        cores.sleep_while_waiting()
        if config_name not in SHARED:
            cluster.require_alone(f"{config_name}.py")
        with _hastily(), _value_errors_told(config_dir):
            sys.argv[1:] = arranged(FLAGS.get(word, word) for word in sys.argv[1:])
            _refuse_rerun()
            words = request.set_aside(config_dir)
            if words is not None:
                job.continuing = partial(request.request, words=words, config_dir=config_dir, config_name=config_name)
            _anchor_config_path()
            with _errors_handed_on():
                hydra.main(version_base="1.3", config_path=str(config_dir), config_name=config_name)(job.run)()
    except KeyboardInterrupt as error:
        if not isinstance(error.__cause__, Interrupted):  # of which nothing was said yet
            _complain(Interrupted(f"{one_line(error) or 'interrupted'}; start it again: {shell.typed()}"))
        sys.exit(Interrupted.exit_code)
    except (AlexNetLabError, HydraException, OmegaConfBaseException, *UNREADABLE) as error:
        if traceback_wanted:
            raise
        _complain(_explain(error, config_dir, config_name))
        # an error of ours is that of a sweep as a whole
        sys.exit(getattr(error, "exit_code", ConfigError.exit_code))
    sys.exit(job.exit_code)


@contextlib.contextmanager
def _hastily() -> Iterator[None]:
    """Within the block Hydra composes in half the time: thousands of small objects, most of which stay.

    Before each look at a group Hydra copies all its sources, and in them the one store of the configs that plugins
    bring; and the collector of cyclic garbage goes through all that is there again and again.
    """
    ConfigStore.__deepcopy__ = lambda self, memo: self  # pyright: ignore[reportAttributeAccessIssue] - a singleton stays one
    gc.disable()  # until the task begins
    try:
        yield
    finally:
        gc.enable()


def register_resolvers() -> None:
    """Lets the yaml files call the functions of `RESOLVERS`."""
    for name, resolver in RESOLVERS.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


@contextlib.contextmanager
def _errors_handed_on() -> Iterator[None]:
    """Within the block Hydra raises its errors instead of printing them."""
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = before


@contextlib.contextmanager
def _value_errors_told(config_dir: Path) -> Iterator[None]:
    """Within the block the ValueErrors that Hydra lets through, of what a user wrote, are errors of ours."""
    try:
        yield
    except ValueError as error:
        if BAD_HEADER in str(error):
            raise ConfigError(f"a config file cannot be read: {error}") from error
        if BAD_CHOICE in str(error):
            raise _no_name(config_dir) from error
        raise


def _no_name(config_dir: Path) -> ConfigError:
    """What is chosen of a group is no name: `logger=null`."""
    for word in get_args_parser().parse_known_args()[0].overrides:
        group, _, choice = word.partition("=")
        files = sorted(path.stem for path in (config_dir / group).glob("*.yaml"))
        if files and choice not in files:
            return ConfigError(f"`{word}`: a group takes the name of one of its files; there are {', '.join(files)}")
    return ConfigError("a group takes the name of one of its files")


def _refuse_rerun() -> None:
    """Raises ConfigError for Hydra's `--experimental-rerun`, which unpickles a file of a run directory."""
    if get_args_parser().parse_known_args()[0].experimental_rerun is not None:
        raise ConfigError("--experimental-rerun unpickles a file, which can run code; take --config-path RUN_DIR")


def _anchor_config_path() -> None:
    """A relative `--config-path RUN_DIR` starts here, not (Hydra's rule) at the file of the decorated function.

    The config of a run says nothing of Hydra, whose own defaults would leave a folder `outputs`.
    """
    arguments, _ = get_args_parser().parse_known_args()
    path = arguments.config_path
    if path is None:
        return
    if not path.startswith("pkg://") and not Path(path).is_absolute():
        sys.argv += ["--config-path", str(Path(path).absolute())]  # the last one counts
    place = (
        sys.argv.index(arguments.overrides[0]) if arguments.overrides else 1
    )  # argparse wants overrides side by side
    sys.argv[place:place] = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]


class _Job:
    """The task as Hydra calls it, once or many times; it remembers the worst exit code."""

    def __init__(self, task: Callable[[dict[str, Any]], None], *, traceback_wanted: bool) -> None:
        self.task = task
        self.traceback_wanted = traceback_wanted
        self.exit_code = 0
        self.continuing: Callable[[dict[str, Any]], dict[str, Any]] | None = None  # with resume=RUN

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrived in another process (joblib, submitit), which composes its job there."""
        outlive_terminal()
        self.__dict__ |= state
        register_resolvers()

    def run(self, config: DictConfig) -> None:
        gc.enable()
        try:
            resolved = plain(config)
            with _missing_packages_reported():
                self.task(resolved if self.continuing is None else self.continuing(resolved))
        except AlexNetLabError as error:
            if self.traceback_wanted:
                raise
            _complain(error)
            if isinstance(error, Interrupted):
                raise KeyboardInterrupt from error  # ends a sweep too; Hydra would go on with the next job
            self.exit_code = max(self.exit_code, error.exit_code)


@contextlib.contextmanager
def _missing_packages_reported() -> Iterator[None]:
    """Within the block a package that is not installed is an error of ours."""
    try:
        yield
    except ModuleNotFoundError as error:
        hint = f"`make train` installs what is missing; {FULL_ERROR}=1 shows where it is needed"
        raise RunError(f"{error}; {hint}") from error


def _complain(error: AlexNetLabError) -> None:
    print(error if isinstance(error, Interrupted) else f"error: {error}", file=sys.stderr)


def plain(config: DictConfig) -> dict[str, Any]:
    """The config without interpolations, `~` expanded; raises ConfigError where a value is missing or unresolved."""
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise _own_error(error) or _omegaconf_error(error) from None
    expand_paths(cast("dict[str, Any]", plain))
    return cast("dict[str, Any]", plain)


def _own_error(error: BaseException | None) -> AlexNetLabError | None:
    """An error of ours among the causes: a resolver's, say."""
    while error is not None and not isinstance(error, AlexNetLabError):
        error = error.__cause__ or error.__context__
    return error


def _omegaconf_error(error: OmegaConfBaseException) -> ConfigError:
    message = one_line(error.msg or error).split(" full_key:")[0]
    if "Missing mandatory value" in message:
        return ConfigError(f"`{error.full_key}` has no value; set it on the command line: {error.full_key}=...")
    return ConfigError(f"`{error.full_key}`: {message}")


def _explain(error: Exception, config_dir: Path, config_name: str) -> AlexNetLabError:
    """Hydra's complaint about a command line or a yaml file, in one line."""
    own = _own_error(error)
    if own is not None:
        return own
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_choice(error)
    if isinstance(error, OverrideParseException):
        return ConfigError(explain_unreadable(str(error.override)))
    # the second: a sweep's levels may name the model's own value, ${model.norm}, where the model has none
    unknown = re.search(r"Could not override '([^']+)'|Interpolation key '([^']+)' not found", str(error))
    if unknown:
        key = (unknown.group(1) or unknown.group(2)).partition("@")[0]
        config = _composed_until(error)
        if config is None:
            config = _composed_without(config_dir, config_name, hydra_too=key.startswith("hydra."))
        return _unknown_override(key, config, groups_of(config_dir / f"{config_name}.yaml"))
    if isinstance(error, UNREADABLE):
        return ConfigError(f"a config file cannot be read: {one_line(error)}")
    cause = f": {error.__cause__}" if error.__cause__ else ""
    return _omegaconf_error(error) if isinstance(error, OmegaConfBaseException) else ConfigError(f"{error}{cause}")


def _missing_choice(error: MissingConfigException) -> ConfigError:
    """A group has no file of the name that was chosen."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    if not group:
        return ConfigError(f"there is no config `{name}`: {one_line(error)}")
    if group == "model" and _is_of_torchvision(name):
        return ConfigError(
            f"there is no `model={name}`, but torchvision has a {name}; type model=torchvision model.name={name}"
        )
    return ConfigError(
        f"there is no `{group}={name}`; {did_you_mean(name, [str(item) for item in error.options or ()])}"
    )


def _is_of_torchvision(name: str) -> bool:
    """Whether `torchvision.models` has a function of this name; found out without importing it."""
    try:
        return name.islower() and read_signature(f"torchvision.models.{name}") is not None
    except ConfigError:
        return False


def groups_of(file: Path) -> list[str]:
    """The groups that the command line may choose from, by the defaults list of a primary config."""
    entries = yaml.safe_load(file.read_text(encoding="utf-8")).get("defaults", [])
    names = [next(iter(entry)).split()[-1] for entry in entries if isinstance(entry, dict)]
    return [name for name in names if "/" not in name]


def _unknown_override(key: str, config: DictConfig, groups: list[str]) -> ConfigError:
    """The command line sets a key that does not exist: names the first part of it that is wrong."""
    node: Any = config
    for part in key.split("."):
        names = [str(name) for name in node if not str(name).startswith("_")] if isinstance(node, DictConfig) else []
        if part not in names:
            told = [name for name in names if name != "hydra"] + groups if node is config else names
            return ConfigError(f"unknown key `{key}`; {did_you_mean(part, told)}")
        node = node._get_node(part)
    return ConfigError(f"`{key}` cannot be set")


def _composed_until(error: BaseException) -> DictConfig | None:
    """The config as far as Hydra had composed it when it met an override that fits nothing.

    It stands in the frame of Hydra's that raised the error; to compose it anew would take a tenth of a second.
    """
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is ConfigLoaderImpl._apply_overrides_to_config.__code__:
            return trace.tb_frame.f_locals["cfg"]
        trace = trace.tb_next
    return None


def _composed_without(config_dir: Path, config_name: str, *, hydra_too: bool) -> DictConfig:
    """The config that the groups chosen on the command line give, without its other overrides."""
    arguments, _ = get_args_parser().parse_known_args()
    groups = {folder.name for folder in config_dir.iterdir() if folder.is_dir()}
    chosen = [word for word in arguments.overrides if word.partition("=")[0] in groups]
    if arguments.config_dir is not None:
        chosen.append(f"hydra.searchpath=[file://{Path(arguments.config_dir).absolute()}]")
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir), version_base="1.3"):
        try:
            return hydra.compose(config_name, chosen, return_hydra_config=hydra_too)
        except (HydraException, OmegaConfBaseException):  # the first complaint is the one to tell
            return hydra.compose(config_name, return_hydra_config=hydra_too)


def _count_classes(root: str | None, classes: list[str] | None) -> int:
    """The number of classes of a folder of images: those asked for, or those that are there."""
    from alexnet_lab.data.folders import class_names  # noqa: PLC0415 - only where it is asked for

    if classes:
        return len(classes)
    if not root:
        raise ConfigError("`data.root` has no value; set it to a folder that holds train/<class>/*.jpg: data.root=...")
    return len(class_names(Path(root)))


def _count_among(classes: list[str] | None, every: int) -> int:
    """The number of classes that were chosen, or of all."""
    return len(classes) if classes else every


def _count_mini_imagenet(folder: str, root: str | None, classes: list[str] | str | None) -> int:
    """The number of classes of mini-ImageNet: those asked for, or those that are there."""
    from alexnet_lab.data.mini_imagenet_files import count_classes  # noqa: PLC0415 - only where it is asked for

    return count_classes((Path(root) if root else Path(folder) / "mini_imagenet").expanduser(), classes)


def _crop_padding(stored_size: int, image_size: int) -> int:
    """Pixels around an image that give its crops room: none are needed where more is stored than the model sees."""
    return 0 if stored_size > image_size else stored_size // 8


def _stretched(epoch: int, of_epochs: int, max_epochs: int) -> int:
    """An epoch of a recorded run, at the same share of a run of another length."""
    return round(epoch / of_epochs * max_epochs)


RESOLVERS = {
    "count_classes": _count_classes,
    "count_among": _count_among,
    "count_mini_imagenet": _count_mini_imagenet,
    "crop_padding": _crop_padding,
    "default_tags": default_tags,
    "default_run_dir": default_run_dir,
    "default_sweep_dir": default_sweep_dir,
    "folder_name": folder_name,
    "variable": variable,
    "stretched": _stretched,
}
"""What the yaml files may call, as `${name:...}`."""
