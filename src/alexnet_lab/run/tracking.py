"""Experiment loggers. W&B is online if there is a login and offline otherwise; it never prompts."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor

from alexnet_lab.base import shell
from alexnet_lab.base.errors import one_line
from alexnet_lab.base.files import write_text
from alexnet_lab.base.flatten import flat
from alexnet_lab.base.ranges import PositiveInt
from alexnet_lab.base.signals import handled
from alexnet_lab.base.targets import build, parts
from alexnet_lab.config.wandb_checks import MODES, OURS_AT_WANDB
from alexnet_lab.run.tolerant_loggers import Steady, steady
from alexnet_lab.run.wandb_media import drawn, log_code, shown
from alexnet_lab.run.wandb_names import agent_name, short_name

__all__ = ["tensorboard_logger", "wandb_logger"]

log = logging.getLogger(__name__)

QUIET = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_ERROR_REPORTING": "false"}
INIT_TIMEOUT_SECONDS = 20.0

FINISH_TIMEOUT_SECONDS = 60.0
"""The time for an upload at the end of a run, before its result is written; `wandb sync` uploads the rest later."""

ID_FILE = "wandb_id.txt"

STEP_METRICS = ("step/loss", "step/learning_rate", "step/gradient_norm")
"""What `logger.every_steps` logs."""


class WandbRows(WandbLogger):
    """A W&B logger that logs one row per epoch, at the number of optimiser steps taken.

    A resumed run takes this number from its checkpoint. W&B's own step therefore continues where it was, and a row
    that is logged again gets its old place.
    """

    def __init__(self, run: Any, *, continues: bool = False, **settings: Any) -> None:
        super().__init__(experiment=run, **settings)
        self.run = run
        self.continues = continues  # whether its checkpoints are logged after its end
        self._row: dict[str, Any] = {}
        self._next = 0

    @property
    def experiment(self) -> Any:
        """The run, without the x axis that Lightning would define here."""
        return self.run

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs a row; a validation waits for the end of its epoch."""
        self._row |= metrics
        if any(name.startswith("val/") for name in metrics) and not any(name.startswith("train/") for name in metrics):
            return
        tested = any(name.startswith("test/") for name in metrics)
        self.log({**self._row, "trainer/global_step": step}, (step or 0) + tested)
        self._row = {}

    def log_step(self, row: Mapping[str, Any], step: int, *, ends_epoch: bool) -> None:
        """Logs a row of a step; that of an epoch's last step waits for the row of the epoch, at the same place."""
        place = max(step, self._next)
        self.run.log({**row, "trainer/global_step": step}, step=place, commit=not ends_epoch)
        self._next = place if ends_epoch else place + 1

    def log(self, row: Mapping[str, Any], step: int = 0) -> None:
        """Writes a row at a step, or at the next free one."""
        place = max(step, self._next)
        self.run.log(dict(row), step=place, commit=True)
        self._next = place + 1


def wandb_logger(
    run_dir: Path,
    config: dict[str, Any],
    *,
    project: str = "alexnet-lab",
    entity: str | None = None,
    mode: Literal["auto", "online", "offline", "disabled"] = "auto",
    name: str | None = None,
    group: str | None = None,
    job_type: str | None = "train",
    notes: str | None = None,
    log_model: Literal["best", "all"] | None = None,
    every_steps: PositiveInt | None = None,
    watch: Literal["gradients", "parameters", "all"] | None = None,
    save_code: bool = False,
) -> Logger:
    """Starts a W&B run; a resumed run keeps its id.

    Args:
        run_dir: Where offline files and the run's id are kept.
        config: The resolved config; W&B gets it as flat keys (`model.norm`), so that its tables can sort by them.
        project: W&B project.
        entity: User or team; None is the login's default.
        mode: `auto` is online if there is a login, else offline.
        name: Displayed name; None: a short form of the run directory's, or the parameters of `wandb agent`.
        group: Groups runs that belong together.
        job_type: W&B's job type.
        notes: Free text.
        log_model: Which checkpoints become artifacts after the run; see `alexnet_lab.run.model_artifacts`.
        every_steps: Also log the loss, learning rate and gradient norm of every n-th optimiser step.
        save_code: Log the source and config files, once; see `alexnet_lab.run.wandb_media`.
        watch: Add histograms of gradients or parameters, every `every_steps` or 100 steps.

    Example:
        >>> from pathlib import Path
        >>> logger = wandb_logger(Path("logs/runs/first"), {"tags": []}, mode="disabled")
        >>> logger.log_metrics({"train/loss": 0.5}, step=1)
    """
    _set_up()
    chosen = _mode(mode)
    if chosen == "disabled":
        return WandbRows(_start(chosen, {}), save_dir=run_dir, project=project)
    labels = {"project": project, "entity": entity, "group": group, "job_type": job_type, "notes": notes}
    first = not (run_dir / "wandb").exists()
    run = _start_run(run_dir, config, chosen, name, labels)
    _define_axes(run, by_step=bool(every_steps or watch))
    if save_code and first:
        log_code(run, run_dir)
    return WandbRows(run, continues=log_model is not None, save_dir=run_dir, project=project)


