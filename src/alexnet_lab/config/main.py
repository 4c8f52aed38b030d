"""The entry point: Hydra composes, every error becomes one line, and nothing is written before the config is valid."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexnet_lab.base import cluster, cores, shell
from alexnet_lab.base.checked_files import read_yaml
from alexnet_lab.base.environment import variables
from alexnet_lab.base.errors import AlexNetLabError, ConfigError, Interrupted, RunError, one_line
from alexnet_lab.base.log import start_log
from alexnet_lab.base.terminal import outlive_terminal, require_posix
from alexnet_lab.config import default_paths, hydra_adapter, resume_overrides
from alexnet_lab.config import help as help_page
from alexnet_lab.config.command_line import arranged, expand_paths, unset_empty_data_variable
from alexnet_lab.config.messages import MAY_BE_EXPLAINED, explain, omegaconf_error, own_error, refuse_lists
from alexnet_lab.config.slurm_resources import cpus_per_task, gpus_per_node

FULL_ERROR = "HYDRA_FULL_ERROR"
"""Hydra's environment variable for tracebacks, which applies here too."""

ERRORS_PROPAGATED = {FULL_ERROR: "1"}
"""With this variable Hydra raises its errors instead of printing them."""

FLAGS = {"train": {"--dry-run": "sweep.dry_run=true"}}
"""Flags of our commands that Hydra does not know, and the override for each."""

NO_RUN_FLAGS = ("--help", "-h", "--multirun", "-m")
"""Flags that Hydra must not see when only the help is shown."""

SHARED = ("train",)
"""The commands that several processes may run together."""

OMP, OF_JOBLIB = "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"
"""The variable with a user's number of threads, and one that joblib sets along with it where it is not set."""


def main(task: Callable[[dict[str, Any]], None], config_dir: Path, config_name: str) -> None:
    """Composes the config from the command line and calls `task` with it, once per job.

    Exits with 0 if every job succeeded, 2 for a wrong request, 1 for a failed job, 130 after Ctrl-C.

    Args:
        task: Called with the resolved config as plain dictionaries.
        config_dir: The folder of the yaml files.
        config_name: The primary config in it, e.g. "train".
    """
    require_posix()
    outlive_terminal()
    traceback_wanted = os.environ.get(FULL_ERROR, "") not in ("", "0")
    register_resolvers()
    unset_empty_data_variable()
    job = _Job(task, traceback_wanted=traceback_wanted)
    try:
        start_log()
        cluster.settle()
        cores.sleep_while_waiting()
        if config_name not in SHARED:
            cluster.require_alone(f"{config_name}.py")
        with hydra_adapter.composing_fast(config_dir):
            sys.argv[1:] = arranged(sys.argv[1:], FLAGS.get(config_name, {}))
            if hydra_adapter.arguments().help:
                _show_help(config_dir, config_name)
                sys.exit(0)
            _refuse_rerun()
            refuse_lists(config_dir)
            words = resume_overrides.set_aside(config_dir)
            if words is not None:
                job.continuing = partial(
                    resume_overrides.request, words=words, config_dir=config_dir, config_name=config_name
                )
            _anchor_config_path(config_name)
            with hydra_adapter.first_choices(), variables(**ERRORS_PROPAGATED), _failures_reported():
                _application(job.run, config_dir, config_name)()
    except KeyboardInterrupt as error:
        if not isinstance(error.__cause__, Interrupted):  # not reported yet
            _print_error(Interrupted(f"{one_line(error) or 'interrupted'}; start it again: {shell.typed()}"))
        sys.exit(Interrupted.exit_code)
    except MAY_BE_EXPLAINED as error:
        explained = None if traceback_wanted else explain(error, config_dir, config_name, runs=config_name in SHARED)
        if explained is None:
            raise
        _print_error(explained, notes=getattr(error, "__notes__", ()))
        # one of our errors here concerns the sweep as a whole
        sys.exit(explained.exit_code)
    sys.exit(job.exit_code)


def _application(task: Callable[[DictConfig], None], config_dir: Path, config_name: str) -> Callable[[], None]:
    """Hydra's application: composes the command line's config and calls the task with it, once or several times."""
    return hydra.main(**hydra_adapter.VERSION_BASE, config_path=str(config_dir), config_name=config_name)(task)


def _show_help(config_dir: Path, config_name: str) -> None:
    """Composes the config as for a run and prints the help instead; words without `=` are names of groups."""
    given = hydra_adapter.arguments()
    groups = tuple(word for word in given.overrides if "=" not in word)
    folders = (config_dir,) if given.config_dir is None else (config_dir, Path(given.config_dir))
    sys.argv[1:] = [word for word in sys.argv[1:] if word not in {*NO_RUN_FLAGS, *groups}]
    composed: list[tuple[DictConfig, HydraConf]] = []
    with variables(**ERRORS_PROPAGATED):
        _application(lambda config: composed.append((config, HydraConfig.get())), config_dir, config_name)()
    print("\n".join(help_page.Help(folders, config_name, groups).lines(*composed[0])))


def register_resolvers() -> None:
    """Makes the functions of `RESOLVERS` available to the yaml files."""
    for name, resolver in RESOLVERS.items():
        hydra_adapter.register_resolver(name, _none_for_wrong_types(resolver))


