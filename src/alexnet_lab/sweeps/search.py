"""A search: the results of earlier trials decide the values of later ones. optuna proposes, jobs of a sweep run.

Everything about the trials is in `search.journal` in the sweep's directory, an append-only file. A trial without a
result is one whose job was interrupted: the search resumes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.base.files import atomic_path
from alexnet_lab.base.printable import printable
from alexnet_lab.run.pruning import JOB, JOURNAL, PRUNED_AT, STUDY, damaged, open_journal
from alexnet_lab.sweeps.definition import SEED

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

SPACE = "space"
"""The study's attribute with the ranges."""


SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler"}
"""optuna's classes by their names in the config."""


class Settings(NamedTuple):
    """The settings of a search."""

    trials: int  # in total
    sampler: str  # tpe, random
    seed: int = 0  # of the sampler


class Search:
    """The trials of a search.

    Args:
        folder: The sweep's directory.
        space: The overrides whose values are searched.
        settings: Of the search.

    Raises:
        ConfigError: A range cannot be searched, the folder contains another search, or optuna is missing.
        RunError: The journal contains trials that this search does not allow.
    """

    def __init__(self, folder: Path, space: Sequence[Override], settings: Settings) -> None:
        self.settings = settings
        self.space = {item.get_key_element(): distribution(item) for item in space}
        journal = folder / JOURNAL
        storage = open_journal(str(journal))
        drop_half_line(journal)

        import optuna  # noqa: PLC0415 - an optional package

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(study_name=STUDY, storage=storage, load_if_exists=True)
        done = len(self.study.trials)
        sampler = getattr(optuna.samplers, SAMPLERS[settings.sampler])
        self.study.sampler = sampler(seed=settings.seed + done)  # a resumed search draws other numbers
        self._check_space({item.get_key_element(): str(item.input_line).partition("=")[2] for item in space})
        self._check_trials(journal)

    def _check_space(self, space: dict[str, str]) -> None:
        known = self.study.user_attrs.get(SPACE)
        if not isinstance(known, dict):
            self.study.set_user_attr(SPACE, space)
        elif known != space:
            changed = next(key for key in {**known, **space} if known.get(key) != space.get(key))
            raise ConfigError(
                f"the directory contains a search in which {changed} is {known.get(changed, 'fixed')}, not "
                f"{space.get(changed, 'fixed')}; choose another hydra.sweep.dir"
            )

    def _check_trials(self, journal: Path) -> None:
        """Refuses trials with other keys or values than the ranges allow, because their values become overrides.

        The journal is data that may come from elsewhere, and overrides are code.
        """
        for trial in self.study.trials:
            odd = [key for key, value in trial.params.items() if not _allows(self.space.get(key), value)]
            if odd:
                raise RunError(
                    f"{journal} cannot be read: trial {trial.number} has a value of `{printable(odd[0])}` that the "
                    f"search does not allow; choose another hydra.sweep.dir"
                )

    def batch(self, size: int) -> dict[int, tuple[str, ...]]:
        """The overrides of the next trials by number: first those still open, then new ones."""
        open_trials = {trial.number: words(self._completed(trial)) for trial in self.trials("RUNNING")}
        room = min(size - len(open_trials), self.settings.trials - len(self.study.trials))
        for _ in range(room):
            trial = self.study.ask(self.space)
            open_trials[trial.number] = words(trial.params)
        return dict(list(open_trials.items())[:size])

    def _completed(self, trial: FrozenTrial) -> dict[str, Any]:
        """The values of an open trial; values that were not drawn before the search was killed are drawn now."""
        import optuna  # noqa: PLC0415 - an optional package

        drawn = optuna.trial.Trial(self.study, trial._trial_id)
        return {key: drawn._suggest(key, values) for key, values in self.space.items()}

    def name(self, number: int, job: str) -> None:
        """Records the job of a trial, so that the job finds its trial."""
        trial_id = self.study.trials[number]._trial_id  # optuna's public API cannot look this up by number
        self.study._storage.set_trial_user_attr(trial_id, JOB, job)

    def named(self) -> list[tuple[str, ...]]:
        """The overrides of the trials that have a job."""
        return [words(trial.params) for trial in self.study.trials if JOB in trial.user_attrs]

    def tell(self, number: int, value: float | None) -> None:
        """Reports the outcome of a trial to optuna: complete, pruned, or failed without a finite value."""
        import optuna  # noqa: PLC0415 - an optional package

        states = optuna.trial.TrialState
        if self._pruned(self.study.trials[number].user_attrs.get(JOB)):
            self.study.tell(number, state=states.PRUNED)
        elif value is None or not math.isfinite(value):
            self.study.tell(number, state=states.FAIL)
        else:
            self.study.tell(number, value)

    def _pruned(self, job: str | None) -> bool:
        """Whether a job ended early; another trial with the same values has the same job."""
        return any(PRUNED_AT in trial.user_attrs and trial.user_attrs.get(JOB) == job for trial in self.study.trials)

    def trials(self, *states: str) -> list[FrozenTrial]:
        """The trials in some of optuna's states: RUNNING, COMPLETE, PRUNED, FAIL."""
        return [trial for trial in self.study.trials if trial.state.name in states]

    def best(self, count: int = 5) -> list[tuple[float, int, tuple[str, ...]]]:
        """The best complete trials: value, number, overrides; lowest value first."""
        complete = [(trial.value, trial.number, words(trial.params)) for trial in self.trials("COMPLETE")]
        return sorted((value, number, found) for value, number, found in complete if value is not None)[:count]


