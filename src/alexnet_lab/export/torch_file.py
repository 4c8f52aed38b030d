"""format=torch_export: a .pt2 that `torch.export.load` opens without this repository."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from alexnet_lab.export.served import Served, traced

DESCRIPTION = "description.json"
"""The extra file in the archive."""


def write(served: Served, description: Mapping[str, Any], path: Path) -> None:
    """Writes the operations and the description; raises RunError if torch cannot trace the network."""
    with path.open("wb") as file:
        torch.export.save(traced(served), file, extra_files={DESCRIPTION: json.dumps(description)})


def logits(path: Path, pixels: NDArray) -> NDArray:
    """What a file makes of pixels, uint8 (B, C, S, S)."""
    with path.open("rb") as file, torch.inference_mode():
        return torch.export.load(file).module()(torch.from_numpy(pixels))[0].numpy()
