"""Those who do a run together: one process alone, one on each node of a cluster, or the workers of `torchrun`.

The first of them leads. It claims the run's directory, says where and how each attempt starts, hears how it went
elsewhere, and keeps the records; the others do their part and follow. They talk through one store of torch, which the
leader holds (under SLURM), or torchrun's agent.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from torch import distributed

from alexnet_lab.base.cluster import number, place
from alexnet_lab.base.errors import ConfigError, Interrupted, RunError, one_line
from alexnet_lab.run.elastic import Meeting, WorkerDiedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.distributed import Store

POLL_SECONDS = 0.1

JOIN_SECONDS = 600.0
"""How long the leader waits for the others to start and to look at their data."""

LEADER_SECONDS = 24 * 3600.0
"""How long the others wait for a word of the leader, who may prepare a large data set; if it dies they notice."""

OUTCOME_SECONDS = {"nodes": 30.0, "workers": 2.0}
"""How long the leader, whose own part failed, waits to hear what happened elsewhere; torchrun kills soon."""

PORTS = 10_000
"""Ports from 20000 on, one of which the leader of a SLURM job listens to; those of the system's choice lie above."""

Kind = Literal["alone", "nodes", "workers"]
"""One process; one on each node, which starts the workers there; the workers of torchrun."""


class Order(NamedTuple):
    """What the leader says before each attempt, and at the end."""

    run_dir: str
    resume: bool
    meeting: Meeting | None = None  # of the workers of all nodes
    status: str | None = None  # how the run ended: there is nothing more to do
    error: str = ""


class Outcome(NamedTuple):
    """How somebody's part of an attempt failed."""

    kind: Literal["interrupted", "died", "failed"]
    text: str


class Crew:
    """One process's place among those who do a run together.

    Args:
        kind: What they are.
        rank: Of this one; 0 leads.
        size: How many they are.
        store: Through which they talk; None for one alone.
        address: Of the leader's machine, where workers meet.
    """

    def __init__(
        self, kind: Kind = "alone", rank: int = 0, size: int = 1, store: Store | None = None, address: str = "localhost"
    ) -> None:
        self.kind: Kind = kind
        self.rank = rank
        self.size = size
        self._store = store
        self._address = address
        self._attempt = 0

    # The leader's words

    def wait_for_all(self) -> None:
        """Until all others have come and can read their data; raises RunError with what the first one lacks."""
        for rank in range(1, self.size):
            error = self._hear(f"ready/{rank}", JOIN_SECONDS, f"{self._name(rank)} of the run")
            if error:
                raise RunError(f"{self._name(rank)}: {error}")

    def order(self, run_dir: str, *, resume: bool) -> Order:
        """Starts an attempt everywhere; returns the leader's own order."""
        self._attempt += 1
        meeting = None
        if self.kind == "nodes":
            name = f"{os.environ.get('SLURM_JOB_ID', '')}-{self._attempt}"
            meeting = Meeting(name, self.size, self.rank, self._address, free_port())
        order = Order(run_dir, resume, meeting)
        self._tell(f"order/{self._attempt}", order)
        return order

    def verdict(self, error: BaseException) -> BaseException:
        """What ended an attempt, of all that was told everywhere; the leader's own part ended with `error`."""
        outcomes = {0: outcome_of(error)}
        end = time.monotonic() + OUTCOME_SECONDS.get(self.kind, 0.0)
        for rank in range(1, self.size):
            try:
                heard = self._hear(f"outcome/{self._attempt}/{rank}", end - time.monotonic(), self._name(rank))
            except RunError:
                continue  # it still works on it, or cannot say
            outcomes[rank] = Outcome(*heard)
        if len(outcomes) == 1:
            return error
        for kind, made in (("interrupted", Interrupted), ("failed", RunError), ("died", WorkerDiedError)):
            if kind in {outcome.kind for outcome in outcomes.values()}:
                told = [(rank, item.text) for rank, item in outcomes.items() if item.kind == kind]
                return error if [rank for rank, _ in told] == [0] else made(self._joined(told))
        raise AssertionError("unreachable")

    def dismiss(self, run_dir: str, status: str, error: str = "") -> None:
        """Tells the others that the run is over, and waits a little until they know."""
        if self._store is None:
            return
        self._attempt += 1
        self._tell(f"order/{self._attempt}", Order(run_dir, resume=False, status=status, error=error))
        end = time.monotonic() + OUTCOME_SECONDS[self.kind] / 3
        keys = [f"left/{rank}" for rank in range(1, self.size)]
        while not self._store.check(keys) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)

    # The others'

    def ready(self, error: str = "") -> None:
        """Tells the leader that this one has come, or why it cannot do its part."""
        self._tell(f"ready/{self.rank}", error)

    def await_order(self) -> Order:
        """The leader's next word."""
        self._attempt += 1
        order = Order(*self._hear(f"order/{self._attempt}", LEADER_SECONDS, "the leader of the run"))
        if order.status is not None:
            self._tell(f"left/{self.rank}", True)
        meeting = Meeting(*order.meeting)._replace(rank=self.rank) if order.meeting else None
        return order._replace(meeting=meeting)

    def report(self, error: BaseException) -> None:
        """Tells the leader how this one's part of the attempt failed."""
        self._tell(f"outcome/{self._attempt}/{self.rank}", outcome_of(error))

    # Both

    def _tell(self, key: str, value: Any) -> None:
        if self._store is not None:
            self._store.set(key, json.dumps(value))

    def _hear(self, key: str, seconds: float, whom: str) -> Any:
        """Waits for a word, open to signals meanwhile, which torch's own waiting is not."""
        store = cast("Store", self._store)
        end = time.monotonic() + seconds
        try:
            while not store.check([key]):
                if time.monotonic() > end:
                    raise RunError(f"{whom} did not answer within {seconds:.0f} s")
                time.sleep(POLL_SECONDS)
            return json.loads(store.get(key))
        except distributed.DistError as error:
            raise RunError(f"{whom} cannot be reached any more: {one_line(error)}") from error

    def _name(self, rank: int) -> str:
        return f"node {rank}" if self.kind == "nodes" else f"process {rank}"

    def _joined(self, told: list[tuple[int, str]]) -> str:
        return "; ".join(f"{self._name(rank)}: {text}" for rank, text in told)


