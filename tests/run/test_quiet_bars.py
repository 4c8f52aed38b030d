"""Progress bars: on a terminal, and quiet in files and in continuous integration."""

from __future__ import annotations

import io
import sys

import pytest

from alexnet_lab.data.preparation_bar import progress_bar
from alexnet_lab.run.engine import optional_callbacks
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.training.progress_bar import ProgressLine


class Terminal(io.StringIO):
    """Takes text and says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("error_output", "ci", "shown"), [(Terminal, "", True), (Terminal, "true", False), (io.StringIO, "", False)]
)
def test_bars_are_for_those_who_watch(error_output, ci, shown, typed, monkeypatch):
    config = typed("trainer.progress_bar=true")
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", error_output())
    callbacks = optional_callbacks(config, RunDirectory(config.run_dir))
    assert any(isinstance(callback, ProgressLine) for callback in callbacks) is shown
    with progress_bar("images", 3) as advance:
        advance(1)
    assert bool(sys.stderr.getvalue()) is shown  # pyright: ignore[reportAttributeAccessIssue] - ours, see above
