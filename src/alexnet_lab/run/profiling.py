"""The profiler of a run: none, or one of Lightning's, which writes a file into the run directory."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from lightning.pytorch.profilers import AdvancedProfiler, PassThroughProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from alexnet_lab.base.targets import build

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}

NOTHING = contextlib.nullcontext()


class NoProfiler(PassThroughProfiler):
    """A fast profiler that measures nothing. Lightning calls its profiler around each hook of each callback."""

    def profile(self, action_name: str) -> Any:
        """Does nothing around the action."""
        return NOTHING


def build_profiler(asked: str | dict[str, Any] | None, run_dir: Path, trusted: tuple[str, ...]) -> Profiler:
    """The profiler of `trainer.profiler`; a named one writes `fit-profile.txt` into the run directory."""
    if asked is None:
        return NoProfiler()
    if isinstance(asked, dict):
        return build(asked, "trainer.profiler", trusted=trusted)
    return PROFILERS[asked](dirpath=run_dir, filename="profile")
