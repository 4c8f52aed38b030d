"""A real SLURM cluster of two nodes on this machine: `python tests/cluster/slurm_cluster.py install|start|stop FOLDER`.

Both nodes are this host, with a core each; jobs are submitted, started, cancelled and ended by SLURM's own daemons.
Debian's packages `slurm-wlm` and `munge` are installed where they are missing, which takes root, as the daemons do.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")
NODES = {"n1": 17001, "n2": 17002}
"""Name and port of each node's daemon."""

CONFIG = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=17000
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=15
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


def install() -> None:
    """Installs SLURM and munge unless they are here."""
    if shutil.which("slurmctld") is None or shutil.which("munged") is None:
        quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL}
        subprocess.run(["apt-get", "update", "-qq"], check=False, **quiet)  # an old list of packages may do
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], check=True, **quiet)


def start(folder: Path) -> dict[str, str]:
    """Starts the cluster, waits until both nodes are idle, and returns the variables that its commands need.

    Raises:
        RuntimeError: The nodes did not come up within 30 s; the logs lie in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _start_munge(folder)
    for name in ("state", *(f"spool.{node}" for node in NODES)):
        (folder / name).mkdir(exist_ok=True)
    variables = {"SLURM_CONF": str(_write_config(folder))}
    environment = os.environ | variables
    subprocess.run(["slurmctld"], check=True, env=environment)
    for node in NODES:
        subprocess.run(["slurmd", "-N", node], check=True, env=environment)
    end = time.monotonic() + 30
    while _idle_nodes(environment) < len(NODES):
        if time.monotonic() > end:
            raise RuntimeError(f"the nodes of the test cluster did not come up; see {folder}/*.log")
        time.sleep(0.5)
    return variables


def stop(folder: Path) -> None:
    """Ends the daemons that `start` started."""
    for path in sorted(folder.glob("*.pid")):
        with contextlib.suppress(ValueError, ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGTERM)


def _start_munge(folder: Path) -> None:
    """munge signs SLURM's messages; one daemon serves the machine, so one that runs already is taken."""
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return
    key, run = Path("/etc/munge/munge.key"), Path("/run/munge")
    if not key.exists():
        key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    shutil.chown(key, "munge", "munge")
    run.mkdir(exist_ok=True)
    shutil.chown(run, "munge", "munge")
    subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", "/usr/sbin/munged"], check=True)
    shutil.copyfile(run / "munged.pid", folder / "munged.pid")


def _write_config(folder: Path) -> Path:
    host = os.uname().nodename.partition(".")[0]
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000 State=UNKNOWN"
        for name, port in NODES.items()
    ]
    path = folder / "slurm.conf"
    path.write_text(CONFIG.format(host=host, folder=folder, nodes="\n".join(nodes), names=",".join(NODES)))
    return path


def _idle_nodes(environment: dict[str, str]) -> int:
    idle = subprocess.run(
        ["sinfo", "-h", "-N", "-o", "%t"], capture_output=True, text=True, env=environment, check=False
    )
    return idle.stdout.split().count("idle")


if __name__ == "__main__":
    action, place = sys.argv[1], Path(*sys.argv[2:]).absolute()
    if action == "install":
        install()
    elif action == "start":
        print("\n".join(f"export {name}={value}" for name, value in start(place).items()))
    else:
        stop(place)
