"""From a config to result.json: claims the directory, starts the workers, records how it ended."""

from __future__ import annotations

import itertools
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alexnet_lab.base import shell
from alexnet_lab.base.errors import AlexNetLabError, ConfigError, Interrupted, RunError, one_line
from alexnet_lab.base.files import write_json
from alexnet_lab.base.locks import free_folder
from alexnet_lab.base.log import quiet, start_log
from alexnet_lab.base.targets import build
from alexnet_lab.config import check_train
from alexnet_lab.config.default_paths import has_default_run_dir
from alexnet_lab.models.counts import num_macs, num_parameters
from alexnet_lab.models.layer_table import layer_table
from alexnet_lab.run import elastic, engine, provenance
from alexnet_lab.run.devices import check_devices, check_precision, count_processes, is_cpu
from alexnet_lab.run.multinode import gather
from alexnet_lab.run.parts import check_batches, check_parts
from alexnet_lab.run.request import requested
from alexnet_lab.run.resuming import begin, check_images
from alexnet_lab.run.run_directory import CONTINUED_BY, RunDirectory
from alexnet_lab.run.signals import deferred, terminable
from alexnet_lab.run.threads import with_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from alexnet_lab.run.multinode import Crew, Order

log = logging.getLogger(__name__)


def train(config: Mapping[str, Any]) -> dict[str, Any]:
    """Does one run, in one process or several.

    Args:
        config: As `configs/train.yaml` composes it, resolved: plain dictionaries, lists, numbers and strings.

    Returns:
        What the run's result.json holds.

    Raises:
        ConfigError: The config is wrong; nothing was written.
        DataError: The data set is missing or damaged; no run directory was made.
        RunError: The run directory cannot be used, or training failed; result.json says how.
        Interrupted: After Ctrl-C or SIGTERM; `resume=RUN_DIR` goes on.
    """
    start_log()
    if config.get("resume"):
        return run(requested(config), resume=True)
    if config.get("resume_force"):
        raise ConfigError("`resume_force` says how to go on with a run; say with which: resume=RUN_DIR")
    checked = check_train(config)
    if checked["launcher"]["slurm"]:
        raise ConfigError("`launcher=slurm` sends jobs of a sweep to the cluster; add -m, or start this run by srun")
    return run(checked, resume=False)


def run(
    config: dict[str, Any], *, resume: bool, inspect: Callable[[Mapping[str, Any]], None] = lambda _: None
) -> dict[str, Any]:
    """`train` of a checked config: from the start, or from the last checkpoint of its directory.

    `inspect` is called with the record of the images (see `alexnet_lab.data.identity`) before training; it may raise.
    Of several processes that do the run together (on several nodes, or under torchrun) the first one keeps the records.
    """
    check_devices(config["trainer"])
    check_precision(config["trainer"]["accelerator"], config["trainer"]["precision"])
    processes = count_processes(config["trainer"])
    crew = gather(config["trainer"], processes)
    if crew.rank:
        return _follow(config, crew)
    try:
        if crew.kind != "workers":
            in_workers(config["launcher"], processes * config["trainer"]["num_nodes"])
        size = network_size(config)
        config = with_threads(config, size["num_macs"], processes)
        check_parts(config)
        if not resume and has_default_run_dir(config):
            config = {**config, "run_dir": str(free_folder(Path(config["run_dir"])))}
        directory = RunDirectory(config["run_dir"])
        with directory.claimed(resume=resume), terminable():
            before = begin(directory, config) if resume else None
            images = prepare(config)
            inspect(images)
            if before is not None:
                check_images(directory, before, images, config)
            crew.wait_for_all()
            result = _run(config, directory, size, crew, before and before.seconds)
    except BaseException as error:
        crew.dismiss(config["run_dir"], _status(error), one_line(error))
        raise
    crew.dismiss(config["run_dir"], "completed")
    return result


