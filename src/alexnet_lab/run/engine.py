"""One process's part of a run: data, model, trainer, fit, test."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import warnings
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.profilers import PassThroughProfiler

from alexnet_lab.base import cluster
from alexnet_lab.base.errors import Interrupted
from alexnet_lab.base.log import close_file, log_to_file, shows_bars, start_log
from alexnet_lab.base.targets import build
from alexnet_lab.config.schema import EARLY_EPOCHS
from alexnet_lab.data.datamodule import ImageDataModule
from alexnet_lab.data.field_rules import has_validation_images
from alexnet_lab.data.preview import preview
from alexnet_lab.models.counts import num_parameters
from alexnet_lab.run import parts, tracking
from alexnet_lab.run.checkpoint_identity import KeepIdentity
from alexnet_lab.run.distributed import ExactDDP, Processes
from alexnet_lab.run.resuming import prepared
from alexnet_lab.run.threads import CrowdedCores
from alexnet_lab.run.tolerant_loggers import steady
from alexnet_lab.training import Classifier
from alexnet_lab.training.batch_norm import batch_dependent, synchronise
from alexnet_lab.training.callbacks import STAGES, MetricsCsv, Throughput, plain
from alexnet_lab.training.checkpoint_io import SafeCheckpointIO, load_checkpoint, load_weights
from alexnet_lab.training.checkpoints import Checkpoints
from alexnet_lab.training.confusion import Confusion
from alexnet_lab.training.early_stopping import EarlyStopping
from alexnet_lab.training.finite_loss import FiniteLoss
from alexnet_lab.training.layer_statistics import LayerStatistics
from alexnet_lab.training.progress_bar import ProgressLine
from alexnet_lab.training.pruning import Pruning, Rule
from alexnet_lab.training.shared_dropout import share_dropout
from alexnet_lab.training.step_seeds import StepSeeds
from alexnet_lab.training.time_to import TimeTo, TimeToError, TimeToLoss

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lightning import Callback
    from lightning.pytorch.loggers import Logger
    from torch import nn

    from alexnet_lab.run.run_directory import RunDirectory

log = logging.getLogger(__name__)


def fit_and_test(config: dict[str, Any], directory: RunDirectory, *, resume: bool = False) -> dict[str, Any]:
    """Trains, then tests the best checkpoint once, if there is a test set.

    Args:
        config: A checked config.
        directory: The run's directory, claimed by the caller.
        resume: Go on from the last checkpoint that is whole.

    Returns:
        The fields of result.json that training decides: metrics, epochs, steps, images_per_second, best_checkpoint,
        best_epoch, train, to_error, to_loss.

    Raises:
        Interrupted: After Ctrl-C or SIGTERM; what was reached lies in the checkpoints.
    """
    here = cluster.place()
    rank = 0 if here is None else here.rank
    start_log(rank)
    handler = log_to_file(directory.log, rank)
    logging.captureWarnings(capture=True)
    logger = None
    exit_code = 1
    try:
        seed_everything(config["seed"])
        torch.set_num_threads(config["trainer"]["num_threads"] or 1)
        logger = build_logger(config, directory) if rank == 0 else None
        outcome = _fit_and_test(config, directory, logger, resume=resume)
        exit_code = 0
    except BaseException:
        log.debug("the run ended with an error", exc_info=True)
        raise
    finally:
        tracking.finish(logger, exit_code)
        logging.captureWarnings(capture=False)
        close_file(handler)
    return outcome


def _fit_and_test(
    config: dict[str, Any], directory: RunDirectory, logger: Logger | None, *, resume: bool
) -> dict[str, Any]:
    data = build_data(config)
    data.any_images = config["resume_force"]
    classifier = build_classifier(config)
    warn_of_shared_batches(classifier.net, config["data"])
    throughput, seeds = Throughput(), StepSeeds(config["seed"])
    metrics_csv = MetricsCsv(directory.metrics, throughput)
    checkpoints = Checkpoints(directory.checkpoints, **config["callbacks"]["checkpoint"])
    confusion = Confusion(config["data"]["num_classes"])
    watching = [throughput, seeds, FiniteLoss(seeds), CrowdedCores(), confusion, *optional_callbacks(config, directory)]
    identity = KeepIdentity(config)
    callbacks = [*watching, metrics_csv, checkpoints, identity]
    trainer = build_trainer(config, directory, logger, callbacks)
    if config["callbacks"]["augmentation_preview"] and trainer.is_global_zero and not resume:
        draw_preview(data, directory.preview)
    last = resumed_from(directory, config, trainer) if resume else None
    interruptible(trainer, lambda: trainer.fit(classifier, data, ckpt_path=last, weights_only=True))
    kept = checkpoints.best_epoch >= 0
    if kept:  # Lightning's way would also bring back the state that each callback had then
        load_weights(classifier, load_checkpoint(directory.best), directory.best)
    train_set = train_set_metrics(trainer, classifier, data) if config["callbacks"]["train_set"] else {}
    test = test_metrics(trainer, classifier, data)
    best_epoch = checkpoints.best_epoch + 1 if kept else None
    tracking.show(
        logger,
        pictures=directory.pictures(),
        epochs=metrics_csv.rows,
        confusion=confusion.counts,
        class_names=data.class_names,
    )
    outcome = {
        "metrics": metrics_of_epoch(metrics_csv.rows, best_epoch) | train_set | test,
        **getattr(data, "identity", {}),  # which images these results are about: see alexnet_lab.data.identity
        "epochs": processed_epochs(trainer),
        "steps": trainer.global_step,
        "images_per_second": round(throughput.images / throughput.seconds, 1) if throughput.seconds else None,
        "best_checkpoint": str(directory.best.relative_to(directory.path)) if kept else None,
        "best_epoch": best_epoch,
        "train": course_of_training(metrics_csv.rows),
        "to_error": None,
        "to_loss": None,
        **{f"to_{callback.name}": callback.result for callback in callbacks if isinstance(callback, TimeTo)},
    }
    size = {"num_parameters": num_parameters(classifier.net), "wall_seconds": round(identity.seconds, 2)}
    tracking.summarize(logger, outcome["metrics"] | size | {name: outcome.get(name) for name in SUMMARIZED})
    return outcome


def test_metrics(trainer: Trainer, classifier: Classifier, data: Any) -> dict[str, float]:
    """Tests once, and returns `test/...`; empty, with a warning, where there is no test set."""
    if getattr(data, "num_test", None) == 0:
        log.warning("there is no test set, and data.test_fraction=0 sets none apart: nothing is tested")
        return {}
    return _tested(trainer, classifier, data, "test")


def train_set_metrics(trainer: Trainer, classifier: Classifier, data: Any) -> dict[str, float]:
    """Tests on the training images as they are, without augmentation and dropout, and returns `train_set/...`."""
    if not isinstance(data, ImageDataModule):
        log.warning("callbacks.train_set is left out: %s does not offer its training images", type(data).__name__)
        return {}
    data.tested, classifier.test_stage = "train", "train_set"
    try:
        return _tested(trainer, classifier, data, "train_set")
    finally:
        data.tested, classifier.test_stage = "test", "test"


def _tested(trainer: Trainer, classifier: Classifier, data: Any, stage: str) -> dict[str, float]:
    interruptible(trainer, lambda: trainer.test(classifier, data, verbose=False))
    return {name: plain(value) for name, value in trainer.callback_metrics.items() if name.startswith(f"{stage}/")}


SUMMARIZED = ("best_epoch", "epochs", "steps", "images_per_second", "store_hash")
"""Fields of a result that a tracker shows beside its metrics."""


def resumed_from(directory: RunDirectory, config: dict[str, Any], trainer: Trainer) -> Path:
    """The checkpoint that a run continues from; what it holds is handed over, so that it is read once."""
    io = cast("SafeCheckpointIO", trainer.strategy.checkpoint_io)
    states = [callback.state_key for callback in cast("list[Callback]", trainer.callbacks)]  # pyright: ignore[reportAttributeAccessIssue] - set out of its sight
    return io.hand_over(*prepared(directory, config, states))


def draw_preview(data: Any, path: Path) -> None:
    """Draws the picture of the augmentation; a run can do without it."""
    data.setup("fit")
    try:
        preview(data, path)
    except OSError as error:
        log.warning("%s could not be written (%s); training goes on", path, error.strerror or error)


def build_data(config: dict[str, Any]) -> Any:
    """The LightningDataModule of a config."""
    trusted = tuple(config["trusted_packages"])
    augment = None if config["augment"] is None else build(config["augment"], "augment", trusted=trusted)
    return build(config["data"], "data", trusted=trusted, seed=config["seed"], augment=augment)


def build_classifier(config: dict[str, Any]) -> Classifier:
    """The LightningModule of a config, in the memory layout that it asks for, compiled if it asks for that.

    Its batch normalisations and dropouts are those of the whole global batch.
    """
    classifier = Classifier(
        model=config["model"],
        num_classes=config["data"]["num_classes"],
        optimizer=config["optimizer"],
        schedule=config["schedule"],
        loss=config["loss"],
        memory_format="channels_last" if config["trainer"]["channels_last"] else "contiguous",
        trusted_packages=config["trusted_packages"],
    )
    synchronise(classifier.net)
    share_dropout(classifier.net)
    if config["trainer"]["compile"]:
        classifier.net.compile()  # in place: the names in the checkpoint stay the same
    return classifier


def warn_of_shared_batches(net: nn.Module, data: Mapping[str, Any]) -> None:
    """Warns of layers whose result depends on how many processes share a batch.

    Args:
        net: Before it is trained.
        data: The config's `data`.
    """
    here = cluster.place()
    if here is None or here.size == 1 or here.rank:
        return
    layers = batch_dependent(net, (data["channels"], data["image_size"], data["image_size"]))
    if layers:
        log.warning(
            "%s: the result for an image depends on the other images of its batch, and each of the %d processes sees "
            "only its part of a batch; one process would give other losses",
            ", ".join(layers[:5]), here.size,
        )  # fmt: skip


def optional_callbacks(config: dict[str, Any], directory: RunDirectory) -> list[Callback]:
    """Those that the config asks for."""
    callbacks: list[Callback] = []
    stopping = config["callbacks"]["early_stopping"]
    if stopping is not None:
        callbacks.append(EarlyStopping(**stopping))
    to_error = config["callbacks"]["to_error"]
    if to_error is not None:
        callbacks.append(TimeToError(error=to_error["error"], stop=to_error["stop"]))
    to_loss = config["callbacks"]["to_loss"]
    if to_loss is not None:
        callbacks.append(TimeToLoss(loss=to_loss["loss"], stop=to_loss["stop"]))
    pruning = config["callbacks"]["pruning"]
    if pruning is not None:
        monitor = config["callbacks"]["checkpoint"]["monitor"]
        callbacks.append(Pruning(directory.path, monitor, Rule(pruning["startup_trials"], pruning["warmup_epochs"])))
    if config["callbacks"]["layer_statistics"]:
        callbacks.append(LayerStatistics())
    if config["trainer"]["progress_bar"] and shows_bars():
        callbacks.append(ProgressLine())
    return callbacks


PASSED_ON = (
    "max_epochs", "max_steps", "accelerator", "precision", "limit_train_batches", "limit_val_batches",
    "limit_test_batches", "fast_dev_run", "overfit_batches", "check_val_every_n_epoch", "accumulate_grad_batches",
    "gradient_clip_val", "deterministic", "detect_anomaly", "devices", "num_nodes",
)  # fmt: skip
"""The keys of `trainer` that `lightning.Trainer` knows by the same name."""


def build_trainer(
    config: dict[str, Any], directory: RunDirectory, logger: Logger | None, callbacks: list[Callback]
) -> Trainer:
    """Lightning's Trainer; what it does beside training is left to our callbacks."""
    settings = {name: config["trainer"][name] for name in PASSED_ON}
    processes = Processes()
    warnings.filterwarnings("ignore", message=".*srun. command is available")  # a login node of SLURM is a machine too
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")  # between Lightning 2.6 and torch 2.14
    # A debugging aid of `deterministic`, which writes every new tensor twice.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue] - by torch's own trick
    trainer = Trainer(
        **settings,
        strategy=ExactDDP() if processes.size > 1 else "auto",
        logger=logger if logger is not None else False,
        callbacks=callbacks,
        plugins=[SafeCheckpointIO(), processes],
        default_root_dir=directory.path,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        log_every_n_steps=1,  # metrics are told once an epoch; Lightning would warn of epochs shorter than this
        enable_progress_bar=False,  # ours is a callback
        profiler=NoProfiler(),
        use_distributed_sampler=False,  # the loader shares the batches out itself
    )
    if not has_validation_images(config["data"]):  # now: overfit_batches and fast_dev_run set the limit themselves
        trainer.limit_val_batches = 0
    # with max_steps, Lightning would resume an epoch that is over as one that is under way
    trainer.fit_loop._iteration_based_training = lambda: False
    return trainer