def _start_run(run_dir: Path, config: dict[str, Any], mode: Any, name: str | None, labels: dict[str, Any]) -> Any:
    """Starts the run under the id and name of its directory, or under those that `wandb agent` chooses."""
    run_id, kept_name = _identity(run_dir)
    given = agent_name(os.environ)
    shown_name = name or kept_name or given or short_name(run_dir.name)
    facts = {"tags": config["tags"], "config": flat(config), "dir": str(run_dir), "id": run_id, "resume": "allow"}
    run = _start(mode, {**labels, "name": shown_name, **facts})
    if run.id != run_id or given:  # under `wandb agent` the agent chooses it
        _keep_id(run_dir, run.id, shown_name)
    run.config.update(flat(config), allow_val_change=True)  # for a run resumed with changes
    return run


def _define_axes(run: Any, *, by_step: bool) -> None:
    """Draws metrics over epochs, and those of a step over optimiser steps."""
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch", step_sync=True)
    for metric in STEP_METRICS if by_step else ():
        run.define_metric(metric, step_metric="trainer/global_step")


def _set_up() -> None:
    """Keeps W&B from prompting and from writing to the terminal."""
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    if not os.access(Path.home(), os.W_OK):  # otherwise its log would be printed to the terminal
        os.environ.setdefault("WANDB_CACHE_DIR", str(Path(tempfile.gettempdir(), "wandb-cache")))
    os.environ.pop("WANDB_SERVICE", None)  # the service of a parent that has ended does not answer


def _start(mode: Literal["online", "offline", "disabled"], arguments: dict[str, Any]) -> Any:
    """Starts the run, offline if it cannot be started online."""
    import wandb  # noqa: PLC0415 - takes 0.3 s

    settings = wandb.Settings(
        x_transaction_log_flush_interval=1, console="off", silent=True, init_timeout=INIT_TIMEOUT_SECONDS,
        finish_timeout=FINISH_TIMEOUT_SECONDS,
    )  # fmt: skip
    if wandb.run is not None and "WANDB_SWEEP_ID" not in os.environ:  # the caller's own, which W&B would give us
        settings.reinit = "create_new"
    with handled({signal.SIGHUP: signal.SIG_IGN}):  # W&B's service outlives the terminal too
        try:
            return wandb.init(mode=mode, settings=settings, **arguments)
        except Exception as error:  # no network, no such entity, ...
            if mode != "online":
                raise
            reason = f"{type(error).__name__}: {one_line(error)}"
            log.warning("W&B cannot be used online (%s); this run is kept offline", reason)
            wandb.teardown()  # its service still holds the id of the run that did not start
            return wandb.init(mode="offline", settings=settings, **arguments)


def _mode(mode: str) -> Any:
    """Online or offline, decided without a prompt and logged in one line."""
    wanted = os.environ.get("WANDB_MODE") or mode if mode == "auto" else mode
    if wanted != "auto":
        if wanted not in MODES:
            log.warning("WANDB_MODE is %s; allowed: %s; this run is kept offline", wanted, ", ".join(MODES))
            os.environ["WANDB_MODE"] = "offline"  # W&B itself reads it too
        return MODES.get(wanted, "offline")
    try:
        known = has_login()
    except Exception as error:  # no network, or an invalid key
        log.warning("W&B cannot be reached, or refuses the login (%s); this run is kept offline", one_line(error))
        return "offline"
    if known:
        log.info("W&B: online")
        return "online"
    log.info("W&B: no login, so offline")
    return "offline"


def has_login() -> bool:
    """Whether W&B has the user's key; never prompts.

    Raises:
        wandb.errors.Error: There is a key, but the server does not answer or rejects it.
    """
    import wandb  # noqa: PLC0415

    _set_up()
    return bool(wandb.login(prompt=False))


RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Ids of runs that W&B accepts."""


def _identity(run_dir: Path) -> tuple[str, str]:
    """The W&B id of this run directory, and its name if an agent has given it one.

    At the first start the id is WANDB_RUN_ID, or eight random digits.
    """
    path = run_dir / ID_FILE
    with contextlib.suppress(OSError, ValueError):
        run_id, _, name = path.read_text(encoding="utf-8").strip().partition("\n")
        if RUN_ID.fullmatch(run_id):
            return run_id, name
    if path.exists():
        log.warning("%s contains no id of a W&B run; W&B gets a new run for it", path)
    given = os.environ.get("WANDB_RUN_ID", "")
    made = given if RUN_ID.fullmatch(given) else secrets.token_hex(4)
    _keep_id(run_dir, made)
    return made, ""


def _keep_id(run_dir: Path, run_id: str, name: str = "") -> None:
    """Saves the id for a resumed run, and the name that an agent has given it."""
    try:
        write_text(run_dir / ID_FILE, f"{run_id}\n{name}".strip() + "\n")
    except OSError as error:
        log.warning("%s could not be written (%s)", run_dir / ID_FILE, error.strerror or error)


def tensorboard_logger(run_dir: Path, config: dict[str, Any], *, every_steps: PositiveInt | None = None) -> Logger:
    """TensorBoard's event files, in the run directory's `tensorboard/`; `every_steps` as for W&B.

    Example:
        >>> from pathlib import Path
        >>> logger = tensorboard_logger(Path("logs/board"), {"model": {"norm": "lrn"}})
        >>> logger.log_metrics({"val/loss": 0.5}, step=1)
        >>> logger.save()
        >>> len(list(Path("logs/board/tensorboard").glob("events*")))
        1
    """
    logger = TensorBoardLogger(run_dir, name="tensorboard", version="")
    logger.log_hyperparams(flat(config))
    return logger


def log_step(
    loggers: Sequence[Steady],
    row: Mapping[str, float],
    step: int,
    *,
    ends_epoch: bool,
    histograms: Mapping[str, tuple[Tensor, Tensor]],
) -> None:
    """Logs a row of one optimiser step.

    Args:
        loggers: The run's.
        row: By `STEP_METRICS`.
        step: Its number, from 1.
        ends_epoch: Whether the row of an epoch follows.
        histograms: Counts and edges by name, for W&B only.
    """
    for logger, rows in wandb_runs(loggers):
        logger.attempt(lambda: rows.log_step({**row, **drawn(histograms)}, step, ends_epoch=ends_epoch))  # noqa: B023 - called at once
    for logger in loggers:
        if not isinstance(logger.inner, WandbRows):
            logger.log_metrics(dict(row), step)


def show(loggers: Sequence[Steady], content: Callable[[], Mapping[str, Any]], after_step: int = 0) -> None:
    """Logs pictures and tables of a run once, at its end, to W&B only.

    Args:
        loggers: The run's.
        content: Makes them; see `wandb_media.shown`.
        after_step: W&B's step of their row, or the next free one.
    """
    for logger, rows in wandb_runs(loggers):
        logger.attempt(lambda: rows.log(content(), after_step))  # noqa: B023 - called at once


def wandb_runs(loggers: Sequence[Steady]) -> list[tuple[Steady, WandbRows]]:
    """Those of W&B, each with what it wraps."""
    return [(logger, logger.inner) for logger in loggers if isinstance(logger.inner, WandbRows)]


def add_pictures(run_dir: Path, config: dict[str, Any], pictures: Sequence[Path], steps: int) -> None:
    """Adds pictures of a finished run, each under its name, to its W&B run, if there is one.

    Args:
        run_dir: The run's directory.
        config: The run's config.
        pictures: PNG files.
        steps: The run's optimiser steps.
    """
    specs = [spec for spec in parts({"logger": config["logger"]}).values() if spec["_target_"] == OURS_AT_WANDB]
    if not specs or not (run_dir / ID_FILE).is_file():
        return
    loggers = steady(OURS_AT_WANDB, lambda: build(specs[0], "logger", run_dir, config))
    attempts = len(list(run_dir.glob("wandb/*run-*")))  # each further attempt comes after the earlier ones
    show(loggers, lambda: shown(pictures), steps + 1 + attempts)
    finish(loggers, 0)


def summarize(loggers: Sequence[Steady], summary: Mapping[str, Any]) -> None:
    """Sets the summary of a run in W&B's table of runs; other loggers have none."""
    for logger, rows in wandb_runs(loggers):
        logger.attempt(lambda: rows.run.summary.update(dict(summary)))  # noqa: B023 - called at once


@contextlib.contextmanager
def finishing(loggers: list[Steady]) -> Iterator[list[Steady]]:
    """Ends the loggers' runs after the block, as failed if the block fails."""
    try:
        yield loggers
    except BaseException:
        finish(loggers, 1)
        raise
    finish(loggers, 0)


def finish(loggers: Sequence[Steady], exit_code: int) -> None:
    """Ends a W&B run with the run's actual state; other loggers need nothing."""
    for logger, rows in wandb_runs(loggers):
        offline, run_id = rows.run.offline, rows.run.id
        logger.attempt(lambda: rows.run.finish(exit_code=exit_code))  # noqa: B023 - called at once
        if offline and not logger.lost and not (rows.continues and exit_code == 0):
            line = sync_command(Path(str(logger.save_dir)), run_id)
            log.info("W&B: kept offline; after `wandb login`, upload it with: %s", line)


def sync_command(run_dir: Path, run_id: str) -> str:
    """The command that uploads an offline run: all its parts, if it was resumed."""
    program = "wandb" if shutil.which("wandb") else str(Path(sys.executable).with_name("wandb"))
    parts = sorted(run_dir.glob(f"wandb/offline-run-*-{run_id}*"))
    return shell.join([program, "sync", *map(str, parts)])
