"""Where training happens: one process's part of a run, from data and model to fit and test."""

from __future__ import annotations

import contextlib
import logging
import signal
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn

from alexnet_lab.base import cluster
from alexnet_lab.base.environment import variables
from alexnet_lab.base.errors import Interrupted
from alexnet_lab.base.log import close_file, log_to_file, replay, start_log
from alexnet_lab.base.signals import Terminated
from alexnet_lab.config.schema import EARLY_EPOCHS, Train
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.preview import preview
from alexnet_lab.models.counts import num_parameters
from alexnet_lab.run import engine, parts, starting_weights, tracking
from alexnet_lab.run.best_weights import BestWeights
from alexnet_lab.run.checkpoint_identity import KeepIdentity
from alexnet_lab.run.last_step import EndAfterStep
from alexnet_lab.run.preparation import Prepared
from alexnet_lab.run.resuming import prepared
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.run.threads import CrowdedCores, settings_restored
from alexnet_lab.run.wandb_media import shown
from alexnet_lab.training import Classifier, freezing
from alexnet_lab.training.callbacks import STAGES, MetricsCsv, Throughput, network_of, plain
from alexnet_lab.training.checkpoint_io import Intact, SafeCheckpointIO, load_checkpoint, load_weights
from alexnet_lab.training.checkpoints import Checkpoints
from alexnet_lab.training.finite_loss import FiniteLoss, anomalies_located
from alexnet_lab.training.last_validation import LastValidation, ValidatedEnd
from alexnet_lab.training.logged_sums import LoggedSums
from alexnet_lab.training.metrics import Confusion
from alexnet_lab.training.step_seeds import StepSeeds
from alexnet_lab.training.time_to import TimeTo

log = logging.getLogger(__name__)


def fit_and_test(
    config: Train,
    directory: RunDirectory,
    *,
    resume: bool = False,
    checkpoint: Intact | None = None,
    ready: Prepared | None = None,
) -> dict[str, Any]:
    """Trains, then tests the best checkpoint once, if there is a test set.

    Args:
        config: A checked config.
        directory: The run's directory, locked by the caller.
        resume: Continue from the newest checkpoint that is intact.
        checkpoint: That checkpoint, if already found.
        ready: The data that the caller has prepared in this process; None builds it here.

    Returns:
        The fields of result.json that come from training: metrics, epochs, steps, images_per_second,
        best_checkpoint, best_epoch, train, to_error, to_loss.

    Raises:
        Interrupted: After Ctrl-C or SIGTERM; the checkpoints contain the progress.
    """
    with logged_to_file(directory), settings_restored(), limited_threads(config.trainer.num_threads or 1):
        engine.seed_everything(config.seed)
        data = ready_data(config, ready)
        classifier = engine.build_classifier(config)
        if not resume:
            starting_weights.load_into(config, network_of(classifier))
        log_frozen(network_of(classifier))
        engine.warn_of_shared_batches(network_of(classifier), config.data)
        own = OwnCallbacks(config, directory)
        callbacks = own.around(engine.optional_callbacks(config, directory))
        with tracking.finishing(parts.build_loggers(config, directory.path)) as loggers:
            trainer = engine.build_trainer(config, directory, loggers, callbacks)
            if config.callbacks.augmentation_preview and trainer.is_global_zero and not resume:
                draw_preview(data, directory.preview)
            last = resumed_from(directory, config, trainer, checkpoint) if resume else None
            with interruptible(trainer), anomalies_located(trainer):
                trainer.fit(classifier, data, ckpt_path=last, weights_only=True)
            load_best(trainer, classifier, own)
            tested = train_set_metrics(trainer, classifier, data, own.confusion) if config.callbacks.train_set else {}
            tested |= test_metrics(trainer, classifier, data)
            names = class_names(data, config.data["num_classes"])
            media = partial(shown, directory.pictures(), own.metrics.rows, own.confusion.counts, names)
            tracking.show(loggers, media)
            outcome = outcome_of(trainer, data, own, callbacks, tested)
            tracking.summarize(loggers, summary_of(outcome, classifier, own))
    return outcome


SUMMARIZED = ("best_epoch", "epochs", "steps", "images_per_second", "store_hash")
"""Fields of a result that a logger shows beside its metrics."""


