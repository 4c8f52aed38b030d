"""The worker processes of one run, started from its config by torch's elastic launch.

Lightning's own launcher would start the command line again in each process; under Hydra's multirun that is the whole
sweep. So the workers get the config as an argument, and Lightning finds the elastic environment and starts nothing.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import uuid
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from alexnet_lab.base.errors import Interrupted, RunError, one_line
from alexnet_lab.base.log import quiet
from alexnet_lab.base.memory import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from alexnet_lab.run.directory import RunDirectory

ELASTIC_PREFIXES = ("RANK", "LOCAL_", "GROUP_", "ROLE_", "WORLD_SIZE", "MASTER_", "TORCHELASTIC", "WANDB_SERVICE")
"""Variables that belong to a worker itself and are not taken from the parent."""

SHUTDOWN_SECONDS = 10
"""What workers get to end their step and their tracker after a signal; torch would wait for 30 s."""

WORKER_LOG = "torch.distributed.elastic.multiprocessing.api"
"""Prints a worker's traceback, which train.log has, and each signal that a worker is sent."""

REPLACED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Whose handlers elastic launch sets and does not restore."""


def run_workers(config: dict[str, Any], directory: RunDirectory, *, processes: int, resume: bool) -> dict[str, Any]:
    """Runs `engine.fit_and_test` in `processes` processes and returns what the first one returns.

    Raises:
        Interrupted: After Ctrl-C or SIGTERM, when all workers have ended.
        RunError: A worker raised, was killed or died; says which and why.
    """
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN_SECONDS))
    multiprocessing.set_forkserver_preload(["torch", "lightning", "torchmetrics", "alexnet_lab.run.engine"])
    with (
        tempfile.TemporaryDirectory(prefix="alexnet-lab-") as scratch,
        _signals_restored(),
        quiet(WORKER_LOG, logging.CRITICAL),
    ):
        launch = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,  # in torch 2.14 a restart in place reuses the dead attempt's store and fails with gloo
            start_method="forkserver",
            monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=scratch),
        )
        try:
            results = elastic_launch(launch, work)(dict(os.environ), config, directory, processes, resume)
        except SignalException as error:
            raise Interrupted(f"interrupted by {signal.Signals(error.sigval).name}") from None
        except ChildFailedError as error:
            raise RunError(_explain(error)) from error
    return results[0]


def work(
    environment: Mapping[str, str], config: dict[str, Any], directory: RunDirectory, processes: int, resume: bool
) -> dict[str, Any]:
    """What each worker does; the fork server's environment is as old as its first job, so the parent's comes along."""
    from alexnet_lab.run.engine import fit_and_test  # noqa: PLC0415 - the parent of the workers does not need it

    os.environ.update({key: value for key, value in environment.items() if not key.startswith(ELASTIC_PREFIXES)})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    return fit_and_test(config, directory, processes=processes, resume=resume)


def _end_with_parent() -> None:
    """A worker whose parent was killed ends too, instead of training on as an orphan."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(113)


@contextlib.contextmanager
def _signals_restored() -> Iterator[None]:
    """Puts the signal handlers back at the end; in a thread there is nothing to put back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in REPLACED_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _explain(error: ChildFailedError) -> str:
    """The failure that came first, in one line."""
    rank, failure = error.get_first_failure()
    message = failure.message
    text = message.get("message", "") if isinstance(message, dict) else str(message)
    if failure.exitcode < 0:
        text = f"it was killed by {signal.Signals(-failure.exitcode).name}"
    return f"worker {rank} of the run failed: {one_line(text)}"
