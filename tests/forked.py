"""Commands in processes forked from one that has imported torch and Lightning, which takes a fresh one five seconds.

The server is the one from which a run starts its workers, so the workers of such a command are forked from it too.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import alexnet_lab
from alexnet_lab.run.elastic import PRELOADED

if TYPE_CHECKING:
    from collections.abc import Mapping


class Call(NamedTuple):
    """What a command gets."""

    script: Path
    words: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]
    group: bool


class Forked:
    """A command that runs; it has the methods of `subprocess.Popen` that tests use."""

    def __init__(self, call: Call) -> None:
        files = [tempfile.mkstemp(prefix="forked-") for _ in ("out", "err")]
        for handle, _ in files:
            os.close(handle)
        self._streams = tuple(Path(name) for _, name in files)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([PRELOADED])
        self._process = context.Process(target=_run, args=(call, self._streams))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(sys.argv, timeout or 0.0)
        out, err = (path.read_text() for path in self._streams)
        for path in self._streams:
            path.unlink()
        return out, err

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(call: Call, streams: tuple[Path, ...]) -> None:
    """What the interpreter does for `python script words`."""
    if call.group:
        os.setsid()
    os.chdir(call.cwd)
    os.environ.clear()
    os.environ.update(call.environment)
    for stream, path in zip((sys.stdout, sys.stderr), streams, strict=True):
        with path.open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
        stream.reconfigure(write_through=True)  # pyright: ignore[reportAttributeAccessIssue] - files have it
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server ignores it
    for number in (signal.SIGHUP, signal.SIGTERM):  # and has what the test did that started it
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None  # pyright: ignore[reportAttributeAccessIssue] - it is, and is no child of this process
    _import_as_a_script(call)
    try:
        runpy.run_path(str(call.script), run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing skips them


def _import_as_a_script(call: Call) -> None:
    """Sets the arguments and the path; forgets our package if the script's copy of the repository has its own."""
    sys.argv = [str(call.script), *call.words]
    sys.orig_argv = [sys.executable, *sys.argv]
    sys.path[:0] = [str(call.script.parent), *filter(None, call.environment.get("PYTHONPATH", "").split(os.pathsep))]
    source = call.script.parent / "src"
    if source.is_dir() and source != Path(alexnet_lab.__file__).parents[1]:
        sys.path.insert(0, str(source))
        for name in [name for name in sys.modules if name.partition(".")[0] == "alexnet_lab"]:
            del sys.modules[name]