def outcome_of(error: BaseException) -> Outcome:
    """An error as the leader takes it."""
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return Outcome("interrupted", one_line(error) or "interrupted")
    kind = "died" if isinstance(error, WorkerDiedError) else "failed"
    return Outcome(kind, one_line(error if isinstance(error, RunError) else f"{type(error).__name__}: {error}"))


def gather(trainer: Mapping[str, Any], processes: int) -> Crew:
    """This process's crew, by what its environment says.

    Args:
        trainer: The config's `trainer`.
        processes: On each node.

    Raises:
        ConfigError: `trainer.num_nodes` and `trainer.devices` are not what was started, or the environment is wrong.
        RunError: The leader cannot be reached.
    """
    nodes = trainer["num_nodes"]
    here = place()
    if here is not None and here.starter == "torchrun":
        _check(nodes, processes, here.size // here.local_size, here.local_size, "torchrun")
        store, _, _ = next(distributed.rendezvous("env://"))
        restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return Crew("workers", here.rank, here.size, distributed.PrefixStore(f"alexnet-lab/{restarts}", store))
    if here is not None:
        _check(nodes, processes, here.size, processes, "srun")
        address = os.environ.get("MASTER_ADDR") or leaders_address()
        return Crew("nodes", here.rank, here.size, _own_store(address, here.rank), address)
    if nodes > 1:
        raise ConfigError(
            f"`trainer.num_nodes` is {nodes}, but this process was started alone; start one on each node by "
            f"`srun --nodes={nodes} --ntasks-per-node=1` or by torchrun, or sweep with launcher=slurm"
        )
    return Crew()


def _check(nodes: int, devices: int, nodes_there: int, devices_there: int, starter: str) -> None:
    if (nodes, devices) != (nodes_there, devices_there):
        raise ConfigError(
            f"{starter} started processes for {nodes_there} nodes with {devices_there} devices each, but "
            f"`trainer.num_nodes` is {nodes} and `trainer.devices` {devices}; "
            f"set trainer.num_nodes={nodes_there} trainer.devices={devices_there}"
        )


def leaders_address() -> str:
    """The address of the first node of this SLURM job, as SLURM itself reaches it."""
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "")
    try:
        first = _scontrol("show", "hostnames", nodes).split()[0]
        words = _scontrol("show", "node", first, "--oneliner").split()
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise RunError(f"scontrol does not tell the address of {nodes} ({error}); set MASTER_ADDR to it") from error
    return next((word.partition("=")[2] for word in words if word.startswith("NodeAddr=")), first)


def _scontrol(*words: str) -> str:
    done = subprocess.run(["scontrol", *words], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603, S607 - SLURM's own command, fixed words
    return done.stdout


def _own_store(address: str, rank: int) -> Store:
    """The store that the leader of a SLURM job holds, at a port that follows from the job's number."""
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


def free_port() -> int:
    """A port that nobody listens to at the moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
