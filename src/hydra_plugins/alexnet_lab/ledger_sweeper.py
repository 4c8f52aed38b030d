"""The sweeper of `-m`: Hydra's grammar and launchers, plus a check of all jobs, a ledger and resuming.

It composes each job with Hydra and leaves the rest to `alexnet_lab.sweeps`. It composes a config once for each choice
of groups and then applies the other overrides with Hydra's own last step, which takes a tenth of the time.
"""

from __future__ import annotations

import copy
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from hydra.conf import HydraConf
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.files import require_folder
from alexnet_lab.base.shell import value_override
from alexnet_lab.config import check_train, hydra_adapter
from alexnet_lab.config.command_line import expanded
from alexnet_lab.config.default_paths import VARIANT, default_sweep_dir
from alexnet_lab.config.schema import Train
from alexnet_lab.config.validate import check_multirun

if TYPE_CHECKING:
    from alexnet_lab.sweeps.preflight import Plan, Request

log = logging.getLogger("alexnet_lab.sweeps")

CONFIG = {
    "_target_": "hydra_plugins.alexnet_lab.ledger_sweeper.LedgerSweeper",
    "params": {},  # the swept keys of a sweep's file; the command line takes precedence
    "max_batch_size": None,  # jobs per call of the launcher; null: all
    "trials": None,  # of a search, in total; null: every combination of the values
    "sampler": "tpe",  # of a search; or random
}
"""The keys of `hydra.sweeper`. (Hydra imports this module in a way that does not allow dataclasses.)"""

ConfigStore.instance().store(group="hydra/sweeper", name="ledger", node=CONFIG, provider="alexnet_lab")


