"""From a config to result.json: locks the directory, trains, restarts failed workers, records how the run ended."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_lab.base import shell
from alexnet_lab.base.cluster import place
from alexnet_lab.base.errors import AlexNetLabError, ConfigError, Interrupted, RunError, is_interrupt, one_line
from alexnet_lab.base.files import write_json
from alexnet_lab.base.formats import counted
from alexnet_lab.base.locks import free_folder
from alexnet_lab.base.log import start_log
from alexnet_lab.base.signals import deferred, terminable
from alexnet_lab.config.default_paths import has_default_run_dir
from alexnet_lab.config.schema import Train
from alexnet_lab.run import failures, provenance, starting_weights
from alexnet_lab.run.devices import check_devices, check_precision, count_processes, is_cpu, uses_workers
from alexnet_lab.run.elastic import WorkerDiedError, run_workers
from alexnet_lab.run.model_artifacts import log_models
from alexnet_lab.run.parts import check_parts
from alexnet_lab.run.preparation import Prepared, network_size, prepare
from alexnet_lab.run.rehearsal import check_callbacks
from alexnet_lab.run.request import checked
from alexnet_lab.run.resuming import begin, check_images, resume_command
from alexnet_lab.run.run_directory import CONTINUED_BY, RunDirectory
from alexnet_lab.run.run_files import error_names
from alexnet_lab.run.threads import with_threads
from alexnet_lab.run.worker import fit_and_test
from alexnet_lab.training.checkpoint_io import Intact

if TYPE_CHECKING:  # only runs of several externally started processes load it
    from alexnet_lab.run.multinode import Coordinator

log = logging.getLogger(__name__)


def train(config: Mapping[str, Any] | Train) -> dict[str, Any]:
    """Trains one run, in one process or several.

    Args:
        config: The result of `alexnet_lab.compose`, also once checked, or `{"resume": RUN_DIR}` with optional `changes`
            by dotted key.

    Returns:
        The content of the run's result.json.

    Raises:
        ConfigError: The config is wrong; nothing was written.
        DataError: The data set is missing or damaged; no run directory was created.
        RunError: The run directory cannot be used, or training failed; result.json says how.
        Interrupted: After Ctrl-C or SIGTERM; `resume=RUN_DIR` continues.

    Example:
        >>> from alexnet_lab import compose, train
        >>> config = compose("model=lenet5", "data=digits", "logger=csv", "debug=fast", "run_dir=logs/runs/second")
        >>> result = train(config)
        >>> result["status"], result["num_parameters"]
        ('completed', 61706)
    """
    start_log()
    config = config.model_dump() if isinstance(config, Train) else config
    valid = checked(config)
    if valid.sweep.dry_run:
        raise ConfigError("`sweep.dry_run` is true, which `python train.py` knows alone; leave it out")
    return run(valid, resume=bool(config.get("resume")))


def run(
    config: Train, *, resume: bool, inspect: Callable[[Mapping[str, Any]], None] = lambda _: None
) -> dict[str, Any]:
    """`train` for a checked config, from the start or from the last checkpoint of its directory.

    `inspect` is called with the record of the images (see `alexnet_lab.data.identity`) before training; it may raise.

    Example:
        >>> from alexnet_lab import compose
        >>> from alexnet_lab.config import check_train
        >>> config = compose("model=lenet5", "data=digits", "logger=csv", "debug=fast", "run_dir=logs/runs/third")
        >>> run(check_train(config), resume=False)["epochs"]
        1
    """
    if config.launcher.slurm:
        raise ConfigError("`launcher=slurm` sends jobs of a sweep to the cluster; add -m, or start this run by srun")
    check_devices(config.trainer)
    check_precision(config.trainer.accelerator, config.trainer.precision)
    coordinator = None
    if place().starter or config.trainer.num_nodes > 1:
        from alexnet_lab.run import multinode  # noqa: PLC0415 - only for runs of several externally started processes

        member = multinode.join(config.trainer)
        if isinstance(member, multinode.Follower):
            return member.follow(config)
        coordinator = member
    with coordinator or contextlib.nullcontext():
        workers = (coordinator is None or coordinator.kind == "nodes") and uses_workers(config)
        size = network_size(config)
        config = with_threads(config, size["num_macs"], count_processes(config.trainer))
        check_parts(config)
        check_callbacks(config)
        start = None if resume else starting_weights.check(config)
        if not resume and has_default_run_dir(config):
            config = config.model_copy(update={"run_dir": str(free_folder(Path(config.run_dir)))})
        directory = RunDirectory(config.run_dir)
        with directory.claimed(resume=resume), terminable():
            before = begin(directory, config, mapped=workers) if resume else None
            ready = prepare(config)
            inspect(ready.images)
            if before is not None:
                check_images(directory, before, ready.images, config)
            if coordinator is not None:
                coordinator.wait_for_all()
            with recorded(config, directory, size, before and before.seconds, start) as result:
                here = None if workers else ready
                fit(config, directory, result, coordinator, ready=here, checkpoint=before and before.checkpoint)
            log_models(directory, config)
    log.info(summary_line(result))
    return result


def fit(
    config: Train,
    directory: RunDirectory,
    result: dict[str, Any],
    coordinator: Coordinator | None,
    *,
    ready: Prepared | None,
    checkpoint: Intact | None,
) -> None:
    """Trains here or in worker processes, and starts again from the last checkpoint if a worker died.

    Args:
        config: A checked config.
        directory: Of the run, locked.
        result: Gets the results of training.
        coordinator: Of externally started processes, if any.
        ready: The data, to train in this process; None trains in worker processes.
        checkpoint: The checkpoint to resume from; None starts a new run.
    """
    resume, retries = checkpoint is not None, config.launcher.retries
    for attempt in itertools.count(1):
        result["attempts"] = attempt
        try:
            with (
                contextlib.nullcontext(None) if coordinator is None
                else coordinator.attempt(str(directory.path), resume=resume)
            ) as rendezvous:  # fmt: skip
                if ready is None:
                    result |= run_workers(
                        config, directory, resume=resume, checkpoint=checkpoint, rendezvous=rendezvous
                    )
                else:
                    result |= fit_and_test(config, directory, resume=resume, checkpoint=checkpoint, ready=ready)
            return
        except WorkerDiedError as error:
            if attempt > retries:
                raise
            resume, checkpoint = directory.can_be_resumed(), None
            source = "its last checkpoint" if resume else "the start"
            log.warning("%s; again from %s (%d of %d)", error, source, attempt, retries)


@contextlib.contextmanager
def recorded(
    config: Train,
    directory: RunDirectory,
    size: dict[str, int],
    seconds: float | None,
    start: dict[str, Any] | None,
) -> Iterator[dict[str, Any]]:
    """Trains a run within the block; result.json records how it ended.

    Args:
        config: A checked config.
        directory: Of the run, locked.
        size: See `network_size`.
        seconds: The time that a resumed run had taken; None for a new one.
        start: The record of the weights that a new run starts from; None: its network's own. A resumed run keeps its
            record.

    Yields:
        The content of result.json, to be completed.
    """
    began, written = time.perf_counter() - (seconds or 0.0), config.model_dump()
    result: dict[str, Any] = {
        "status": "failed", "metrics": {}, "overrides": config.overrides, **size, "epochs": 0, "steps": 0,
        "images_per_second": None, "wall_seconds": 0.0, "best_checkpoint": None, "best_epoch": None, "attempts": 1,
        "gpus": [], "error": None,
    }  # fmt: skip
    try:
        if seconds is not None:  # recorded before anything changes, in case the process is killed
            result |= directory.continued(written)
            directory.write_result(result | {"status": "interrupted", "error": "continued, and not ended yet"})
        else:
            directory.result.unlink(missing_ok=True)
        directory.write_config(written)
        result["gpus"] = _write_manifest(config, directory, start)
        log.info("run directory: %s (%s parameters)", directory.path, f"{size['num_parameters']:,}")
        yield result
        result["status"] = "completed"
        result.pop(CONTINUED_BY, None)
    except BaseException as error:
        status = "interrupted" if is_interrupt(error) else "failed"
        result |= {"status": status, "error": one_line(f"{type(error).__name__}: {error}")}
        raise _explained(error, config, directory) from error
    finally:
        with deferred():
            result["wall_seconds"] = round(time.perf_counter() - began, 2)
            _record(directory, result)
    directory.previous.unlink(missing_ok=True)  # not needed for a completed run


def _write_manifest(config: Train, directory: RunDirectory, start: dict[str, Any] | None) -> list[str]:
    """Writes manifest.json and returns the GPUs that compute. A resumed run keeps the record of its start."""
    trainer = config.trainer
    manifest = provenance.manifest(trainer, on_gpu=not is_cpu(trainer.accelerator))
    before = directory.readable_manifest().get("init_from") if config.init_from and start is None else start
    write_json(directory.manifest, manifest | {"init_from": before})
    on_gpu = manifest["hardware"]["cuda"] is not None
    return manifest["hardware"]["gpu_uuids"][: count_processes(trainer)] if on_gpu else []


def _explained(error: BaseException, config: Train, directory: RunDirectory) -> BaseException:
    """The error for the user: one line with the next step."""
    if is_interrupt(error):
        if directory.can_be_resumed():
            next_step = f"; resume it: {resume_command(directory, config)}"
        else:
            next_step = f"; start it again: {shell.typed()}" if shell.runs_script() else ""
        return Interrupted(f"{str(error) or 'interrupted'}{next_step}")
    if not isinstance(error, Exception):
        return error
    known = failures.advice(one_line(f"{type(error).__name__}: {error}"), config)
    if known is not None:
        return RunError(known)
    if isinstance(error, AlexNetLabError):
        return error
    if isinstance(error, OSError):
        return RunError(f"{error.filename or directory.path}: {error.strerror or error}")
    hint = f"traceback in {directory.log}, or on the screen with HYDRA_FULL_ERROR=1"
    text = one_line(error)[:500]  # a compiler's is up to 90 kB long
    return RunError(f"the run failed: {type(error).__name__}: {text} ({hint})")


def _record(directory: RunDirectory, result: dict[str, Any]) -> None:
    """Writes result.json; if that fails after another error (a full disk), the user sees the first one."""
    if not directory.path.is_dir():  # it was removed meanwhile
        return
    try:
        directory.write_result(result)
    except OSError as error:
        if result["status"] == "completed":
            raise RunError(f"{directory.result} cannot be written: {error.strerror or error}") from error


def summary_line(result: dict[str, Any]) -> str:
    """How the run ended, in one line."""
    metrics = result["metrics"]
    errors = [name for name in error_names(metrics) if name.startswith("test/")]
    shown = ": " + ", ".join(f"{name} {metrics[name]:.2%}" for name in errors) if errors else ""
    seconds = result["wall_seconds"]
    speed = result["images_per_second"] or 0.0
    return f"done in {seconds:,.0f} s{shown} ({counted(result['epochs'], 'epoch')}, {speed:,.0f} images/s)"
