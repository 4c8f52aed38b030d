"""Processes that do a run together: torchrun on two nodes, and how they agree on what ended it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from commands import QUICK, REPOSITORY, Outcome, command, finished
from torch import distributed

from alexnet_lab.base.cores import available_cores
from alexnet_lab.base.errors import ConfigError, Interrupted, RunError
from alexnet_lab.run import launcher, multinode
from alexnet_lab.run.elastic import WorkerDiedError
from alexnet_lab.run.multinode import Crew, Order, free_port, gather
from alexnet_lab.training.checkpoint_io import load_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

SHORT = (*QUICK, "trainer.max_epochs=2", "trainer.limit_train_batches=4", "trainer.accelerator=cpu")


def torchrun(cwd: Path, *words: str) -> list[Outcome]:
    """`train.py words` under two agents of torchrun with one worker each, as on two nodes."""
    port = free_port()
    agents = [
        subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
                f"--node-rank={rank}", "--master-addr=localhost", f"--master-port={port}",
                str(REPOSITORY / "train.py"), *words,
            ],
            cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
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
    assert finished(command("train.py", *words, "trainer.devices=2", f"run_dir={devices}", cwd=tmp_path)).code == 0
    one, two = (load_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in (run, devices))
    assert all((one[name] == two[name]).all() for name in two)


@pytest.fixture
def store() -> distributed.Store:
    return distributed.HashStore()


def crews(store: distributed.Store, kind: multinode.Kind = "nodes") -> tuple[Crew, Crew]:
    return Crew(kind, 0, 2, store, "here"), Crew(kind, 1, 2, store, "here")


def test_orders_reach_the_other_node_with_its_own_rank(store):
    leader, other = crews(store)
    own = leader.order("/run", resume=True)
    heard = other.await_order()
    assert own.meeting is not None
    assert heard.meeting is not None
    assert (heard.run_dir, heard.resume, heard.status) == ("/run", True, None)
    assert (own.meeting.rank, heard.meeting.rank) == (0, 1)
    assert own.meeting._replace(rank=1) == heard.meeting
    assert leader.order("/run", resume=False).meeting != own.meeting  # nothing of a dead attempt is met again


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
    leader, follower = crews(store)
    leader.order("/run", resume=False)
    follower.await_order()
    follower.report(other)
    verdict = leader.verdict(own)
    assert type(verdict) is made
    assert str(verdict) == text


def test_node_that_says_nothing_leaves_the_leaders_own_error(store, monkeypatch):
    monkeypatch.setitem(multinode.OUTCOME_SECONDS, "nodes", 0.2)
    leader, _ = crews(store)
    leader.order("/run", resume=False)
    error = WorkerDiedError("killed")
    assert leader.verdict(error) is error


def test_leader_hears_that_a_node_lacks_the_data(store):
    leader, other = crews(store)
    other.ready("no such folder")
    with pytest.raises(RunError, match=r"^node 1: no such folder$"):
        leader.wait_for_all()


def test_end_of_a_run_is_told_and_acknowledged(store):
    leader, other = crews(store)
    heard: list[Order] = []
    listener = threading.Thread(target=lambda: heard.append(other.await_order()))
    listener.start()
    leader.dismiss("/run", "failed", "boom")
    listener.join(10)
    assert (heard[0].status, heard[0].error) == ("failed", "boom")
    assert store.check(["left/1"])


def test_leader_that_is_gone_is_noticed():
    server = distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    client = distributed.TCPStore("localhost", server.port, is_master=False, timeout=timedelta(seconds=5))
    del server
    with pytest.raises(RunError, match="the leader of the run cannot be reached any more"):
        Crew("nodes", 1, 2, client).await_order()


STEP = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]"}
WORKER = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("variables", "nodes", "message"),
    [
        ({}, 2, "`trainer.num_nodes` is 2, but this process was started alone; start one on each node by `srun"),
        (STEP, 1, r"srun started processes for 2 nodes .* set trainer.num_nodes=2 trainer.devices=1"),
        (WORKER, 2, r"torchrun started processes for 2 nodes with 2 devices .* set trainer.num_nodes=2 trainer.dev"),
    ],
)
def test_what_was_started_is_what_the_config_says(variables, nodes, message, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        gather({"num_nodes": nodes}, 1)


def test_leaders_address_is_the_one_that_slurm_uses(monkeypatch):
    said = {"hostnames": "n1\nn2\n", "node": "NodeName=n1 Arch=x86_64 NodeAddr=10.0.0.7 NodeHostName=n1"}
    monkeypatch.setattr(multinode, "_scontrol", lambda *words: said[words[1]])
    monkeypatch.setenv("SLURM_STEP_NODELIST", "n[1-2]")
    assert multinode.leaders_address() == "10.0.0.7"


def test_port_that_is_taken_is_told(monkeypatch):
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