def _none_for_wrong_types(resolver: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a resolver return None for values of a wrong type; the check of their own key reports them."""

    def tolerant(*values: Any) -> Any:
        try:
            return resolver(*values)
        except TypeError:
            return None

    return tolerant


def _refuse_rerun() -> None:
    """Raises ConfigError for Hydra's `--experimental-rerun`, which unpickles a file of a run directory."""
    if hydra_adapter.arguments().experimental_rerun is not None:
        raise ConfigError("--experimental-rerun unpickles a file, which can run code; use --config-path RUN_DIR")


def _anchor_config_path(config_name: str) -> None:
    """Resolves a relative `--config-path RUN_DIR` from the current directory; Hydra would start at the script's file.

    The config of a run does not configure Hydra, whose own defaults would create a folder `outputs`. The config is
    read once before Hydra reads it, so that aliases which expand to millions of values raise RunError.
    """
    given = hydra_adapter.arguments()
    path = given.config_path
    if path is None:
        return
    if not path.startswith("pkg://"):
        with contextlib.suppress(FileNotFoundError):  # Hydra reports it
            read_yaml(Path(path, f"{Path(given.config_name or config_name).stem}.yaml"))
        sys.argv += ["--config-path", str(Path(path).absolute())]  # the last one counts
    place = sys.argv.index(given.overrides[0]) if given.overrides else 1  # argparse wants overrides side by side
    sys.argv[place:place] = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]


class _Job:
    """The task as Hydra calls it, once or several times; keeps the worst exit code."""

    def __init__(self, task: Callable[[dict[str, Any]], None], *, traceback_wanted: bool) -> None:
        self.task = task
        self.traceback_wanted = traceback_wanted
        self.exit_code = 0
        self.threads_given = OMP in os.environ
        self.continuing: Callable[[dict[str, Any]], dict[str, Any]] | None = None  # with resume=RUN

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Prepares another process (joblib, submitit), which composes its job itself."""
        outlive_terminal()
        self.__dict__ |= state
        if not self.threads_given and OF_JOBLIB in os.environ:  # it gives its processes cores / jobs
            os.environ.pop(OMP, None)
        register_resolvers()

    def run(self, config: DictConfig) -> None:
        gc.enable()
        try:
            resolved = plain(config)
            with _failures_reported():
                self.task(resolved if self.continuing is None else self.continuing(resolved))
        except AlexNetLabError as error:
            if self.traceback_wanted:
                raise
            _print_error(error)
            if isinstance(error, Interrupted):
                raise KeyboardInterrupt from error  # ends a sweep too; Hydra would start the next job
            self.exit_code = max(self.exit_code, error.exit_code)


@contextlib.contextmanager
def _failures_reported() -> Iterator[None]:
    """Within the block a missing package, or a file that cannot be used, becomes an error of ours."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise RunError(f"{error.filename} cannot be used: {error.strerror}") from error
    except ModuleNotFoundError as error:
        hint = f"`make train` installs missing packages; {FULL_ERROR}=1 shows where it is needed"
        raise RunError(f"{error}; {hint}") from error


def _print_error(error: AlexNetLabError, notes: Iterable[str] = ()) -> None:
    print(error if isinstance(error, Interrupted) else " ".join([f"error: {error}", *notes]), file=sys.stderr)


def plain(config: DictConfig) -> dict[str, Any]:
    """The config without interpolations, `~` expanded; raises ConfigError if a value is missing or unresolved."""
    try:
        resolved = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise own_error(error) or omegaconf_error(error) from None
    expand_paths(resolved)
    return resolved


def _count_classes(root: str | None, classes: list[str] | None) -> int:
    """The number of classes of an image folder: the chosen ones, or all that exist; `~` is the home directory."""
    from alexnet_lab.data.folders import choose_classes, class_names  # noqa: PLC0415 - imported only when needed

    folder = Path(root).expanduser() if root else None
    if classes:
        return len(choose_classes(folder, list(classes)) if folder and (folder / "train").is_dir() else classes)
    if not folder:
        raise ConfigError("`data.root` has no value; set it to a folder with train/<class>/*.jpg: data.root=...")
    return len(class_names(folder))


def _count_among(classes: list[str] | None, every: int) -> int:
    """The number of chosen classes, or of all."""
    return len(classes) if classes else every


def _count_mini_imagenet(folder: str, root: str | None, classes: list[str] | str | None) -> int:
    """The number of classes of mini-ImageNet: the chosen ones, or all that exist."""
    from alexnet_lab.data.sources.mini_imagenet_files import count_classes  # noqa: PLC0415 - imported only when needed

    return count_classes((Path(root) if root else Path(folder) / "mini_imagenet").expanduser(), classes)


def _crop_padding(stored_size: int, image_size: int) -> int:
    """The padding in pixels that random crops need: none if the stored images are larger than the model's input."""
    return 0 if stored_size > image_size else stored_size // 8


def _cpu_precision() -> str:
    """The fastest dtype of this machine's CPU: bfloat16 where it has instructions for it, else float32."""
    return "bf16-mixed" if cores.bfloat16_arithmetic() is cores.Bfloat16.NATIVE else "32-true"


def _stretched(epoch: int, of_epochs: int, max_epochs: int) -> int:
    """Scales an epoch of a recorded run to a run of another length."""
    return round(epoch / of_epochs * max_epochs)


RESOLVERS = {
    "count_classes": _count_classes,
    "count_among": _count_among,
    "cpu_precision": _cpu_precision,
    "count_mini_imagenet": _count_mini_imagenet,
    "crop_padding": _crop_padding,
    "default_tags": default_paths.default_tags,
    "of_hydra": default_paths.of_hydra,
    "default_run_dir": default_paths.default_run_dir,
    "default_sweep_dir": default_paths.default_sweep_dir,
    "folder_name": default_paths.folder_name,
    "for_model": default_paths.for_model,
    "slurm_cpus": cpus_per_task,
    "slurm_gpus": gpus_per_node,
    "variable": default_paths.variable,
    "stretched": _stretched,
}
"""Functions for the yaml files, as `${name:...}`."""
