"""The worker processes of one run, started from its config by torch's elastic launch.

Lightning's own launcher would start the command line again in each process, which is the whole sweep under Hydra's
multirun. Here the workers get the config as an argument. Lightning finds the elastic environment and starts nothing.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import uuid
from collections.abc import Mapping
from multiprocessing import connection, forkserver
from typing import Any, NamedTuple

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from alexnet_lab.base import leases
from alexnet_lab.base.errors import Interrupted, RunError, one_line
from alexnet_lab.base.log import quiet
from alexnet_lab.base.memory import keep_freed_memory
from alexnet_lab.base.signals import handled, terminable
from alexnet_lab.base.terminal import outlive_terminal
from alexnet_lab.config.schema import Train
from alexnet_lab.run.devices import count_processes
from alexnet_lab.run.failures import is_chance
from alexnet_lab.run.last_step import shutdown_seconds
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.training.checkpoint_io import Intact

OWN_VARIABLES = {
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS"),
    *("TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_ERROR_FILE", "TORCH_NCCL_ASYNC_ERROR_HANDLING", "WANDB_SERVICE"),
}
"""Variables that differ between workers; the others come from the parent."""

RENDEZVOUS_SECONDS = 120
"""How long the agents of a run's nodes wait for each other; they have agreed to start before."""

WORKER_LOG = "torch.distributed.elastic.multiprocessing.api"
"""Prints a worker's traceback, which train.log has, and each signal that a worker is sent."""

AGENT_LOG = "torch.distributed.elastic.agent.server.api"
"""Prints the signals that the parent of the workers gets."""

REPLACED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
"""Signals whose handlers elastic launch sets and does not restore; SIGHUP keeps ours."""


PRELOADED = "alexnet_lab.run.preloaded"
"""The module that the fork server imports once, so that workers start in tenths of a second."""


class WorkerDiedError(RunError):
    """A worker was killed or died (a signal, a crash, a fault of its GPU): another attempt may succeed."""


class Rendezvous(NamedTuple):
    """The meeting point of one attempt's workers, if they are on several nodes."""

    name: str
    nodes: int
    rank: int  # of this node
    address: str
    port: int


def run_workers(
    config: Train,
    directory: RunDirectory,
    *,
    resume: bool,
    checkpoint: Intact | None = None,
    rendezvous: Rendezvous | None = None,
) -> dict[str, Any]:
    """Runs `worker.fit_and_test` in one process per device, here or on each node.

    Args:
        config: A checked config.
        directory: The run's directory, locked by the caller; the same on all nodes.
        resume: Continue from the newest checkpoint that is intact.
        checkpoint: That checkpoint, if already found.
        rendezvous: With the workers of other nodes; None for one node.

    Returns:
        The result of the first process of this node.

    Raises:
        Interrupted: After Ctrl-C or SIGTERM, when all workers have ended.
        WorkerDiedError: A worker was killed or died; the message says which and how.
        RunError: A worker raised an error; the message says which and why.
    """
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(shutdown_seconds()))
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method("forkserver", force=True)  # joblib's own method does not work in workers
    _start_server()
    with (
        tempfile.TemporaryDirectory(prefix="alexnet-lab-") as scratch,
        handled({number: signal.getsignal(number) for number in REPLACED_SIGNALS}),
        quiet(WORKER_LOG, logging.CRITICAL),
        quiet(AGENT_LOG, logging.CRITICAL),
    ):
        launch = _launch_config(rendezvous, count_processes(config.trainer), scratch)
        try:
            results = elastic_launch(launch, work)(dict(os.environ), config, directory, resume, checkpoint)
        except SignalException as error:
            name = "Ctrl-C" if error.sigval == signal.SIGINT else signal.Signals(error.sigval).name
            raise Interrupted(f"interrupted by {name}") from None
        except ChildFailedError as error:
            raise _explained(error) from error
    return results[min(results)]


def _start_server() -> None:
    """Starts the fork server, which stays for later jobs, and ignores Ctrl-C and a closed terminal from the start."""
    multiprocessing.set_forkserver_preload([PRELOADED])
    with handled({signal.SIGINT: signal.SIG_IGN, signal.SIGHUP: signal.SIG_IGN}):
        forkserver.ensure_running()


def _launch_config(rendezvous: Rendezvous | None, processes: int, scratch: str) -> LaunchConfig:
    """Starts workers from the fork server, without restarts: each attempt is a new launch."""
    return LaunchConfig(
        **_rendezvous_settings(rendezvous),
        nproc_per_node=processes,
        max_restarts=0,  # in torch 2.14 a restart in place reuses the dead attempt's store and fails with gloo
        start_method="forkserver",
        signals_to_handle=",".join(number.name for number in REPLACED_SIGNALS),
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(log_dir=scratch),
    )


def _rendezvous_settings(rendezvous: Rendezvous | None) -> dict[str, Any]:
    """How torch's agents find each other: a single one uses any free port, several have agreed on one."""
    if rendezvous is None:
        return {
            "min_nodes": 1, "max_nodes": 1, "run_id": uuid.uuid4().hex, "rdzv_backend": "c10d",
            "rdzv_endpoint": "localhost:0", "local_addr": "localhost",
        }  # fmt: skip
    return {
        "min_nodes": rendezvous.nodes, "max_nodes": rendezvous.nodes, "run_id": rendezvous.name,
        "rdzv_backend": "static", "rdzv_endpoint": f"{rendezvous.address}:{rendezvous.port}",
        "rdzv_configs": {"rank": rendezvous.rank, "timeout": RENDEZVOUS_SECONDS},
    }  # fmt: skip


def work(
    environment: Mapping[str, str],
    config: Train,
    directory: RunDirectory,
    resume: bool,
    checkpoint: Intact | None,
) -> dict[str, Any]:
    """The function of each worker. It uses the parent's environment: the fork server has that of its first job."""
    from alexnet_lab.run.worker import fit_and_test  # noqa: PLC0415 - the parent of the workers does not need it

    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # SLURM's notice, which the job's first process acts upon
    outlive_terminal()
    take_environment(environment)
    leases.share()
    keep_freed_memory()
    try:
        with terminable():
            return fit_and_test(config, directory, resume=resume, checkpoint=checkpoint)
    except KeyboardInterrupt as error:  # torch would not report it
        raise Interrupted(str(error) or "interrupted by Ctrl-C") from error


def take_environment(environment: Mapping[str, str]) -> None:
    """Replaces the environment by the parent's: the fork server has that of its first job."""
    own = {name: os.environ[name] for name in OWN_VARIABLES if name in os.environ}
    os.environ.clear()
    os.environ.update({name: value for name, value in environment.items() if name not in OWN_VARIABLES} | own)


def _end_with_parent() -> None:
    """Ends a worker whose parent was killed, instead of training on as an orphan."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(113)


def _explained(error: ChildFailedError) -> RunError:
    """The first failure, in one line."""
    rank, failure = error.get_first_failure()
    if failure.exitcode < 0:
        died, text = True, f"it was killed by {signal.Signals(-failure.exitcode).name}"
    elif isinstance(failure.message, dict):  # an error that the worker raised
        text = one_line(failure.message.get("message", ""))
        died = is_chance(text)
    else:
        died, text = True, f"it ended with exit code {failure.exitcode}"
    return (WorkerDiedError if died else RunError)(f"worker {rank} of the run failed: {text}")