def _follow(config: dict[str, Any], crew: Crew) -> dict[str, Any]:
    """Does this process's part of a run that another one leads; raises what that one says of the end."""
    with terminable():
        try:
            size = network_size(config | {"model_summary": False})
            config = with_threads(config, size["num_macs"], count_processes(config["trainer"]))
            prepare(config)
        except AlexNetLabError as error:
            crew.ready(one_line(error))
            raise
        crew.ready()
        while (order := crew.await_order()).status is None:
            _follow_order(config | {"run_dir": order.run_dir}, crew, order)
    if order.status != "completed":
        raise (Interrupted if order.status == "interrupted" else RunError)(order.error)
    return RunDirectory(order.run_dir).read_result() or {}


def prepare(config: dict[str, Any]) -> dict[str, Any]:
    """Makes the data set's store, and opens it once, so that what does not fit is reported before the run starts.

    Returns:
        The record of the images; empty for a data module of one's own that has none.
    """
    data = engine.build_data(config)
    data.prepare_data()
    with quiet("alexnet_lab.data"):  # the run itself will say what it finds
        data.setup("fit")
    check_batches(config["trainer"], data)
    return getattr(data, "identity", {})


def network_size(config: dict[str, Any]) -> dict[str, int]:
    """Parameters and multiply-adds of the network, built without numbers; ConfigError if it cannot be built.

    With `model_summary` its layers are printed too.
    """
    target, data = config["model"]["_target_"], config["data"]
    try:
        with torch.device("meta"), quiet("alexnet_lab.models"):  # the run itself will say what it builds
            net = build(config["model"], "model", trusted=tuple(config["trusted_packages"]))
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:  # of torch, about numbers beyond its own
        raise ConfigError(f"`model`: {target} cannot be built: {one_line(error)[:300]}") from error
    shape = (data["channels"], data["image_size"], data["image_size"])
    try:
        if config["model_summary"]:
            print(layer_table(net, shape))
        return {"num_parameters": num_parameters(net), "num_macs": num_macs(net, shape)}
    except (RuntimeError, ValueError, TypeError) as error:
        told = one_line(error)[:300]
        raise ConfigError(f"`model`: {target} takes no images of {shape}: {told}") from error


def _run(
    config: dict[str, Any], directory: RunDirectory, size: dict[str, int], crew: Crew, seconds: float | None
) -> dict[str, Any]:
    """Trains, and records how it went; `seconds` is the time that a resumed run had taken, None that of a new one."""
    resume = seconds is not None
    start = time.perf_counter() - (seconds or 0.0)
    result: dict[str, Any] = {
        "status": "failed", "metrics": {}, "overrides": config["overrides"], **size, "epochs": 0, "steps": 0,
        "images_per_second": None, "wall_seconds": 0.0, "best_checkpoint": None, "best_epoch": None, "attempts": 1,
        "error": None,
    }  # fmt: skip
    try:
        if resume:  # noted before anything changes, for a kill leaves what lies on disk
            result |= directory.continued(config)
            directory.write_result(result | {"status": "interrupted", "error": "continued, and not ended yet"})
        else:
            directory.result.unlink(missing_ok=True)
        directory.write_config(config)
        write_json(directory.manifest, provenance.manifest(on_gpu=not is_cpu(config["trainer"]["accelerator"])))
        log.info("run directory: %s (%s parameters)", directory.path, f"{size['num_parameters']:,}")
        result |= _start(config, directory, result, crew, resume=resume) | {"status": "completed"}
        result.pop(CONTINUED_BY, None)
    except BaseException as error:
        result |= {"status": _status(error), "error": one_line(f"{type(error).__name__}: {error}")}
        raise _told(error, config, directory) from error
    finally:
        with deferred():
            result["wall_seconds"] = round(time.perf_counter() - start, 2)
            _record(directory, result)
    directory.previous.unlink(missing_ok=True)  # nobody is going to need it any more
    log.info(summary_line(result))
    return result


def _start(
    config: dict[str, Any], directory: RunDirectory, result: dict[str, Any], crew: Crew, *, resume: bool
) -> dict[str, Any]:
    """Trains here or in worker processes; where one died, it starts them again from the last checkpoint."""
    retries = config["launcher"]["retries"]
    for attempt in itertools.count(1):
        result["attempts"] = attempt
        try:
            return _lead_attempt(config, directory, crew, resume=resume)
        except elastic.WorkerDiedError as error:
            if attempt > retries:
                raise
            resume = directory.can_be_resumed()
            place = "its last checkpoint" if resume else "the start"
            log.warning("%s; again from %s (%d of %d)", error, place, attempt, retries)
    raise AssertionError("unreachable")


