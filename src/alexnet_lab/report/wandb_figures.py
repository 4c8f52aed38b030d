"""The forest plot of a report as a picture of a W&B run of its own, which a panel of the W&B report shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexnet_lab.run.tolerant_loggers import steady
from alexnet_lab.run.tracking import OURS_AT_WANDB, finish, show, wandb_logger

if TYPE_CHECKING:
    from pathlib import Path


def log_forest(picture: Path, *, name: str, entity: str | None, project: str, online: bool) -> None:
    """Logs a picture; a report that is made again continues the same run.

    Args:
        picture: A PNG file in `figures/` of the report's folder, logged under its name without `.png`.
        name: Of the run.
        entity: User or team.
        project: W&B project.
        online: Whether there is a login; otherwise the run is kept in the report's folder, for `wandb sync`.
    """
    folder = picture.parent.parent
    parts = len(list(folder.glob("wandb/*run-*")))  # each comes after the earlier ones
    logger = steady(
        OURS_AT_WANDB,
        lambda: wandb_logger(
            folder, {"tags": ["report"]}, project=project, entity=entity, mode="online" if online else "offline",
            name=name, job_type="report",
        ),
    )  # fmt: skip
    loggers = [] if logger is None else [logger]
    show(loggers, pictures=[picture], epochs=[], confusion=None, class_names=[], after_step=parts)
    finish(loggers, 0)
