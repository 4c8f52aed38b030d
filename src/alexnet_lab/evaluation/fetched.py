"""Fetches a run that `logger.log_model` has stored at W&B: `eval.py run=wandb:ENTITY/PROJECT/RUN`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from alexnet_lab.base.errors import RunError, one_line
from alexnet_lab.config.wandb_checks import SCHEME, parts_of_reference
from alexnet_lab.run.model_artifacts import BEST, artifact_name
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.run.tracking import has_login

log = logging.getLogger(__name__)

FOLDER = Path("logs", "wandb")
"""Where fetched runs lie, as ENTITY/PROJECT/RUN."""

TIMEOUT_SECONDS = 60


def local(names: Iterable[str]) -> list[str]:
    """The names of runs, with each `wandb:ENTITY/PROJECT/RUN` replaced by the directory that it was fetched into.

    Raises:
        RunError: W&B cannot be reached, or has no such checkpoint.
    """
    return [str(fetch(name)) if name.startswith(SCHEME) else name for name in names]


def fetch(reference: str) -> Path:
    """Fetches the best checkpoint of a run with the files that describe it; files that are there are kept.

    Args:
        reference: `wandb:ENTITY/PROJECT/RUN`.

    Returns:
        The run directory.

    Raises:
        RunError: W&B cannot be reached, or has no such checkpoint.
    """
    entity, project, run = parts_of_reference(reference)
    folder = FOLDER / entity / project / run
    try:
        if not has_login():
            raise RunError(f"{reference} needs a login to W&B: wandb login")
        _download(f"{entity}/{project}/{artifact_name(run)}:{BEST}", folder)
    except RunError:
        raise
    except Exception as error:  # of the network, of W&B, of the disk
        text = one_line(f"{type(error).__name__}: {error}")[:300]
        raise RunError(
            f"{reference} cannot be fetched ({text}); it needs a run trained with logger.log_model=best"
        ) from error
    log.info("fetched %s into %s", reference, folder)
    return folder


def _download(name: str, folder: Path) -> None:
    """Downloads the files of a run directory; an artifact's other files are left out."""
    import wandb  # noqa: PLC0415 - takes 0.3 s

    artifact = wandb.Api(timeout=TIMEOUT_SECONDS).artifact(name)
    directory = RunDirectory(folder)
    described = (directory.config, directory.manifest, directory.metrics)
    for file in (*described, directory.weights, directory.best, directory.result):  # the result completes the run
        path = file.relative_to(folder).as_posix()
        if path in artifact.manifest.entries:
            artifact.get_entry(path).download(root=str(folder))
    missing = [file.name for file in (directory.config, directory.best, directory.result) if not file.is_file()]
    if missing:
        raise RunError(f"the artifact {name} is no run of this project: it has no {missing[0]}")