def _lead_attempt(config: dict[str, Any], directory: RunDirectory, crew: Crew, *, resume: bool) -> dict[str, Any]:
    """One attempt; where it fails, it does with the reason that came first, wherever that was."""
    order = crew.order(str(directory.path), resume=resume)
    try:
        return _part(config, directory, crew, order)
    except BaseException as error:
        reason = crew.verdict(error)
        if reason is error:
            raise
        raise reason from error


def _follow_order(config: dict[str, Any], crew: Crew, order: Order) -> None:
    """A part of an attempt; whoever leads decides what follows if it fails."""
    try:
        _part(config, RunDirectory(order.run_dir), crew, order)
    except BaseException as error:
        crew.report(error)
        if crew.kind == "workers" or not isinstance(error, Exception):
            raise  # torchrun ends all workers when one has ended


def _part(config: dict[str, Any], directory: RunDirectory, crew: Crew, order: Order) -> dict[str, Any]:
    """This process's part of an attempt: in itself, or in workers that it starts."""
    processes = count_processes(config["trainer"])
    nodes = crew.size if crew.kind == "nodes" else 1
    if crew.kind == "workers" or not in_workers(config["launcher"], processes * nodes):
        return engine.fit_and_test(config, directory, resume=order.resume)
    return elastic.run_workers(config, directory, processes=processes, resume=order.resume, meeting=order.meeting)


def in_workers(launcher: Mapping[str, Any], processes: int) -> bool:
    """Whether a run gets processes of its own; one of a single process may do without."""
    if launcher["workers"] == "auto":
        return processes > 1
    if processes > 1 and not launcher["workers"]:
        raise ConfigError(
            f"`launcher.workers` is false, so the run has the calling process alone, but it is to have {processes}; "
            f"set trainer.devices=1, or launcher=local"
        )
    return launcher["workers"]


def _status(error: BaseException) -> str:
    return "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"


def _told(error: BaseException, config: Mapping[str, Any], directory: RunDirectory) -> BaseException:
    """The error as the user shall see it: one line that says what to do next."""
    if isinstance(error, Interrupted | KeyboardInterrupt):
        if directory.can_be_resumed():
            next_step = f"; go on with it: {resume_command(config, directory)}"
        else:
            next_step = f"; start it again: {shell.typed()}" if shell.runs_script() else ""
        return Interrupted(f"{str(error) or 'interrupted'}{next_step}")
    if isinstance(error, AlexNetLabError) or not isinstance(error, Exception):
        return error
    if isinstance(error, OSError):
        return RunError(f"{error.filename or directory.path}: {error.strerror or error}")
    hint = f"traceback in {directory.log}, or on the screen with HYDRA_FULL_ERROR=1"
    return RunError(f"the run failed: {type(error).__name__}: {one_line(error)} ({hint})")


def resume_command(config: Mapping[str, Any], directory: RunDirectory) -> str:
    """The command that continues a run; trust is never taken from the run itself, so it is given again."""
    words = [shell.override("resume", directory.path)]
    if config.get("resume_force"):
        words.append("resume_force=true")
    if config["trusted_packages"]:
        words.append(f"trusted_packages=[{','.join(config['trusted_packages'])}]")
    return shell.command("train.py", *words)


def _record(directory: RunDirectory, result: dict[str, Any]) -> None:
    """Writes result.json; where that fails too (a full disk), the error that led here is what the user is told."""
    if not directory.path.is_dir():  # taken away meanwhile
        return
    try:
        directory.write_result(result)
    except OSError as error:
        log.error("result.json could not be written: %s", error.strerror or error)


def summary_line(result: dict[str, Any]) -> str:
    """How the run ended, in one line."""
    errors = {name: value for name, value in result["metrics"].items() if name.startswith("test/") and "error" in name}
    told = ", ".join(f"{name} {value:.2%}" for name, value in errors.items())
    seconds = result["wall_seconds"]
    speed = result["images_per_second"] or 0.0
    return f"done in {seconds:,.0f} s: {told} ({result['epochs']} epochs, {speed:,.0f} images/s)"