class OwnCallbacks:
    """The callbacks of every run, whose measurements go into result.json."""

    def __init__(self, config: Train, directory: RunDirectory) -> None:
        kept = config.callbacks.checkpoint.model_dump()
        self.throughput = Throughput()
        self.confusion = Confusion(config.data["num_classes"])
        self.metrics = MetricsCsv(directory.metrics, self.throughput)
        self.weights = BestWeights(directory, config)
        self.checkpoints = Checkpoints(directory.checkpoints, **kept, before_best=self.weights.best)
        self.identity = KeepIdentity(config)
        self.seeds = StepSeeds(config.seed)

    def around(self, others: list[Callback]) -> list[Callback]:
        """All callbacks, in Lightning's calling order."""
        first = [
            LastValidation(), ValidatedEnd(), LoggedSums(), self.throughput, self.seeds, FiniteLoss(self.seeds),
            CrowdedCores(), self.confusion,
        ]  # fmt: skip
        return [*first, *others, self.metrics, self.checkpoints, self.identity, EndAfterStep(self.checkpoints)]


@contextlib.contextmanager
def limited_threads(number: int) -> Iterator[None]:
    """Sets this process's threads. Within the block Lightning leaves them so.

    Without `OMP_NUM_THREADS`, its launcher of several processes would set cores / processes instead.
    """
    torch.set_num_threads(number)
    with variables(OMP_NUM_THREADS=str(number)):
        yield


@contextlib.contextmanager
def logged_to_file(directory: RunDirectory) -> Iterator[None]:
    """Within the block train.log gets every message and, if the block fails, the traceback."""
    rank = cluster.place().rank
    start_log(rank)
    handler = log_to_file(directory.log, rank)
    captured = warnings.showwarning.__module__ == logging.__name__  # by the caller
    logging.captureWarnings(capture=True)
    try:
        yield
    except BaseException:
        log.debug("the run ended with an error", exc_info=True)
        raise
    finally:
        logging.captureWarnings(capture=captured)
        close_file(handler)


@contextlib.contextmanager
def interruptible(trainer: Trainer) -> Iterator[None]:
    """Within the block, the exit that Lightning makes of Ctrl-C and SIGTERM becomes `Interrupted`."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        by_sigterm = trainer.received_sigterm or isinstance(error.__context__ or error, Terminated)
        name = "SIGTERM" if by_sigterm else "Ctrl-C"
        raise Interrupted(f"interrupted by {name} {interrupted_at(trainer)}") from error
    finally:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # Lightning's shutdown leaves it ignored
            signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupted_at(trainer: Trainer) -> str:
    """Where a run is: in the epoch that has begun last, or in the tests after training."""
    if trainer.state.fn != TrainerFn.FITTING:
        return "while the trained network was tested"
    begun = trainer.fit_loop.epoch_progress.current.ready  # pyright: ignore[reportAttributeAccessIssue] - Lightning's own type hides it
    return f"in epoch {max(1, begun)}"


def log_frozen(net: nn.Module) -> None:
    """Logs which layers are not trained, if any."""
    text = freezing.described(net)
    if text:
        log.info("%s", text)


def ready_data(config: Train, ready: Prepared | None) -> Any:
    """The data module that was prepared in this process, with its log records, or a new one.

    Another package's module may draw random numbers. It is built here, after seeding, as in worker processes.
    """
    if ready is None or not isinstance(ready.data, ImageDataModule):
        return engine.build_data(engine.without_verification(config))
    replay(ready.messages)
    return ready.data


def class_names(data: Any, number: int) -> list[str]:
    """The names of the classes; their numbers, if another package's data module has none."""
    return getattr(data, "class_names", None) or [str(label) for label in range(number)]


def draw_preview(data: Any, path: Path) -> None:
    """Draws the preview of the augmentation; if it cannot be written, the run continues."""
    if not isinstance(data, ImageDataModule):
        log.info("there is no %s: %s does not offer its images before augmentation", path.name, type(data).__name__)
        return
    data.setup("fit")
    try:
        preview(data, path)
    except OSError as error:
        log.warning("%s could not be written (%s); training continues", path, error.strerror or error)


def resumed_from(directory: RunDirectory, config: Train, trainer: Trainer, checkpoint: Intact | None) -> Path:
    """The checkpoint to resume from; Lightning gets its content from memory instead of reading it again."""
    io = cast("SafeCheckpointIO", trainer.strategy.checkpoint_io)
    states = [callback.state_key for callback in cast("list[Callback]", trainer.callbacks)]  # pyright: ignore[reportAttributeAccessIssue] - set out of its sight
    return io.preload(*prepared(directory, config, states, checkpoint))


def load_best(trainer: Trainer, classifier: LightningModule, own: OwnCallbacks) -> None:
    """Loads the best epoch's weights. Lightning's own way would also restore each callback's state of that epoch."""
    checkpoints, rows = own.checkpoints, own.metrics.rows
    unknown = rows and checkpoints.monitor not in {None}.union(*rows) and sum(trainer.num_val_batches)
    if unknown and not isinstance(classifier, Classifier):
        name = type(classifier).__name__
        log.warning("%s logs no %s, so best.ckpt is that of the last epoch", name, checkpoints.monitor)
    if checkpoints.best_epoch >= 0:
        load_weights(classifier, load_checkpoint(checkpoints.best), checkpoints.best)
        epoch = checkpoints.best_epoch + 1
        own.weights.complete(trainer, classifier, metrics_of_epoch(rows, epoch), epoch)


