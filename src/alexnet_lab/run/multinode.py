"""Runs with externally started processes: one on each node of a cluster, or the workers of `torchrun`.

The first process coordinates: it locks the run's directory, starts each attempt everywhere, collects the outcomes and
keeps the records. The others follow. They exchange messages through one store of torch, which belongs to the
coordinator (under SLURM) or to torchrun's agent.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from torch import distributed
from torch.distributed import Store
from torch.distributed.elastic.utils.distributed import get_free_port

from alexnet_lab.base.cluster import number, place
from alexnet_lab.base.errors import AlexNetLabError, ConfigError, Interrupted, RunError, is_interrupt, one_line
from alexnet_lab.base.formats import counted
from alexnet_lab.base.signals import terminable
from alexnet_lab.config.schema import Train, Trainer
from alexnet_lab.run.devices import count_processes
from alexnet_lab.run.elastic import Rendezvous, WorkerDiedError, run_workers
from alexnet_lab.run.engine import without_verification
from alexnet_lab.run.preparation import network_size, prepare
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.run.threads import with_threads
from alexnet_lab.run.worker import fit_and_test

POLL_SECONDS = 0.1

JOIN_SECONDS = 600.0
"""How long the coordinator waits for the others to start and to prepare their data."""

COORDINATOR_SECONDS = 24 * 3600.0
"""How long the others wait for the coordinator, which may prepare a large data set; they notice if it dies."""

OUTCOME_SECONDS = {"nodes": 30.0, "workers": 2.0}
"""How long the coordinator, after a failure of its own, waits for the others' outcomes; torchrun kills soon."""

PORTS = 10_000
"""The number of ports from 20000 on from which the coordinator of a SLURM job chooses; the system uses higher ones."""

Kind = Literal["nodes", "workers"]
"""One process per node, which starts the workers there, or the workers of torchrun."""


class Attempt(NamedTuple):
    """The coordinator's announcement before each attempt, and at the end."""

    run_dir: str
    resume: bool
    rendezvous: Rendezvous | None = None  # of the workers of all nodes
    status: str | None = None  # how the run ended; no attempt follows
    error: str = ""


class Outcome(NamedTuple):
    """How one process's part of an attempt failed."""

    kind: Literal["interrupted", "died", "failed"]
    text: str

    @classmethod
    def of(cls, error: BaseException) -> Outcome:
        """The outcome for an error."""
        if is_interrupt(error):
            return cls("interrupted", one_line(error) or "interrupted")
        kind = "died" if isinstance(error, WorkerDiedError) else "failed"
        return cls(kind, one_line(error if isinstance(error, RunError) else f"{type(error).__name__}: {error}"))


class Member:
    """One of the processes of a run.

    Args:
        kind: Of the processes.
        rank: Of this process; 0 coordinates.
        size: The number of processes.
        store: For the messages between them.
        address: Of the coordinator's machine, where workers meet.
    """

    def __init__(self, kind: Kind, rank: int, size: int, store: Store, address: str = "localhost") -> None:
        self.kind: Kind = kind
        self.rank = rank
        self.size = size
        self._store = store
        self._address = address
        self._attempt = 0

    def _send(self, key: str, value: Any) -> None:
        self._store.set(key, json.dumps(value))

    def _receive(self, key: str, seconds: float, sender: str) -> Any:
        """Waits for a message; unlike torch's own wait, signals can interrupt it."""
        end = time.monotonic() + seconds
        try:
            while not self._store.check([key]):
                if time.monotonic() > end:
                    raise RunError(f"{sender} did not answer within {seconds:.0f} s")
                time.sleep(POLL_SECONDS)
            return json.loads(self._store.get(key))
        except distributed.DistError as error:
            raise RunError(f"{sender} cannot be reached any more: {one_line(error)}") from error