class NoProfiler(PassThroughProfiler):
    """Lightning asks its profiler around each hook of each callback, even if it measures nothing: this one is quick."""

    def profile(self, action_name: str) -> Any:
        """Nothing around the action."""
        return NOTHING


NOTHING = contextlib.nullcontext()


def build_logger(config: dict[str, Any], directory: RunDirectory) -> Logger | None:
    """The tracker of a config; none in a trial run."""
    if config["logger"] is None or config["trainer"]["fast_dev_run"]:
        return None
    spec = config["logger"]
    return steady(spec["_target_"], lambda: parts.build_logger(spec, directory.path, config))


def interruptible(trainer: Trainer, action: Any) -> None:
    """Calls `action`; what Lightning makes of Ctrl-C and SIGTERM (an exit) becomes `Interrupted`."""
    try:
        action()
    except (SystemExit, KeyboardInterrupt) as error:
        name = "SIGTERM" if trainer.received_sigterm else "Ctrl-C"
        raise Interrupted(f"interrupted by {name} in epoch {trainer.current_epoch + 1}") from error
    finally:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # Lightning's shutdown leaves it so
            signal.signal(signal.SIGINT, signal.default_int_handler)


def processed_epochs(trainer: Trainer) -> int:
    """How many epochs were trained; the last one may be a part of one."""
    return trainer.fit_loop.epoch_progress.current.processed  # pyright: ignore[reportAttributeAccessIssue] - Lightning's own type hides it


def metrics_of_epoch(rows: list[dict[str, Any]], epoch: int | None) -> dict[str, float]:
    """The train/ and val/ metrics of one epoch; of the last one if that epoch has no row."""
    chosen = next((row for row in rows if int(row["epoch"]) == epoch), rows[-1] if rows else {})
    return {name: float(value) for name, value in chosen.items() if name.startswith(STAGES) and value != ""}


def course_of_training(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How training began and ended: the mean loss of the first three epochs, and the numbers of the last one."""
    trained = [row for row in rows if row.get("train/loss") not in (None, "")]
    early = [float(row["train/loss"]) for row in trained[:EARLY_EPOCHS]]
    found = {f"final_{name}": float(row[f"train/{name}"]) for row in trained[-1:] for name in ("loss", "top1_error")}
    if len(early) == EARLY_EPOCHS:
        found["early_loss"] = sum(early) / EARLY_EPOCHS
    return found


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch, without a trace in the environment."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that still use the global stream
    torch.manual_seed(seed)
