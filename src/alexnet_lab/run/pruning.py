"""Ends a trial of a search early if it is worse than the others were at the same epoch.

The trials share the search's journal, a file that each of them appends to.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lightning import Callback, LightningModule, Trainer

from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.base.formats import counted
from alexnet_lab.training.early_stopping import minimum_is_done
from alexnet_lab.training.extra_metrics import sign
from alexnet_lab.training.last_validation import last_validation

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

JOURNAL = "search.journal"
"""The file in the sweep's directory, beside the runs."""

STUDY = "search"
"""The name of the single study in a journal."""

JOB = "job"
"""A trial's attribute: the name of its job, which is that of its run directory."""

PRUNED_AT = "pruned_at_epoch"
"""A trial's attribute: the number of epochs after which it was ended early."""


def open_journal(path: str) -> BaseStorage:
    """Opens the storage in a journal file, which is read as a whole.

    Raises:
        ConfigError: optuna is not installed.
        RunError: The file is damaged.
    """
    try:
        from optuna.storages import JournalStorage  # noqa: PLC0415 - an optional package
        from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("sweep=search needs optuna: pip install 'alexnet-lab[sweeps]'") from error
    try:
        return JournalStorage(JournalFileBackend(path))
    except Exception as error:  # optuna replays unchecked lines, so they may raise anything
        raise damaged(path, error) from error


def damaged(path: object, error: Exception) -> RunError:
    """The error for a journal that cannot be read."""
    return RunError(
        f"{path} cannot be read ({type(error).__name__}: {error}); restore it, or delete it: the search then starts "
        f"again, and uses the jobs that are done"
    )


def trials_in(storage: BaseStorage) -> list[FrozenTrial]:
    """The trials of the study in a journal; none before it has begun."""
    studies = storage.get_all_studies()
    return storage.get_all_trials(studies[0]._study_id) if studies else []


def pruned_jobs(folder: Path) -> set[str]:
    """The jobs in a search's directory that were ended early; none without a search."""
    if not (folder / JOURNAL).exists():
        return set()
    trials = trials_in(open_journal(str(folder / JOURNAL)))
    return {trial.user_attrs[JOB] for trial in trials if PRUNED_AT in trial.user_attrs and JOB in trial.user_attrs}


def journal_of(run_dir: Path) -> Path:
    """The journal of the search that a run belongs to; raises ConfigError if there is none."""
    journal = run_dir.absolute().parent / JOURNAL
    if not journal.exists():
        raise ConfigError(f"`callbacks.pruning` is for the trials of sweep=search, and there is no {journal}")
    return journal


def trial_of(job: str, journal: Path, storage: BaseStorage) -> int:
    """The id of a job's trial; if several have the same values, the last.

    Raises:
        RunError: There is none, say because the run is a copy.
    """
    found = [trial._trial_id for trial in trials_in(storage) if trial.user_attrs.get(JOB) == job]
    if not found:
        raise RunError(f"`callbacks.pruning`: {job} is no trial of {journal}; set callbacks.pruning=null")
    return found[-1]


def check_trial(run_dir: Path) -> None:
    """Raises ConfigError or RunError if a run is no trial of a search."""
    journal = journal_of(run_dir)
    trial_of(run_dir.name, journal, open_journal(str(journal)))


class Rule(NamedTuple):
    """When trials are ended."""

    startup_trials: int  # trials that complete before any is ended
    warmup_epochs: int  # epochs that each trial trains in any case


class Pruning(Callback):
    """Reports the monitored metric after each epoch, and ends training by the median rule.

    The rule (optuna's MedianPruner): the trial's best value so far is worse than the median of the completed trials'
    values at the same epoch. Rank 0 reports and decides, the others follow. No trial ends before the Trainer's
    `min_epochs` and `min_steps`.

    Args:
        run_dir: Of the trial.
        monitor: The reported metric; lower is better, otherwise its negative is reported.
        rule: When trials are ended.

    Raises:
        ConfigError: The run is no trial of a search.
    """

    def __init__(self, run_dir: Path, monitor: str, rule: Rule) -> None:
        self.journal = journal_of(run_dir)
        self.job = run_dir.name
        self.monitor = monitor
        self.rule = rule

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops again if the trial had been ended before an interruption."""
        self._follow(trainer, trainer.is_global_zero and self._pruned())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reports the epoch, and decides whether to continue."""
        value = last_validation(trainer).get(self.monitor, math.nan) * sign(pl_module, self.monitor)
        asked = trainer.is_global_zero and math.isfinite(value)
        self._follow(trainer, asked and self._ends(trainer.current_epoch + 1, value, minimum_is_done(trainer)))

    def _follow(self, trainer: Trainer, decision: bool) -> None:
        """Makes all processes follow rank 0's decision."""
        if trainer.strategy.broadcast(decision):
            trainer.should_stop = True

    def _pruned(self) -> bool:
        storage = open_journal(str(self.journal))
        return PRUNED_AT in storage.get_trial(trial_of(self.job, self.journal, storage)).user_attrs

    def _ends(self, epochs: int, value: float, allowed: bool) -> bool:
        """Reports the value of an epoch; whether the trial ends after it, which is recorded too."""
        import optuna  # noqa: PLC0415 - an optional package

        storage = open_journal(str(self.journal))
        trial_id = trial_of(self.job, self.journal, storage)
        storage.set_trial_intermediate_value(trial_id, epochs, value)
        pruner = optuna.pruners.MedianPruner(self.rule.startup_trials, self.rule.warmup_epochs)
        study = optuna.load_study(study_name=STUDY, storage=storage, pruner=pruner)
        if not allowed or not pruner.prune(study, storage.get_trial(trial_id)):
            return False
        storage.set_trial_user_attr(trial_id, PRUNED_AT, epochs)
        log.info("the trial ends after %s: worse than the median of the others", counted(epochs, "epoch"))
        return True