class Coordinator(Member):
    """The process of rank 0. As a context it announces the end of the run to the others."""

    def __enter__(self) -> Self:
        self._run_dir = ""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Announces how the run ended, and waits briefly until the others know."""
        status = "completed" if error is None else "interrupted" if is_interrupt(error) else "failed"
        self._announce(Attempt(self._run_dir, resume=False, status=status, error=one_line(error or "")))
        end = time.monotonic() + OUTCOME_SECONDS[self.kind] / 3
        keys = [f"left/{rank}" for rank in range(1, self.size)]
        while not self._store.check(keys) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)

    def wait_for_all(self) -> None:
        """Waits until all others have joined and can read their data; raises RunError with the first problem."""
        for rank in range(1, self.size):
            error = self._receive(f"ready/{rank}", JOIN_SECONDS, f"{self._name(rank)} of the run")
            if error:
                raise RunError(f"{self._name(rank)}: {error}")

    @contextlib.contextmanager
    def attempt(self, run_dir: str, *, resume: bool) -> Iterator[Rendezvous | None]:
        """Starts an attempt everywhere. If it fails, raises the first reason, whichever process had it."""
        rendezvous = None
        if self.kind == "nodes":
            name = f"{os.environ.get('SLURM_JOB_ID', '')}-{self._attempt + 1}"
            rendezvous = Rendezvous(name, self.size, self.rank, self._address, get_free_port())
        self._run_dir = run_dir
        self._announce(Attempt(run_dir, resume, rendezvous))
        try:
            yield rendezvous
        except BaseException as error:
            reason = self._first_reason(error)
            if reason is error:
                raise
            raise reason from error

    def _announce(self, attempt: Attempt) -> None:
        self._attempt += 1
        self._send(f"attempt/{self._attempt}", attempt)

    def _first_reason(self, error: BaseException) -> BaseException:
        """The reason for the end of an attempt, from all outcomes; `error` ended the coordinator's own part."""
        outcomes = {0: Outcome.of(error)}
        end = time.monotonic() + OUTCOME_SECONDS[self.kind]
        for rank in range(1, self.size):
            with contextlib.suppress(RunError):  # it is still working, or cannot answer
                key = f"outcome/{self._attempt}/{rank}"
                outcomes[rank] = Outcome(*self._receive(key, end - time.monotonic(), self._name(rank)))
        for kind, made in (("interrupted", Interrupted), ("failed", RunError), ("died", WorkerDiedError)):
            texts = {rank: outcome.text for rank, outcome in outcomes.items() if outcome.kind == kind}
            if texts:
                joined = "; ".join(f"{self._name(rank)}: {text}" for rank, text in texts.items())
                return error if list(texts) == [0] else made(joined)
        raise AssertionError("unreachable")

    def _name(self, rank: int) -> str:
        return f"node {rank}" if self.kind == "nodes" else f"process {rank}"


class Follower(Member):
    """Every other process."""

    def ready(self, error: str = "") -> None:
        """Reports that this process has joined, or why it cannot take part."""
        self._send(f"ready/{self.rank}", error)

    def next_attempt(self) -> Attempt:
        """Waits for the coordinator's next announcement."""
        self._attempt += 1
        attempt = Attempt(*self._receive(f"attempt/{self._attempt}", COORDINATOR_SECONDS, "the run's coordinator"))
        if attempt.status is not None:
            self._send(f"left/{self.rank}", True)
        meeting = Rendezvous(*attempt.rendezvous)._replace(rank=self.rank) if attempt.rendezvous else None
        return attempt._replace(rendezvous=meeting)

    def report(self, error: BaseException) -> None:
        """Sends the coordinator how this process's part of the attempt failed."""
        self._send(f"outcome/{self._attempt}/{self.rank}", Outcome.of(error))

    def follow(self, config: Train) -> dict[str, Any]:
        """Takes part in the run; raises the error that ended the run on the coordinator's side."""
        with terminable():
            try:
                size = network_size(config.model_copy(update={"model_summary": False}))
                config = with_threads(config, size["num_macs"], count_processes(config.trainer))
                prepare(without_verification(config))
            except AlexNetLabError as error:
                self.ready(one_line(error))
                raise
            self.ready()
            while (attempt := self.next_attempt()).status is None:
                self._take_part(config.model_copy(update={"run_dir": attempt.run_dir}), attempt)
        if attempt.status != "completed":
            raise (Interrupted if attempt.status == "interrupted" else RunError)(attempt.error)
        return RunDirectory(attempt.run_dir).read_result() or {}

    def _take_part(self, config: Train, attempt: Attempt) -> None:
        """Takes part in one attempt; if it fails, the coordinator decides what follows."""
        directory = RunDirectory(attempt.run_dir)
        try:
            if self.kind == "workers":
                fit_and_test(config, directory, resume=attempt.resume)
            else:
                run_workers(config, directory, resume=attempt.resume, rendezvous=attempt.rendezvous)
        except BaseException as error:
            self.report(error)
            if self.kind == "workers" or not isinstance(error, Exception):
                raise  # torchrun ends all workers when one ends