def test_metrics(trainer: Trainer, classifier: LightningModule, data: Any) -> dict[str, float]:
    """Tests once and returns `test/...`; empty, with a warning, without a test set."""
    if getattr(data, "num_test", None) == 0:
        log.warning("there is no test set, and data.test_fraction=0 splits none off: nothing is tested")
        return {}
    if not is_overridden("test_step", classifier, parent=LightningModule):
        log.warning("%s has no test_step: nothing is tested", type(classifier).__name__)
        return {}
    return _tested(trainer, classifier, data, "test")


def train_set_metrics(
    trainer: Trainer, classifier: LightningModule, data: Any, confusion: Confusion
) -> dict[str, float]:
    """Tests on the training images without augmentation and dropout, and returns `train_set/...`."""
    if not isinstance(data, ImageDataModule):
        log.warning("callbacks.train_set is ignored: %s does not offer its training images", type(data).__name__)
        return {}
    if not isinstance(classifier, Classifier):
        log.warning("callbacks.train_set is left out: %s is no subclass of Classifier", type(classifier).__name__)
        return {}
    tested = _tested(trainer, classifier, data.tested_on("train", stage="train_set"), "train_set")
    confusion.counts = None  # a matrix is of the test set alone
    return tested


def _tested(trainer: Trainer, classifier: LightningModule, data: Any, stage: str) -> dict[str, float]:
    with interruptible(trainer):
        trainer.test(classifier, data, verbose=False)
    return {name: plain(value) for name, value in trainer.callback_metrics.items() if name.startswith(f"{stage}/")}


def outcome_of(
    trainer: Trainer, data: Any, own: OwnCallbacks, callbacks: list[Callback], tested: dict[str, float]
) -> dict[str, Any]:
    """The fields of result.json that come from training; `tested` are the metrics of the test."""
    throughput, checkpoints, rows = own.throughput, own.checkpoints, own.metrics.rows
    best_epoch = checkpoints.best_epoch + 1 if checkpoints.best_epoch >= 0 else None
    run_dir = checkpoints.folder.parent
    return {
        "metrics": metrics_of_epoch(rows, best_epoch) | tested,
        **getattr(data, "identity", {}),  # the images of these results: see alexnet_lab.data.identity
        "epochs": trainer.fit_loop.epoch_progress.current.processed,  # pyright: ignore[reportAttributeAccessIssue] - Lightning's own type hides it
        "steps": trainer.global_step,
        "images_per_second": round(throughput.images / throughput.seconds, 1) if throughput.seconds else None,
        "best_checkpoint": str(checkpoints.best.relative_to(run_dir)) if best_epoch else None,
        "best_epoch": best_epoch,
        "train": course_of_training(rows),
        "to_error": None,
        "to_loss": None,
        **{f"to_{callback.name}": callback.result for callback in callbacks if isinstance(callback, TimeTo)},
    }


def summary_of(outcome: dict[str, Any], classifier: LightningModule, own: OwnCallbacks) -> dict[str, Any]:
    """What a logger shows of a finished run."""
    size = {
        "num_parameters": num_parameters(network_of(classifier)), "wall_seconds": round(own.identity.seconds, 2)
    }  # fmt: skip
    return outcome["metrics"] | size | {name: outcome.get(name) for name in SUMMARIZED}


def metrics_of_epoch(rows: list[dict[str, Any]], epoch: int | None) -> dict[str, float]:
    """The train/ and val/ metrics of one epoch; of the last one if that epoch has no row."""
    chosen = next((row for row in rows if int(row["epoch"]) == epoch), rows[-1] if rows else {})
    return {name: float(value) for name, value in chosen.items() if name.startswith(STAGES) and value != ""}


def course_of_training(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The start and end of training: the mean loss of the first three epochs, and the numbers of the last one."""
    trained = [row for row in rows if row.get("train/loss") not in (None, "")]
    early = [float(row["train/loss"]) for row in trained[:EARLY_EPOCHS]]
    last = trained[-1] if trained else {}
    names = [name for name in ("loss", "top1_error") if last.get(f"train/{name}") not in (None, "")]
    found = {f"final_{name}": float(last[f"train/{name}"]) for name in names}
    if len(early) == EARLY_EPOCHS:
        found["early_loss"] = sum(early) / EARLY_EPOCHS
    return found
