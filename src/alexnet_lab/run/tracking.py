"""Experiment trackers. W&B is online where a login exists and offline otherwise; it never asks, and fails as failed."""

from __future__ import annotations

import logging
import os
import secrets
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from alexnet_lab.base.files import write_text
from alexnet_lab.base.nested import flat

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

QUIET = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_ERROR_REPORTING": "false"}
INIT_TIMEOUT_SECONDS = 20.0


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
) -> Logger:
    """A W&B run, started; a resumed run goes on under its old id.

    Args:
        run_dir: Where offline files and the run's id are kept.
        config: The resolved config; W&B gets it as flat keys (`model.norm`), so that its tables can sort by them.
        project: W&B project.
        entity: User or team; None is the login's default.
        mode: `auto` is online where a login exists, else offline.
        name: Shown name; None is the name of the run directory.
        group: Runs that belong together.
        job_type: W&B's job type.
        notes: Free text.
    """
    import wandb  # noqa: PLC0415 - 0.3 s, only where it is used

    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    os.environ.pop("WANDB_SERVICE", None)  # a dead parent's service would be asked in vain
    chosen = _mode(mode)
    if chosen == "disabled":
        return WandbLogger(experiment=wandb.init(mode="disabled"), save_dir=run_dir, project=project)
    arguments: dict[str, Any] = {
        "project": project, "entity": entity, "name": name or run_dir.name, "group": group, "job_type": job_type,
        "notes": notes, "tags": config["tags"], "config": flat(config), "dir": str(run_dir), "id": _run_id(run_dir),
        "resume": "allow",
    }  # fmt: skip
    run = _start(chosen, arguments)
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(experiment=run, save_dir=run_dir, project=project)


def _start(mode: Literal["online", "offline"], arguments: dict[str, Any]) -> Any:
    """Starts the run; without a network an online one becomes an offline one."""
    import wandb  # noqa: PLC0415
    from wandb.errors import CommError  # noqa: PLC0415

    settings = wandb.Settings(
        x_transaction_log_flush_interval=1, console="off", silent=True, init_timeout=INIT_TIMEOUT_SECONDS
    )
    try:
        return wandb.init(mode=mode, settings=settings, **arguments)
    except CommError as error:
        if mode == "offline":
            raise
        log.warning("W&B cannot be reached (%s); this run is kept offline", type(error).__name__)
        return wandb.init(mode="offline", settings=settings, **arguments)


def _mode(mode: str) -> Any:
    """Online or offline, decided without asking anybody, and said in one line."""
    import wandb  # noqa: PLC0415

    mode = os.environ.get("WANDB_MODE", mode) if mode == "auto" else mode
    if mode != "auto":
        return {"dryrun": "offline"}.get(mode, mode)
    if wandb.login(prompt=False):
        log.info("W&B: online")
        return "online"
    log.info("W&B: no login, so offline; after `wandb login`, `wandb sync` uploads the run")
    return "offline"


def _run_id(run_dir: Path) -> str:
    """The W&B id of this run directory, made at the first start and kept."""
    path = run_dir / "wandb_id.txt"
    if not path.is_file():
        write_text(path, secrets.token_hex(4) + "\n")
    return path.read_text(encoding="utf-8").strip()


def tensorboard_logger(run_dir: Path, config: dict[str, Any]) -> Logger:
    """TensorBoard's event files, in the run directory's `tensorboard/`."""
    logger = TensorBoardLogger(run_dir, name="tensorboard", version="")
    logger.log_hyperparams(flat(config))
    return logger


def finish(logger: Logger | None, exit_code: int, summary: dict[str, float]) -> None:
    """Ends a W&B run with the run's real state; other trackers need nothing."""
    if isinstance(logger, WandbLogger) and (run := logger.experiment) is not None:
        run.summary.update(summary)
        run.finish(exit_code=exit_code)
