"""The CPU: its cores, how its threads wait for each other, and its bfloat16 arithmetic."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path

from alexnet_lab.base.cluster import number, slurm_cores

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
TASKS = Path("/proc/self/task")
CPUINFO = Path("/proc/cpuinfo")


def available_cores() -> int:
    """The minimum of the affinity mask, the cgroups' quota (`docker --cpus`) and SLURM's allocation; at least 1.

    A quota of 2.5 cores counts as two: a third thread would be stopped for half of its time, and the others would wait
    for it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(limit for limit in (cores, cgroup_quota(), slurm_cores()) if limit is not None)))


def omp_threads() -> int | None:
    """The first number of `OMP_NUM_THREADS`, which may be a list of levels; None if it is not set.

    Raises:
        ConfigError: It is no whole number.
    """
    outermost = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(outermost) if outermost.isdigit() else number("OMP_NUM_THREADS", 0) or None


class Bfloat16(Enum):
    """How a CPU computes with bfloat16 numbers."""

    NATIVE = "native"  # faster than float32
    CONVERTED = "converted"  # through float32
    EMULATED = "emulated"  # number by number: half-width AlexNet trained 19 times slower than in float32


NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""CPU flags for native bfloat16: x86, x86 with matrix units, ARM."""


def bfloat16_arithmetic(cpuinfo: Path = CPUINFO) -> Bfloat16:
    """How this machine's CPU computes with bfloat16 numbers, from the flags that Linux lists.

    On other systems it counts as emulated.

    Args:
        cpuinfo: A file with lines `flags: ...` (x86) or `Features: ...` (ARM).
    """
    facts = processor_facts(cpuinfo)
    flags = set(f"{facts.get('flags', '')} {facts.get('Features', '')}".split())
    if flags & NATIVE_BFLOAT16:
        return Bfloat16.NATIVE
    return Bfloat16.CONVERTED if "avx512bw" in flags else Bfloat16.EMULATED


def processor_facts(cpuinfo: Path = CPUINFO) -> dict[str, str]:
    """What Linux lists about the first core, such as `model name` and `flags`; empty on other systems."""
    lines = (line.partition(":") for line in reversed(_lines(cpuinfo)))
    return {name.strip(): value.strip() for name, _, value in lines}


def sleep_while_waiting() -> None:
    """Makes OpenMP's threads sleep while they wait for each other; call it before torch is imported.

    By default they spin for milliseconds. If other programs need the cores, this keeps the awaited thread from running:
    LeNet-5 with two threads on 2 cores with a load of 18 trained 40 images/s, and 680 with this setting.
    """
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def waited_seconds(tasks: Path = TASKS) -> float | None:
    """How long this process's threads have been ready to run but waited for a core, in total since they started.

    Args:
        tasks: Has a folder per thread, whose `schedstat` lists nanoseconds on a core and nanoseconds waited.

    Returns:
        None if the system does not report it: it is not Linux, or a sandbox.
    """
    waits = [words[1] for folder in tasks.glob("*") if len(words := " ".join(_lines(folder / "schedstat")).split()) > 1]
    return sum(map(int, waits)) / 1e9 if waits else None


def cgroup_quota(own: Path = OWN_CGROUPS, root: Path = CGROUPS) -> float | None:
    """The cores' worth of time that the cgroups allow this process; None for no limit.

    Args:
        own: Lists this process's cgroups, one line each: `ID:CONTROLLERS:PATH`.
        root: Where cgroups are mounted: version 2, or version 1 in a folder per controller, or both.
    """
    quotas: list[float] = []
    for line in _lines(own):
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in (root / "cpu", root / "cpu,cpuacct") if controllers else (root, root / "unified"):
            place = mount / path.lstrip("/")
            for folder in (place, *place.parents):  # the quota of a parent applies to its children too
                quotas += [quota for quota in (_quota_v2(folder), _quota_v1(folder)) if quota is not None]
                if folder == mount:
                    break
    return min(quotas, default=None)


def _quota_v2(folder: Path) -> float | None:
    """`cpu.max`: microseconds of a period, or `max`, and the period."""
    quota, *period = " ".join(_lines(folder / "cpu.max")).split() or ["max"]
    return None if quota == "max" else int(quota) / int(period[0] if period else 100_000)


def _quota_v1(folder: Path) -> float | None:
    """`cpu.cfs_quota_us`, which is -1 without a limit, of `cpu.cfs_period_us`."""
    quota, period = _lines(folder / "cpu.cfs_quota_us"), _lines(folder / "cpu.cfs_period_us")
    return int(quota[0]) / int(period[0]) if quota and period and int(quota[0]) > 0 else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
