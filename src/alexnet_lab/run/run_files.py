"""The schemas of a run's files: result.json, manifest.json, and the parts of config.yaml that a report reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, Field

from alexnet_lab.base.checked_files import Amount, Name, Number, Schema, Total

RESULT_VERSION = 1
"""Of the format of result.json."""

Status = Literal["completed", "failed", "interrupted"]
"""How a run ended."""

ERROR_RATES = ("top1_error", "top5_error")
"""The ends of metric names whose values are shares."""


def error_names(metrics: Iterable[str]) -> list[str]:
    """The names of the error rates; a further metric, such as `test/calibration_error`, is none.

    Example:
        >>> error_names(["test/loss", "test/top1_error", "test/calibration_error"])
        ['test/top1_error']
    """
    return [name for name in metrics if name.partition("/")[2] in ERROR_RATES]


def _metrics(metrics: dict[str, float | None]) -> dict[str, float | None]:
    for name, value in metrics.items():
        if name.endswith(ERROR_RATES) and value is not None and not 0 <= value <= 1:
            raise ValueError(f"`{name}` in [0, 1]")
    return metrics


Metrics = Annotated[dict[Name, Number | None], AfterValidator(_metrics)]
"""Metrics by name; None: not finite."""


class Reached(Schema):
    """When training reached a goal; None: never."""

    epochs: Amount | None = None
    steps: Amount | None = None
    seconds: Amount | None = None


class ToError(Reached):
    """When a training error was reached."""

    error: Annotated[float, Gt(0), Le(1)]


class ToLoss(Reached):
    """When a training loss was reached."""

    loss: Annotated[float, Gt(0)]


class Earlier(Schema):
    """The result of a completed run before it was trained further."""

    epochs: Total | None = None
    steps: Total | None = None
    metrics: Metrics
    best_epoch: Total | None = None
    wall_seconds: Amount | None = None


class Course(Schema):
    """The start and end of training: the mean loss of the first three epochs, if there were as many; the last epoch."""

    early_loss: Number | None = None
    final_loss: Number | None = None
    final_top1_error: Number | None = None


class Result(Schema):
    """result.json. Runs of older versions lack some fields."""

    version: Annotated[int, Ge(1), Le(RESULT_VERSION)] = RESULT_VERSION
    status: Status
    metrics: Metrics
    overrides: list[str] = Field(default_factory=list)
    num_parameters: Total | None = None
    num_macs: Total | None = None
    epochs: Total | None = None
    steps: Total | None = None
    images_per_second: Amount | None = None
    wall_seconds: Amount | None = None
    best_checkpoint: str | None = None
    best_epoch: Total | None = None
    attempts: Total | None = None
    gpus: list[str] | None = None
    num_train: Total | None = None
    num_val: Total | None = None
    num_test: Total | None = None
    store_hash: str | None = None
    split_hash: str | None = None
    images_hash: str | None = None
    files_hash: str | None = None
    train: Course | None = None
    to_error: ToError | None = None
    to_loss: ToLoss | None = None
    error: str | None = None
    history: list[Earlier] | None = None
    continued_by: str | None = None
    files: dict[str, str] | None = None


def copies(results: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """The runs that are copies of earlier ones: their checkpoints, which contain the run's config, are equal.

    Args:
        results: Names and contents of result.json.

    Returns:
        The name of the original by that of the copy.
    """
    first: dict[str, str] = {}
    found = {}
    for name, result in results:
        checkpoint = (result.get("files") or {}).get("checkpoints/best.ckpt")
        if checkpoint is not None and first.setdefault(checkpoint, name) != name:
            found[name] = first[checkpoint]
    return found


class Git(Schema):
    """The state of the repository."""

    commit: str
    dirty: bool = False


class Hardware(Schema):
    """The hardware of the run; `device` computed it: the model of a GPU or CPU."""

    device: str = ""
    processor: str = ""
    cores: Total | None = None
    memory_gib: Amount | None = None
    gpus: list[str] = Field(default_factory=list)
    gpu_uuids: list[str] = Field(default_factory=list)
    cuda: dict[Name, str] | None = None


class Start(Schema):
    """The weights that a run started from; `new_layer` is its last layer if the number of classes differs."""

    source: str
    file: str
    sha256: str
    new_layer: str | None = None


class Manifest(Schema):
    """manifest.json."""

    git: Git | None = None
    command: list[str] = Field(default_factory=list)
    python: str = ""
    packages: dict[Name, str] = Field(default_factory=dict)
    hardware: Hardware | None = None
    precision: dict[Name, str] = Field(default_factory=dict)
    system: str = ""
    init_from: Start | None = None


def computed_on(manifest: Mapping[str, Any]) -> str:
    """The kind of hardware that computed a run; empty if its manifest does not name it.

    Args:
        manifest: The checked content of manifest.json; those of older versions name no device.
    """
    hardware = manifest.get("hardware") or {}
    return hardware.get("device") or next(iter(hardware.get("gpus") or ()), hardware.get("processor") or "")


class Tracker(Schema):
    """The fields that a report reads of the group `logger`."""

    project: str | None = None
    group: str | None = None
    entity: str | None = None
    name: str | None = None


class Config(Schema):
    """The fields that a report reads of a run's config.yaml; the rest may be from an older version."""

    seed: Total | None = None
    overrides: list[str] = Field(default_factory=list)
    model: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    logger: Tracker | None = None