class LedgerSweeper(Sweeper):
    """Runs every combination of the swept values, or searches among them; see `alexnet_lab.sweeps.runner`."""

    def __init__(
        self, params: dict[str, str], max_batch_size: int | None, trials: int | None, sampler: Literal["tpe", "random"]
    ) -> None:
        self.params = params
        self.max_batch_size = max_batch_size
        self.trials = trials
        self.sampler = sampler
        self.gpus: tuple[str, ...] = ()  # UUIDs, for the jobs to lease
        self.decided: tuple[str, ...] = ()  # overrides that every job gets

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Stores Hydra's arguments."""
        if str(config.hydra.sweep.dir).startswith("~"):
            with read_write(config.hydra):
                config.hydra.sweep.dir = expanded(str(config.hydra.sweep.dir))
        self.master = config
        self.loader = hydra_context.config_loader
        self.context = hydra_context
        self.task = task_function

    def sweep(self, arguments: list[str]) -> None:
        """Checks all jobs, then runs the remaining ones, or lists them.

        Args:
            arguments: The overrides of the command line.
        """
        from alexnet_lab.sweeps.preflight import plan

        self.settle_gpus()
        self.check()
        common, swept = self.split_arguments(arguments)
        compose = Composer(self.loader, self.master, self.decided, self.gpus)
        if self.trials is not None:
            from alexnet_lab.sweeps.search import Settings
            from alexnet_lab.sweeps.search_runner import drive_search

            drive_search(self.request(common), swept, Settings(self.trials, self.sampler), compose, self.launch)
            return
        while not self.ran(plan(self.request(common, swept), compose)):
            pass

    def settle_gpus(self) -> None:
        """Lists the GPUs for the jobs, and resolves `launcher.jobs_side_by_side=auto`."""
        from alexnet_lab.sweeps import gpu_leases

        trainer, launcher = (OmegaConf.select(self.master, group) for group in ("trainer", "launcher"))
        if not (isinstance(trainer, DictConfig) and isinstance(launcher, DictConfig)):
            return  # the check of the jobs reports it
        self.gpus = gpu_leases.offered_gpus(trainer, launcher)
        if launcher.jobs_side_by_side == "auto":
            gpus = len(self.gpus) or int(gpu_leases.is_shared(trainer, launcher))
            count = gpu_leases.jobs_side_by_side(trainer, launcher, gpus)
            self.decided = (f"launcher.jobs_side_by_side={count}",)
            with read_write(self.master):
                launcher.jobs_side_by_side = count
            self.max_batch_size = self.master.hydra.sweeper.max_batch_size  # which may refer to it

    def check(self) -> None:
        """Raises ConfigError for a wrong key of `sweep`, `hydra.sweep`, `hydra.sweeper` or `hydra.launcher`."""
        hydra = self.master.hydra
        if any(word.startswith("hydra.sweep.subdir=") for word in hydra.overrides.hydra):
            raise ConfigError(
                "`hydra.sweep.subdir` is set; a sweep names the folders of its jobs by their overrides; leave it out, "
                "and choose the sweep's own folder with hydra.sweep.dir=..."
            )
        if not str(hydra.sweep.dir or "").strip():
            raise ConfigError("`hydra.sweep.dir` is empty; allowed: the folder of the sweep, or leave it out")
        require_folder(Path(hydra.sweep.dir), "sweep", "hydra.sweep.dir")
        parts = {name: OmegaConf.to_container(hydra[name], resolve=True) for name in ("sweeper", "launcher")}
        sweep = OmegaConf.select(self.master, "sweep")
        sweep = OmegaConf.to_container(sweep, resolve=True) if OmegaConf.is_config(sweep) else sweep
        side_by_side = OmegaConf.select(self.master, "launcher.jobs_side_by_side")
        check_multirun(parts, sweep, hydra.runtime.choices["hydra/launcher"], side_by_side)

    def ran(self, planned: Plan) -> bool:
        """Runs a sweep, or lists its jobs; False if another process has taken its directory meanwhile."""
        if planned.settings.dry_run:
            from alexnet_lab.sweeps import dry_run

            print("\n".join(dry_run.described_plan(planned)))
            return True
        from alexnet_lab.sweeps import runner

        accelerator = planned.configs[planned.jobs[0].name].trainer.accelerator
        if planned.launcher.slurm and accelerator == "auto" and not self.asks_for_gpus():
            log.warning("launcher=slurm requests no GPU, because trainer.accelerator is auto; set trainer=gpu")
        with read_write(self.master.hydra):
            self.master.hydra.sweep.dir = str(planned.sweep.path)
        try:
            runner.drive(planned, self.launch)
        except runner.BegunMeanwhileError:
            if self.has_default_place():
                return False
            raise
        return True

    def asks_for_gpus(self) -> bool:
        """Whether SLURM is to give the jobs GPUs, by any of the keys that submitit has for them."""
        keys = self.master.hydra.launcher
        return any(keys.get(name) for name in ("gpus_per_node", "gpus_per_task", "gres", "additional_parameters"))

    def split_arguments(self, arguments: list[str]) -> tuple[list[Override], list[Override]]:
        """Splits the overrides into those common to all jobs and those with several values.

        Args:
            arguments: The overrides of the command line, which take precedence over the sweep's file.
        """
        names = [f"{VARIANT}={','.join(self.variants)}"] if self.variants else []
        words = names + [_word(key, value) for key, value in self.params.items()] + arguments
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(words)
        last = {item.get_key_element(): item for item in parsed}
        common = [item for item in last.values() if not item.is_sweep_override()]
        swept = [item for item in last.values() if item.is_sweep_override()]
        self.check_swept(swept)
        return common, swept

    def check_swept(self, swept: list[Override]) -> None:
        """Raises ConfigError for a key that has no values, or that describes the whole sweep."""
        for item in swept:
            key = item.get_key_element()
            if key != VARIANT and key.partition(".")[0] in ("sweep", "launcher"):
                raise ConfigError(f"`{key}` is that of the whole sweep, and {item.input_line} has several; give one")
            try:
                is_empty = item.is_discrete_sweep() and not any(True for _ in item.sweep_string_iterator())
            except ValueError as error:  # a range with a step of 0
                raise ConfigError(f"{item.input_line}: {error}") from None
            if is_empty:
                raise ConfigError(f"{item.input_line} has no values; give at least one, such as {key}=A,B")

    def request(self, common: list[Override], swept: Sequence[Override] = ()) -> Request:
        """The sweep that the command line and the sweep's file request."""
        from alexnet_lab.sweeps.preflight import Request

        for item in swept:
            if not item.is_discrete_sweep():
                raise ConfigError(f"{item.input_line} is a range to search: use sweep=search, or give values: a,b")
        grid = hydra_adapter.combinations(list(swept))
        return Request(
            place=str(self.master.hydra.sweep.dir),
            common=tuple(word for item in common for (word,) in hydra_adapter.combinations([item])),
            grid=tuple(tuple(job) for job in grid),
            command=shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
            is_default=self.has_default_place(),
            variants={name: tuple(self.settings(keys)) for name, keys in self.variants.items()},
        )

    def settings(self, keys: dict[str, Any]) -> Iterator[str]:
        """The overrides of a variant; keys of a part of the config may be nested: `model: {norm: none}`."""
        for key, value in keys.items():
            part = OmegaConf.select(self.master, key) if isinstance(value, dict) else None
            if not isinstance(part, DictConfig):
                yield value_override(key, value)
                continue
            for name, inner in value.items():
                yield value_override(f"{'' if name in part else '+'}{key}.{name}", inner)

    @property
    def variants(self) -> dict[str, dict[str, Any]]:
        """The named levels in `sweep.variants` of the sweep's file, with the keys that each sets."""
        found = OmegaConf.to_container(self.master.sweep.get("variants") or OmegaConf.create({}), resolve=True)
        return cast("dict[str, dict[str, Any]]", found)

    def has_default_place(self) -> bool:
        """Whether the sweep's directory is the default."""
        hydra = self.master.hydra
        chosen = any(word.startswith("hydra.sweep.dir=") for word in hydra.overrides.hydra)
        return not chosen and hydra.sweep.dir == default_sweep_dir(hydra.runtime.choices, hydra.overrides.task)

    def launch(self, jobs: Sequence[list[str]]) -> None:
        """Passes jobs to Hydra's launcher, `max_batch_size` at a time."""
        from alexnet_lab.sweeps.gpu_leases import offering

        size = self.max_batch_size or len(jobs)
        words = [[*job, *self.decided] for job in jobs]
        with offering(self.gpus):
            for start in range(0, len(jobs), size):
                self.built_launcher.launch(words[start : start + size], initial_job_idx=start)

    @cached_property
    def built_launcher(self) -> Launcher:
        """Hydra's launcher, built after the sweep's directory is known, because its parameters refer to it."""
        return Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task, config=self.master
        )


