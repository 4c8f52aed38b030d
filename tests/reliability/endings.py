"""How a run ended, times aside: what two runs that computed the same must agree in."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import torch

from alexnet_lab.training.checkpoint_io import load_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

TIMES = {"images_per_second", "wall_seconds", "seconds", "epoch_seconds", "ends"}

PLACES = {"run_dir", "resume", "overrides", "files", "checksum"}
"""Where a run lies, and what follows from its place and times."""


def ending(run: Path) -> dict[str, Any]:
    """Both checkpoints, each row of metrics.csv and result.json."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    checkpoints = {name: load_checkpoint(run / "checkpoints" / f"{name}.ckpt") for name in ("last", "best")}
    return timeless({"result": json.loads((run / "result.json").read_text()), "rows": rows} | checkpoints)


def timeless(value: Any) -> Any:
    """A nested value without times and places, tensors as lists of numbers in full precision."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES | PLACES}
    if isinstance(value, list | tuple):
        return [timeless(item) for item in value]
    return (str(value.dtype), value.tolist()) if isinstance(value, torch.Tensor) else value


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two endings differ, for a message that can be read."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = list(dict.fromkeys([*one, *other]))
        return [line for key in keys for line in differences(one.get(key), other.get(key), f"{place}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other) < 1000:
        pairs = enumerate(zip(one, other, strict=True))
        return [line for number, pair in pairs for line in differences(*pair, f"{place}/{number}")]
    return [] if one == other else [f"{place}: {str(one)[:80]} and {str(other)[:80]}"]


def assert_same_ending(run: Path, whole: Path) -> None:
    """Fails with the places in which two runs differ."""
    found = differences(ending(run), ending(whole))
    assert not found, f"{len(found)} differences: " + "; ".join(found[:8])
