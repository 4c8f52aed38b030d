"""What a preparation started from: decides which images an interrupted one need not decode again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from alexnet_lab.data.source_files import joined, read_arrays, too_fresh

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from alexnet_lab.data.source_files import SourceFiles
    from alexnet_lab.data.store import Contents

NAME = "plan.npz"
"""In the folder of a preparation: names, states and labels of the images of each part."""


def save_plan(folder: Path, contents: Contents) -> None:
    """Writes the plan of contents whose images are files; of others there is none."""
    if contents.files is not None and contents.file_rows:
        arrays: dict[str, Any] = _planned(contents, contents.files)
        np.savez(folder / NAME, seen_ns=np.int64(contents.files.seen_ns), **arrays)


def unchanged_images(folder: Path, contents: Contents) -> dict[str, int]:
    """By part, the number of images, from the first on, that are those of the plan in `folder`."""
    if contents.files is None:
        return {}
    plan = read_arrays(folder / NAME)
    if plan is None:
        return {}
    now = _planned(contents, contents.files)
    return {name: _common(name, plan, now) for name in contents.file_rows if f"{name}_names" in plan}


def _planned(contents: Contents, files: SourceFiles) -> dict[str, NDArray[Any]]:
    arrays = {}
    for name, rows in contents.file_rows.items():
        arrays[f"{name}_names"] = np.frombuffer(joined(files.names[rows]), np.uint8)
        arrays[f"{name}_states"] = files.states[rows]
        arrays[f"{name}_labels"] = contents.parts[name].labels
    return arrays


def _common(part: str, plan: Mapping[str, NDArray[Any]], now: Mapping[str, NDArray[Any]]) -> int:
    """The length of the beginning that both have; a file too fresh to be trusted ends it."""
    labels, states = ([arrays[f"{part}_{what}"] for arrays in (plan, now)] for what in ("labels", "states"))
    names = [arrays[f"{part}_names"].tobytes().split(b"\0") for arrays in (plan, now)]
    count = min(map(len, labels))
    same = np.fromiter((a == b for a, b in zip(*names, strict=False)), bool, count)
    same &= labels[0][:count] == labels[1][:count]
    same &= (states[0][:count] == states[1][:count]).all(axis=1)
    same &= ~too_fresh(states[0][:count], int(plan["seen_ns"]))
    return count if same.all() else int(same.argmin())
