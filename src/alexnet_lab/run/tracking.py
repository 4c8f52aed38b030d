"""Experiment trackers. W&B is online where a login exists and offline otherwise; it never asks, and fails as failed."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from alexnet_lab.base.errors import one_line
from alexnet_lab.base.files import write_text
from alexnet_lab.base.nested import flat
from alexnet_lab.base.targets import build

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

QUIET = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_ERROR_REPORTING": "false"}
INIT_TIMEOUT_SECONDS = 20.0

STEPS_OF_A_PART = 1_000_000
"""An offline run that goes on is a further file; W&B's own step starts there, since on the server it may only grow."""

MOST_CELLS = 10_000
"""What W&B draws of a table."""


class SteadyWandbLogger(WandbLogger):
    """A W&B logger that is given up, with a warning, where its service does not answer: the run itself goes on."""

    lost = False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs, as long as W&B takes it."""
        if self.lost:
            return
        try:
            super().log_metrics(metrics, step)
        except Exception as error:  # whatever W&B comes up with: the run itself goes on
            self.give_up(error)

    def finish(self, exit_code: int, summary: dict[str, float]) -> None:
        """Ends the run with its real state."""
        if self.lost:
            return
        try:
            self.experiment.summary.update(summary)
            self.experiment.finish(exit_code=exit_code)
        except Exception as error:  # whatever W&B comes up with: the run itself goes on
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        """Says so once, and keeps W&B from trying again when the process ends."""
        import wandb  # noqa: PLC0415

        self.lost = True
        log.warning("W&B is given up (%s: %s); metrics.csv goes on", type(error).__name__, one_line(error))
        with contextlib.suppress(Exception):
            wandb.teardown()


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
    if not os.access(Path.home(), os.W_OK):  # its log would come to the screen
        os.environ.setdefault("WANDB_CACHE_DIR", str(Path(tempfile.gettempdir(), "wandb-cache")))
    os.environ.pop("WANDB_SERVICE", None)  # a dead parent's service would be asked in vain
    chosen = _mode(mode)
    if chosen == "disabled":
        return SteadyWandbLogger(experiment=wandb.init(mode="disabled"), save_dir=run_dir, project=project)
    arguments: dict[str, Any] = {
        "project": project, "entity": entity, "name": name or run_dir.name, "group": group, "job_type": job_type,
        "notes": notes, "tags": config["tags"], "config": flat(config), "dir": str(run_dir), "id": _run_id(run_dir),
        "resume": "allow",
    }  # fmt: skip
    run = _start(chosen, arguments)
    parts = len(list(run_dir.glob(f"wandb/offline-run-*-{run.id}*")))  # within one second W&B appends -1
    if parts > 1:
        run.log({"part": parts}, step=STEPS_OF_A_PART * (parts - 1))
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return SteadyWandbLogger(experiment=run, save_dir=run_dir, project=project)


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
    from wandb.errors import Error  # noqa: PLC0415

    mode = os.environ.get("WANDB_MODE", mode) if mode == "auto" else mode
    if mode != "auto":
        return {"dryrun": "offline"}.get(mode, mode)
    try:
        known = has_login()
    except Error as error:
        log.warning("W&B cannot be reached, or refuses the login (%s); this run is kept offline", one_line(error))
        return "offline"
    if known:
        log.info("W&B: online")
        return "online"
    log.info("W&B: no login, so offline; after `wandb login`, `wandb sync` uploads the run")
    return "offline"


def has_login() -> bool:
    """Whether W&B knows a key of the user's; nobody is asked.

    Raises:
        wandb.errors.Error: There is a key, and the server does not answer or does not know it.
    """
    import wandb  # noqa: PLC0415

    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    return bool(wandb.login(prompt=False))


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


def show(
    logger: Logger | None,
    *,
    pictures: Sequence[Path],
    epochs: Sequence[Mapping[str, Any]],
    confusion: Sequence[Sequence[int]] | None,
    class_names: Sequence[str],
) -> None:
    """Logs what a run is looked at by, once, at its end; trackers other than W&B get nothing.

    Args:
        logger: The run's.
        pictures: PNG files; those that are there are logged under their name without `.png`.
        epochs: The rows of metrics.csv, logged as the table `epochs`.
        confusion: Images of class i that were called class j, in row i and column j: with up to 100 classes the chart
            `confusion_matrix`, and always the table `confusions` of the mistakes, the most frequent first.
        class_names: Of the rows and columns.
    """
    if not isinstance(logger, SteadyWandbLogger) or logger.lost:
        return
    try:
        logger.experiment.log(_shown(pictures, epochs, confusion, class_names))
    except Exception as error:  # whatever W&B comes up with: the run itself has done its work
        log.warning("W&B got no pictures and tables: %s: %s", type(error).__name__, one_line(error))


def _shown(
    pictures: Sequence[Path],
    epochs: Sequence[Mapping[str, Any]],
    confusion: Sequence[Sequence[int]] | None,
    class_names: Sequence[str],
) -> dict[str, Any]:
    import wandb  # noqa: PLC0415

    logged: dict[str, Any] = {path.stem: wandb.Image(str(path)) for path in pictures if path.is_file()}
    if epochs:
        columns: list[Any] = list(dict.fromkeys(name for row in epochs for name in row))
        logged["epochs"] = wandb.Table(columns, [[_number(row.get(name, "")) for name in columns] for row in epochs])
    if confusion is not None:
        logged |= _confusion(confusion, class_names)
    return logged


def add_pictures(run_dir: Path, config: Mapping[str, Any], pictures: Sequence[Path]) -> None:
    """Logs pictures that were made of a finished run, each under its name, to that run; if W&B has it.

    Args:
        run_dir: The run's directory.
        config: The run's config.
        pictures: PNG files.
    """
    spec = config["logger"]
    if spec is None or spec["_target_"] != f"{__name__}.wandb_logger" or not (run_dir / "wandb_id.txt").is_file():
        return
    logger = build(spec, "logger", run_dir, config)
    show(logger, pictures=pictures, epochs=[], confusion=None, class_names=[])
    finish(logger, 0, {})


def _confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> dict[str, Any]:
    """W&B's own chart of a confusion matrix, and a table of the mistakes."""
    import wandb  # noqa: PLC0415

    cells = [
        [true, called, count] for true, row in zip(names, counts, strict=True)
        for called, count in zip(names, row, strict=True)
    ]  # fmt: skip
    mistakes = sorted((cell for cell in cells if cell[0] != cell[1] and cell[2]), key=lambda cell: -cell[2])
    logged: dict[str, Any] = {"confusions": wandb.Table(["true", "called", "images"], mistakes[:MOST_CELLS])}
    if len(cells) <= MOST_CELLS:
        fields = ("Actual", "Predicted", "nPredictions")  # what W&B's chart calls them
        logged["confusion_matrix"] = wandb.plot_table(
            "wandb/confusion_matrix/v1", wandb.Table(list(fields), cells), {field: field for field in fields}
        )
    return logged


def _number(text: Any) -> float | None:
    """A cell of metrics.csv; an empty one is None."""
    return None if text == "" else float(text)


def finish(logger: Logger | None, exit_code: int, summary: dict[str, float]) -> None:
    """Ends a W&B run with the run's real state; other trackers need nothing."""
    if isinstance(logger, SteadyWandbLogger):
        logger.finish(exit_code, summary)
