"""Checkpoints as W&B artifacts: `logger.log_model=best|all` logs them, `eval.py run=wandb:...` fetches one.

The artifact `model-<id of the run>` has a version for each checkpoint. The version `best` is a run directory without
the log, so it can be evaluated wherever its data set is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from alexnet_lab.base import targets
from alexnet_lab.base.files import link_or_copy
from alexnet_lab.base.log import quiet
from alexnet_lab.config.schema import Train
from alexnet_lab.config.wandb_checks import OURS_AT_WANDB
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.run.tolerant_loggers import steady
from alexnet_lab.run.tracking import ID_FILE, finish, wandb_runs

TYPE = "model"
"""W&B's type of the artifacts."""

BEST = "best"
"""The alias of the version that is evaluated."""

UPLOAD_SECONDS, BYTES_PER_SECOND = 60.0, 1e6
"""An upload may take a minute, and as long as its bytes take at this rate; `wandb sync` uploads the rest."""


def artifact_name(run_id: str) -> str:
    """The name of the artifact with the checkpoints of a W&B run."""
    return f"model-{run_id}"


def log_models(directory: RunDirectory, config: Train) -> None:
    """Logs the checkpoints of a completed run to each W&B logger that has `log_model`.

    Args:
        directory: The run's; result.json is the metadata of each version.
        config: The run's config.
    """
    if config.trainer.fast_dev_run or not directory.result.is_file():
        return
    for spec in targets.parts({"logger": config.logger}).values():
        asked = spec.get("log_model") if spec["_target_"] == OURS_AT_WANDB else None
        if asked and (directory.path / ID_FILE).is_file():
            _log(directory, config, spec, versions(directory, asked))


def versions(directory: RunDirectory, asked: Literal["best", "all"]) -> dict[str, list[Path]]:
    """The files of the versions to log, by alias, in this order; W&B moves the alias `latest` to the last one.

    Args:
        directory: Of the completed run.
        asked: `best` is the best checkpoint; `all` adds the last one, and those of `callbacks.checkpoint.keep`.
    """
    described = [directory.config, directory.result, directory.manifest, directory.metrics]
    best = {BEST: [*described, directory.best, directory.weights]}
    if asked == "best":
        return best
    epochs = {path.stem.removeprefix("epoch_"): [path] for path in directory.checkpoints.glob("epoch_*.ckpt")}
    kept = sorted((name for name in epochs if name.isdecimal()), key=int)  # the user may keep other files there
    return {f"epoch_{name}": epochs[name] for name in kept} | best | {"last": [directory.last]}


def _log(directory: RunDirectory, config: Train, spec: dict[str, Any], versions: dict[str, list[Path]]) -> None:
    """Continues the run at W&B, logs the versions, and ends it."""
    metadata = json.loads(directory.result.read_text(encoding="utf-8"), parse_constant=str)  # W&B accepts no NaN
    with quiet("alexnet_lab.run.tracking"):  # the run itself has said where W&B is
        loggers = steady(OURS_AT_WANDB, lambda: targets.build(spec, "logger", directory.path, config.model_dump()))
    for started, rows in wandb_runs(loggers):
        rows.continues = False
        for alias, files in versions.items():
            started.attempt(lambda: _upload(rows.run, directory, alias, files, metadata))  # noqa: B023 - called at once
    finish(loggers, 0)


def _upload(run: Any, directory: RunDirectory, alias: str, files: Sequence[Path], metadata: dict[str, Any]) -> None:
    """Logs a version; waits for the upload of an online run."""
    import wandb  # noqa: PLC0415 - takes 0.3 s

    folder = _linked(directory, files, f"{alias}_{metadata.get('steps')}")
    artifact = wandb.Artifact(artifact_name(run.id), TYPE, metadata=metadata)
    artifact.add_dir(str(folder), policy="immutable", skip_cache=True)  # no copies: see `_linked`
    logged = run.log_artifact(artifact, aliases=[alias])
    if not run.offline:
        logged.wait(timeout=int(UPLOAD_SECONDS + artifact.size / BYTES_PER_SECOND))


def _linked(directory: RunDirectory, files: Sequence[Path], name: str) -> Path:
    """A folder of the run directory with hard links to the files of a version.

    `wandb sync` reads it later. Further training replaces files instead of changing them, so the links keep what was
    logged, and they use no space until then.
    """
    folder = directory.path / "wandb" / "models" / name
    shutil.rmtree(folder, ignore_errors=True)
    for file in files:
        if file.is_file():
            link_or_copy(file, folder / file.relative_to(directory.path))
    return folder
