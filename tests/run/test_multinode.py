"""Processes that do a run together: torchrun on two nodes, and how they agree on what ended it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from commands import QUICK, REPOSITORY, Outcome, finished, forked
from torch import distributed
from torch.distributed.elastic.utils.distributed import get_free_port

from alexnet_lab.base.cores import available_cores
from alexnet_lab.base.errors import ConfigError, Interrupted, RunError
from alexnet_lab.config.schema import Trainer
from alexnet_lab.run import launcher, multinode
from alexnet_lab.run.elastic import WorkerDiedError
from alexnet_lab.run.multinode import Attempt, Coordinator, Follower, join
from alexnet_lab.training.checkpoint_io import load_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

SHORT = (*QUICK, "trainer.max_epochs=2", "trainer.limit_train_batches=4", "trainer.accelerator=cpu")


def torchrun(cwd: Path, *words: str) -> list[Outcome]:
    """`train.py words` under two agents of torchrun with one worker each, as on two nodes.

    Without OMP_NUM_THREADS, as a user starts it: Lightning would then choose the threads itself.
    """
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    port = get_free_port()
    agents = [
        subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
                f"--node-rank={rank}", "--master-addr=localhost", f"--master-port={port}",
                str(REPOSITORY / "train.py"), *words,
            ],
            cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    return [finished(agent) for agent in agents]


def test_torchrun_on_two_nodes_gives_what_two_devices_give(tmp_path, digits_dir):
    words = (*SHORT, f"data.dir={digits_dir}")
    first, second = torchrun(tmp_path, *words, "trainer.num_nodes=2")  # each would choose a run_dir by its own clock
    assert (first.code, second.code) == (0, 0), first.err + second.err
    (run,) = (tmp_path / "logs" / "runs").iterdir()
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("completed", 8)
    devices = tmp_path / "devices"
    assert finished(forked("train.py", *words, "trainer.devices=2", f"run_dir={devices}", cwd=tmp_path)).code == 0
    one, two = (load_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in (run, devices))
    assert all((one[name] == two[name]).all() for name in two)


@pytest.fixture
def store() -> distributed.Store:
    return distributed.HashStore()


def members(store: distributed.Store, kind: multinode.Kind = "nodes") -> tuple[Coordinator, Follower]:
    return Coordinator(kind, 0, 2, store, "here"), Follower(kind, 1, 2, store, "here")


def failed_attempt(coordinator: Coordinator, error: BaseException) -> BaseException:
    """What the coordinator makes of an attempt whose own part ends with `error`."""
    with pytest.raises(BaseException) as raised, coordinator.attempt("/run", resume=False):  # noqa: PT011 - any kind
        raise error
    return raised.value


def test_attempts_reach_the_other_node_with_its_own_rank(store):
    coordinator, other = members(store)
    with coordinator.attempt("/run", resume=True) as own:
        received = other.next_attempt()
    assert own is not None
    assert received.rendezvous is not None
    assert (received.run_dir, received.resume, received.status) == ("/run", True, None)
    assert (own.rank, received.rendezvous.rank) == (0, 1)
    assert own._replace(rank=1) == received.rendezvous
    with coordinator.attempt("/run", resume=False) as again:
        assert again != own  # nothing of a failed attempt is met again


@pytest.mark.parametrize(
    ("own", "other", "made", "text"),
    [
        (WorkerDiedError("gloo"), RunError("boom"), RunError, "node 1: boom"),
        (WorkerDiedError("gloo"), WorkerDiedError("SIGKILL"), WorkerDiedError, "node 0: gloo; node 1: SIGKILL"),
        (RunError("boom"), WorkerDiedError("gloo"), RunError, "boom"),
        (WorkerDiedError("gloo"), KeyboardInterrupt(), Interrupted, "node 1: interrupted"),
        (Interrupted("by SIGTERM"), WorkerDiedError("gloo"), Interrupted, "by SIGTERM"),
    ],
)
def test_what_ended_an_attempt_is_what_came_first_wherever_that_was(own, other, made, text, store):
    coordinator, follower = members(store)
    follower._attempt = 1
    follower.report(other)
    reason = failed_attempt(coordinator, own)
    assert type(reason) is made
    assert str(reason) == text


def test_node_that_does_not_answer_leaves_the_coordinators_own_error(store, monkeypatch):
    monkeypatch.setitem(multinode.OUTCOME_SECONDS, "nodes", 0.2)
    error = WorkerDiedError("killed")
    assert failed_attempt(members(store)[0], error) is error


def test_coordinator_learns_that_a_node_lacks_the_data(store):
    coordinator, other = members(store)
    other.ready("no such folder")
    with pytest.raises(RunError, match=r"^node 1: no such folder$"):
        coordinator.wait_for_all()


def test_end_of_a_run_is_announced_and_acknowledged(store):
    coordinator, other = members(store)
    received: list[Attempt] = []
    listener = threading.Thread(target=lambda: received.append(other.next_attempt()))
    listener.start()
    with pytest.raises(RunError, match="boom"), coordinator:
        raise RunError("boom")
    listener.join(10)
    assert (received[0].status, received[0].error) == ("failed", "boom")
    assert store.check(["left/1"])


def test_coordinator_that_is_gone_is_noticed():
    server = distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    client = distributed.TCPStore("localhost", server.port, is_master=False, timeout=timedelta(seconds=5))
    del server
    with pytest.raises(RunError, match="the run's coordinator cannot be reached any more"):
        Follower("nodes", 1, 2, client).next_attempt()


STEP = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]"}
WORKER = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("variables", "nodes", "message"),
    [
        ({}, 2, "`trainer.num_nodes` is 2, but this process was started alone; start one per node with `srun"),
        (STEP, 1, r"srun started processes for 2 nodes with 1 device each.* set trainer.num_nodes=2 trainer.devices=1"),
        (WORKER, 2, r"torchrun started processes for 2 nodes with 2 devices .* set trainer.num_nodes=2 trainer.dev"),
    ],
)
def test_what_was_started_is_what_the_config_says(variables, nodes, message, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        join(Trainer(num_nodes=nodes, devices=1))


def test_coordinator_address_is_the_one_that_slurm_uses(monkeypatch):
    said = {"hostnames": "n1\nn2\n", "node": "NodeName=n1 Arch=x86_64 NodeAddr=10.0.0.7 NodeHostName=n1"}
    monkeypatch.setattr(multinode, "_scontrol", lambda *words: said[words[1]])
    monkeypatch.setenv("SLURM_STEP_NODELIST", "n[1-2]")
    assert multinode.coordinator_address() == "10.0.0.7"


def test_port_that_is_taken_is_reported(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        with pytest.raises(RunError, match=r"where the nodes of the run meet, cannot be listened to.*set MASTER_PORT"):
            multinode._own_store("localhost", 0)


def test_cores_of_a_slurm_job_are_those_that_it_was_given(monkeypatch):
    everywhere = available_cores()
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "1")
    assert available_cores() == 1
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "4096")
    assert available_cores() == everywhere


def test_slurm_launcher_is_for_sweeps(compose, tmp_path):
    config: dict[str, Any] = compose(f"run_dir={tmp_path / 'run'}", "launcher.slurm=true")
    with pytest.raises(ConfigError, match="sends jobs of a sweep to the cluster; add -m"):
        launcher.train(config)
