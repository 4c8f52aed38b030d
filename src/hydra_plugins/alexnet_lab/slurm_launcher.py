"""Hydra's SLURM launcher, changed to wait until every job has left the queue, however it ended.

Hydra's own asks for each job's result in turn and raises the first error while other jobs are still in the queue. The
outcome of each job is in the sweep's ledger, so this launcher only asks SLURM.
"""

from __future__ import annotations

import logging
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.singleton import Singleton
from omegaconf import DictConfig

from alexnet_lab.base.errors import JobsCancelledError

try:
    from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
except ImportError:  # the package's extra `sweeps` is not installed
    SlurmLauncher = SlurmQueueConf = None

log = logging.getLogger("alexnet_lab.sweeps.slurm")

FIRST_POLL_SECONDS = 1.0
LAST_POLL_SECONDS = 30.0
"""The intervals between two queries of the queue, which grow with the jobs' age: many users query the same daemon."""

SUBMITTED = "slurm_jobs.txt"
"""The file in the sweep's directory with its jobs' numbers, so that jobs of a killed sweep can be cancelled."""


if SlurmLauncher is not None and SlurmQueueConf is not None:

    class QueueLauncher(SlurmLauncher):
        """Submits jobs as one array and waits for it; cancels them if the wait is interrupted."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
            """Submits the jobs and returns when all have left the queue.

            Args:
                job_overrides: Of each job.
                initial_job_idx: The number of the first job.

            Raises:
                JobsCancelledError: Some were cancelled.
            """
            record = Path(str(cast("DictConfig", self.config).hydra.sweep.dir)) / SUBMITTED
            if record.exists():
                cancel(numbers_in(record.read_text(encoding="utf-8", errors="replace")))
            number = self.submit(job_overrides, initial_job_idx)
            record.write_text(number, encoding="utf-8")
            log.info("SLURM job %s: %d submitted", number, len(job_overrides))
            try:
                wait(number)
            except BaseException:
                cancel([number])
                raise
            record.unlink(missing_ok=True)
            if jobs := cancelled(number):  # by a person or an administrator, who does not want them back in the queue
                raise JobsCancelledError(f"cancelled in SLURM: {', '.join(jobs)}")
            return []

        def submit(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> str:
            """Submits an array of jobs and returns its number."""
            import submitit

            own = {"submitit_folder", "max_num_timeout"}
            common = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name")
            executor = submitit.AutoExecutor(
                folder=self.params["submitit_folder"],
                cluster="slurm",
                slurm_max_num_timeout=self.params["max_num_timeout"],
            )
            given = {key: value for key, value in self.params.items() if key not in own}
            executor.update_parameters(
                **{key if key in (*common, "stderr_to_stdout") else f"slurm_{key}": item for key, item in given.items()}
            )
            numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
            jobs = executor.map_array(
                self,
                [list(words) for words in job_overrides],
                ["hydra.sweep.dir" for _ in numbers],
                list(numbers),
                [f"job_id_for_{number}" for number in numbers],
                [Singleton.get_state() for _ in numbers],
            )
            return str(jobs[0].job_id).partition("_")[0]

    ConfigStore.instance().store(
        group="hydra/launcher",
        name="alexnet_lab_slurm",
        node=SlurmQueueConf(_target_="hydra_plugins.alexnet_lab.slurm_launcher.QueueLauncher"),
        provider="alexnet_lab",
    )


def wait(number: str) -> None:
    """Waits until an array of jobs has left the queue; logs changes."""
    before: Counter[str] | None = None
    pause = FIRST_POLL_SECONDS
    while (states := in_queue(number)) is None or states:
        if states is not None and states != before:
            counts = ", ".join(f"{count} {state.lower()}" for state, count in sorted(states.items()))
            log.info("SLURM job %s: %s", number, counts)
            before = states
        time.sleep(pause)
        pause = min(1.2 * pause, LAST_POLL_SECONDS)


def in_queue(number: str) -> Counter[str] | None:
    """The number of jobs of an array by state; empty if it has left the queue, None if SLURM does not answer."""
    try:
        answer = slurm("squeue", "--noheader", "--array", f"--jobs={number}", "--format=%T")
    except subprocess.CalledProcessError as error:
        return Counter() if "Invalid job id" in str(error.stderr) else None
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Counter(answer.split())


def cancelled(number: str) -> list[str]:
    """The jobs of an array that were cancelled, such as `31_0`; SLURM knows them for minutes after their end."""
    try:
        answer = slurm("scontrol", "show", "job", "--oneliner", number)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in answer.splitlines()]
    return [
        f"{number}_{line.get('ArrayTaskId', 0)}" for line in lines if line.get("JobState", "").startswith("CANCELLED")
    ]


def numbers_in(text: str) -> list[str]:
    """The job numbers in a file, which is data: a line such as `--user=me` would be a flag of scancel."""
    words = text.split()
    wrong = [word for word in words if not re.fullmatch(r"[0-9]{1,20}", word)]
    if wrong:
        log.warning("%s contains %r, which is no number of a job; it is ignored", SUBMITTED, wrong[0][:40])
    return [word for word in words if word not in wrong]


def cancel(numbers: Iterable[str]) -> None:
    """Cancels jobs: waiting jobs end at once, running jobs get SIGTERM and record themselves as interrupted."""
    for number in numbers:
        try:
            slurm("scancel", number)
        except (OSError, subprocess.SubprocessError) as error:
            log.debug("SLURM job %s was not cancelled: %s", number, error)


def slurm(*words: str) -> str:
    """The output of a SLURM command."""
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout  # noqa: S603 - fixed words