def join(trainer: Trainer) -> Coordinator | Follower:
    """This process's role in a run of several, from its environment.

    Args:
        trainer: The config's `trainer`.

    Raises:
        ConfigError: `trainer.num_nodes` and `trainer.devices` do not match what was started, or the environment is
            wrong.
        RunError: The coordinator cannot be reached.
    """
    nodes, processes, here = trainer.num_nodes, count_processes(trainer), place()
    if here.starter is None:
        raise ConfigError(
            f"`trainer.num_nodes` is {nodes}, but this process was started alone; start one per node with "
            f"`srun --nodes={nodes} --ntasks-per-node=1` or by torchrun, or sweep with launcher=slurm"
        )
    member = Follower if here.rank else Coordinator
    if here.starter == "torchrun":
        _check(nodes, processes, here.size // here.local_size, here.local_size, "torchrun")
        store, _, _ = next(distributed.rendezvous("env://"))
        restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return member("workers", here.rank, here.size, distributed.PrefixStore(f"alexnet-lab/{restarts}", store))
    _check(nodes, processes, here.size, processes, "srun")
    address = os.environ.get("MASTER_ADDR") or coordinator_address()
    return member("nodes", here.rank, here.size, _own_store(address, here.rank), address)


def _check(nodes: int, devices: int, nodes_there: int, devices_there: int, starter: str) -> None:
    if (nodes, devices) != (nodes_there, devices_there):
        raise ConfigError(
            f"{starter} started processes for {counted(nodes_there, 'node')} with {counted(devices_there, 'device')} "
            f"each, but `trainer.num_nodes` is {nodes} and `trainer.devices` {devices}; "
            f"set trainer.num_nodes={nodes_there} trainer.devices={devices_there}"
        )


def coordinator_address() -> str:
    """The address of the first node of this SLURM job, as SLURM itself reaches it."""
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "")
    try:
        first = _scontrol("show", "hostnames", nodes).split()[0]
        words = _scontrol("show", "node", first, "--oneliner").split()
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise RunError(f"scontrol does not show the address of {nodes} ({error}); set MASTER_ADDR to it") from error
    return next((word.partition("=")[2] for word in words if word.startswith("NodeAddr=")), first)


def _scontrol(*words: str) -> str:
    done = subprocess.run(["scontrol", *words], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603, S607 - SLURM's own command, fixed words
    return done.stdout


def _own_store(address: str, rank: int) -> Store:
    """The store of the coordinator of a SLURM job, at a port derived from the job's number."""
    port = number("MASTER_PORT", 0) or 20_000 + number("SLURM_JOB_ID") % PORTS
    try:
        return distributed.TCPStore(
            address, port, is_master=rank == 0, wait_for_workers=False, timeout=timedelta(seconds=JOIN_SECONDS)
        )
    except (distributed.DistError, RuntimeError) as error:
        what = "cannot be listened to" if rank == 0 else "does not answer"
        raise RunError(
            f"{address}:{port}, where the nodes of the run meet, {what}: {one_line(error)}; set MASTER_PORT to another"
        ) from error
