"""What a sweep would do: its jobs, their directories, the sizes of their networks and the estimated time."""

from __future__ import annotations

import json

from alexnet_lab.config.schema import Train
from alexnet_lab.run.parts import check_parts
from alexnet_lab.run.preparation import network_size
from alexnet_lab.run.rehearsal import check_callbacks
from alexnet_lab.sweeps import job_states
from alexnet_lab.sweeps.preflight import Plan


def described_plan(plan: Plan) -> list[str]:
    """The lines of a dry run: one per job, then the counts and an estimate of the time."""
    states = job_states.states(plan.sweep, plan.jobs)
    sizes = _sizes(plan)
    rows = [(states[job.name], f"{sizes[job.name]:,} parameters", job.name, job.label) for job in plan.jobs]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{state:<{widths[0]}}  {size:>{widths[1]}}  {name:<{widths[2]}}  {label}" for state, size, name, label in rows
    ]
    left = sum(state != "done" for state in states.values())
    time = job_states.estimate(plan.sweep, left, plan.launcher.side_by_side)
    common = " ".join(plan.definition.overrides)
    return [
        *([f"all with: {common}"] if common else []),
        *lines,
        f"sweep directory: {plan.sweep.path}",
        job_states.count_line(states.values()),
        f"time: {time}",
    ]


def described_run(config: Train) -> list[str]:
    """The lines of a dry run of one run; raises ConfigError like the run itself, before it reads its data."""
    check_parts(config)
    check_callbacks(config)
    return [f"run directory: {config.run_dir}", f"{network_size(config)['num_parameters']:,} parameters"]


def _sizes(plan: Plan) -> dict[str, int]:
    """The number of parameters of each job's network; networks with the same config are built once."""
    keys = {name: json.dumps([config.model, config.module, config.data]) for name, config in plan.configs.items()}
    different = {key: plan.configs[name] for name, key in keys.items()}
    sizes = {key: network_size(config)["num_parameters"] for key, config in different.items()}
    return {name: sizes[key] for name, key in keys.items()}
