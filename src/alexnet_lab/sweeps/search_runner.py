"""Runs a search from its first to its last trial: asks for values, runs their jobs, reports the results."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from hydra.core.override_parser.types import Override

from alexnet_lab.base import shell
from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.base.formats import counted
from alexnet_lab.base.log import start_log
from alexnet_lab.base.printable import printable
from alexnet_lab.config.compatibility import check_minimised
from alexnet_lab.config.schema import Sweep
from alexnet_lab.sweeps.definition import SEED
from alexnet_lab.sweeps.preflight import Compose, Plan, Request, plan
from alexnet_lab.sweeps.results import REMEDY, jobs_on_other_images, measured, refuse_other_images
from alexnet_lab.sweeps.runner import Launch, busy, run_left
from alexnet_lab.sweeps.search import Search, Settings, distribution
from alexnet_lab.sweeps.shutdown import stoppable
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

log = logging.getLogger(__name__)


def drive_search(
    request: Request, space: Sequence[Override], settings: Settings, compose: Compose, launch: Launch
) -> None:
    """Runs the remaining trials of a search.

    Args:
        request: The sweep's directory, and the overrides of all trials; its grid is ignored.
        space: The overrides whose values are searched.
        settings: The number of trials, and how they are proposed.
        compose: Returns the checked config of a trial.
        launch: Runs jobs, given by their overrides.

    Raises:
        ConfigError: The config or a range is wrong, or the directory contains another search.
        RunError: No trial is complete, or another process runs the search.
        Interrupted: After Ctrl-C or SIGTERM; resume with the same command.
    """
    start_log()
    config = compose([*request.common, *(example(item) for item in space)])
    check_minimised(config, "a search")
    if config.sweep.dry_run:
        print("\n".join([f"{counted(settings.trials, 'trial')} over", *(f"  {item.input_line}" for item in space)]))
        return
    sweep = SweepDirectory(request.place)
    with sweep.claimed(), stoppable(sweep.stop, lambda: _busy(sweep)):
        search = Search(sweep.path, space, settings)
        if named := search.named():  # raises if what is fixed has changed
            _check_metric(plan(replace(request, grid=(named[0],), is_default=False), compose))
        log.info("sweep directory: %s", sweep.path)
        log.info(counts(search))
        while batch := search.batch(config.launcher.side_by_side):
            _run_batch(search, batch, request, compose, launch)
            log.info(counts(search))
        _finish(search, sweep, request, config.sweep)


def _check_metric(planned: Plan) -> None:
    """Refuses to propose trials by one metric after others were judged by another one."""
    before = None if planned.there is None else planned.there.about.get("metric")
    if before not in (None, planned.settings.metric):
        raise ConfigError(
            f"`sweep.metric` is {planned.settings.metric}, but the directory contains a search by {before}; set "
            f"sweep.metric={before}, or choose another hydra.sweep.dir"
        )


def example(item: Override) -> str:
    """One value of a range, used to check the config before the first trial."""
    found = distribution(item)
    choices = getattr(found, "choices", None)
    return f"{item.get_key_element()}={choices[0] if choices else getattr(found, 'low', None)}"


def _busy(sweep: SweepDirectory) -> bool:
    definition = sweep.read()
    return definition is not None and busy(sweep, definition.jobs)


def _run_batch(
    search: Search, batch: dict[int, tuple[str, ...]], request: Request, compose: Compose, launch: Launch
) -> None:
    planned = plan(replace(request, grid=tuple(batch.values()), is_default=False), compose)
    jobs = {number: planned.asked[overrides] for number, overrides in batch.items()}
    for number, job in jobs.items():
        search.name(number, job.name)
    run_left(planned, launch)
    latest = planned.sweep.latest()
    others = {} if planned.settings.other_images else jobs_on_other_images(planned.definition, latest, ENDED)
    for number, job in jobs.items():
        run, line = planned.sweep.run(job), latest.get(job.name, {})
        done = line.get("status") == "completed"
        if job.name in others:  # the trial stays open
            remedy = f"delete {run.path} to train it again" if done else REMEDY
            raise RunError(f"{others[job.name]}; {remedy}; resume with the same command: {shell.typed()}")
        search.tell(number, measured(run, line, planned.settings.metric) if done else None)


def _is_of_search(word: str) -> bool:
    """Whether an override has no meaning in a sweep over seeds of the best values."""
    key = shell.override_key(word)
    prunes = key.startswith("callbacks.pruning") or (key == "callbacks" and "pruning" in word)
    return prunes or key == SEED or key.startswith(("sweep", "hydra"))


ENDED = ("completed", "failed")
"""Statuses of trials whose images are compared; a trial on other images than the finished ones was not trained."""


def counts(search: Search) -> str:
    """Such as `20 trials: 12 complete, 3 pruned, 1 failed, 4 to go`."""
    numbers = {state: len(search.trials(state)) for state in ("COMPLETE", "PRUNED", "FAIL")}
    left = search.settings.trials - sum(numbers.values())
    return (
        f"{counted(search.settings.trials, 'trial')}: {numbers['COMPLETE']} complete, {numbers['PRUNED']} pruned, "
        f"{numbers['FAIL']} failed, {max(0, left)} to go"
    )


def _finish(search: Search, sweep: SweepDirectory, request: Request, node: Sweep) -> None:
    definition = sweep.read()
    if definition is not None:
        refuse_other_images(definition, sweep.latest(), allowed=node.other_images)
    best = search.best()
    if not best:
        raise RunError(f"no trial of the search is complete; see {request.place}/ledger.jsonl")
    print(f"{node.metric} of the best trials")
    for value, number, overrides in best:
        print(printable(f"  {value:.6g}  trial {number}  {' '.join(overrides)}"))
    kept = [word for word in request.common if not _is_of_search(word)]
    line = shell.command("train.py", "-m", *kept, *best[0][2], "seed=range(0,5)")
    print(f"the best with several seeds: {line}")