def _word(key: str, value: Any) -> str:
    """The override of an entry of `params`: a text is in Hydra's grammar already."""
    return f"{key}={value}" if isinstance(value, str) else value_override(key, value)


class Composer:
    """Composes and checks jobs.

    Args:
        loader: Hydra's.
        master: The config of the multirun, whose hydra overrides the jobs share.
        decided: Overrides that every job gets.
        gpus: UUIDs of the GPUs for the jobs.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig, decided: Sequence[str], gpus: Sequence[str]) -> None:
        self.decided = decided
        self.gpus = gpus
        self.loader = loader
        self.master = master
        self.parser = OverridesParser.create(config_loader=loader)
        self.options = cache(loader.get_group_options)
        self.base = cache(self._base)

    def __call__(self, words: Sequence[str]) -> Train:
        """The checked config of a job; raises ConfigError, or Hydra's errors."""
        from alexnet_lab.config.main import plain
        from alexnet_lab.sweeps.gpu_leases import check_enough

        parsed = self.parser.parse_overrides([*words, *self.decided])
        groups = [item for item in parsed if self.options(item.key_or_group)]
        hydra, base = self.base(tuple(str(item.input_line) for item in groups))
        config = copy.deepcopy(base)
        values = [item for item in parsed if item not in groups and not item.key_or_group.startswith("hydra.")]
        hydra_adapter.apply_overrides(values, config)
        HydraConfig.instance().cfg = hydra
        checked = check_train(plain(config))
        check_enough(checked.trainer, self.gpus)
        return checked

    def _base(self, groups: tuple[str, ...]) -> tuple[HydraConf | None, DictConfig]:
        """The `hydra` node and the config for these groups."""
        whole = self.loader.load_sweep_config(self.master, list(groups))
        config = copy.deepcopy(whole)
        with read_write(config), open_dict(config):
            del config["hydra"]
        HydraConfig.instance().set_config(whole)  # makes a copy, which takes a third as long as checking a job
        return HydraConfig.instance().cfg, config