def _allows(distribution: BaseDistribution | None, value: Any) -> bool:
    """Whether a value lies in a range."""
    if distribution is None:
        return False
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False


def words(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Parameters as overrides; numbers with four digits.

    Example:
        >>> words({"optimizer.learning_rate": 0.0123456789, "model.activation": "relu", "data.batch_size": 64})
        ('optimizer.learning_rate=0.01235', 'model.activation=relu', 'data.batch_size=64')
    """
    return tuple(f"{key}={_written(value)}" for key, value in params.items())


def _written(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.4g}"
    return text if any(sign in text for sign in ".e") else f"{text}.0"


def distribution(item: Override) -> BaseDistribution:
    """The values that an override allows: `choice(a,b)`, `range(1,5)`, `interval(0,1)`, `tag(log,interval(1e-4,1))`.

    Raises:
        ConfigError: It cannot be searched.
    """
    from optuna import distributions  # noqa: PLC0415 - an optional package

    sweep, key = item.value(), item.get_key_element()
    if key == SEED:
        raise ConfigError("a search takes one seed; train the best values with several: -m 'seed=range(0,5)'")
    if isinstance(sweep, RangeSweep):
        values = list(sweep.range())
        low, high, step = min(values), max(values), abs(sweep.step)
        if all(isinstance(value, int) for value in values):
            return distributions.IntDistribution(int(low), int(high), step=int(step))
        return distributions.FloatDistribution(low, high, step=step)
    if not isinstance(sweep, IntervalSweep):  # choice(...), or files of a group by glob(...)
        return distributions.CategoricalDistribution(list(item.sweep_string_iterator()))
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    if others := sorted(sweep.tags - {"log"}):
        raise ConfigError(f"`{key}` has the tag {others[0]} in {item.input_line}; allowed: log")
    if low is None or high is None or low >= high or (log and low <= 0) or not math.isfinite(high - low):
        raise ConfigError(f"`{key}` cannot be searched in {item.input_line}: {LIMITS[log]}")
    if isinstance(low, int) and isinstance(high, int):
        return distributions.IntDistribution(low, high, log=log)
    return distributions.FloatDistribution(low, high, log=log)


LIMITS = {
    False: "the first end must be below the second, and both finite",
    True: "with log, 0 < first end < second end < inf",
}


def drop_half_line(journal: Path) -> None:
    """Removes an incomplete last line, which a killed process may have left in the journal.

    Raises:
        RunError: The last complete line is damaged; optuna would only notice after the next one.
    """
    lines, end, half = journal.read_bytes().rpartition(b"\n")
    if half:
        with atomic_path(journal) as part:
            part.write_bytes(lines + end)
    try:
        json.loads(lines.rpartition(b"\n")[2] or b"{}")
    except ValueError as error:
        raise damaged(journal, error) from error
