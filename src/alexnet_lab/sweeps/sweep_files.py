"""Schemas of a sweep's files: sweep.json, and a line of ledger.jsonl."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import AfterValidator, Field

from alexnet_lab.base.checked_files import Name, Number, Schema
from alexnet_lab.run.run_files import Metrics, Result

SWEEP_VERSION = 1
"""Of the format of sweep.json."""

LEDGER_VERSION = 1
"""Of the format of a line of ledger.jsonl."""


def _below(name: str) -> str:
    path = PurePath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError("a folder inside the sweep's")
    return name


JobName = Annotated[str, AfterValidator(_below)]
"""A job's name, which is that of its folder."""


class JobRecord(Schema):
    """A job in sweep.json."""

    job: JobName
    overrides: list[str]
    config: dict[str, Any] = Field(default_factory=dict)


def _different(jobs: list[JobRecord]) -> list[JobRecord]:
    names = [job.job for job in jobs]
    if len(set(names)) < len(names):
        raise ValueError("jobs of different names")
    return jobs


class SweepRecord(Schema):
    """sweep.json."""

    version: Annotated[int, Ge(1), Le(SWEEP_VERSION)] = SWEEP_VERSION
    name: str | None = None
    factor: list[str] = Field(default_factory=list)
    base: list[bool | int | float | str | None] | None = None
    tuned: list[str] | None = None
    paper_points: dict[Name, Number] | None = None
    also: list[Name] | None = None
    metric: str = "test/top1_error"
    expects: Literal["higher", "lower"] | None = None
    claim: str | None = None
    paper: str | None = None
    differs: list[str] = Field(default_factory=list)
    command: str = ""
    overrides: list[str] = Field(default_factory=list)
    config: dict[str, Any] = Field(default_factory=dict)
    jobs: Annotated[list[JobRecord], AfterValidator(_different)]


class LedgerLine(Result):
    """A line of ledger.jsonl: how a job ended, with fields of its result.json if there is one."""

    version: Annotated[int, Ge(1), Le(LEDGER_VERSION)] = LEDGER_VERSION
    job: str
    content: str | None = None
    metrics: Metrics | None = None
    log: list[str] | None = None
