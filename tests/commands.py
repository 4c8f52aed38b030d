"""The commands of the repository, called in this process or started as one of their own."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import pytest
from hydra.core.global_hydra import GlobalHydra
from pydantic import ConfigDict

from alexnet_lab.config.main import main
from alexnet_lab.config.schema import Train

if TYPE_CHECKING:
    from collections.abc import Callable

    from forked import Forked

REPOSITORY = Path(__file__).parent.parent
CONFIGS = REPOSITORY / "configs"

QUICK = (
    "data.batch_size=16",
    "logger=csv",
    "trainer.num_threads=1",
    "callbacks.augmentation_preview=false",
    "trainer.progress_bar=false",
)
"""Overrides for runs that are to be short and to touch no tracker."""


def skip_unless_required(what: str, missing: str) -> NoReturn:
    """Skips a test, or fails it where continuous integration has said that it must run.

    Args:
        what: `data`, `browser` or `slurm`, as ALEXNET_LAB_REQUIRED lists them.
        missing: The reason.
    """
    if what in os.environ.get("ALEXNET_LAB_REQUIRED", "").split():
        pytest.fail(f"{missing}, and ALEXNET_LAB_REQUIRED names {what}")
    pytest.skip(missing)


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def call(task: Callable[[dict[str, Any]], Any], name: str, *words: str, configs: Path = CONFIGS) -> Outcome:
    """`python {name}.py words` in this process: what it prints and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, [f"{name}.py", *words]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(task, configs, name)
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()
    assert isinstance(ended.value.code, int)
    return Outcome(ended.value.code, out.getvalue(), err.getvalue())


def in_triton(script: Path, **variables: str) -> dict[str, Any]:
    """The JSON of a script that runs kernels in Triton's interpreter, or compiles them; skips without Triton."""
    if importlib.util.find_spec("triton") is None:
        skip_unless_required("null_gpu", "there is no Triton")
    process = [sys.executable, str(script)]
    done = subprocess.run(process, capture_output=True, text=True, check=False, env=os.environ | variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def evaluated(*words: Any) -> Outcome:
    """`python eval.py words` in this process, in one thread."""
    from alexnet_lab.config import check_evaluate
    from alexnet_lab.evaluation.evaluate import evaluate  # takes seconds, which most tests of a command save

    return call(lambda config: evaluate(check_evaluate(config)), "eval", "num_threads=1", *map(str, words))


def refused(*words: str, run_dir: Path) -> str:
    """The error of `train.py words`, which must end with exit code 2 before the run directory is made."""
    from alexnet_lab.run import request, run  # takes seconds, which most tests of a command save

    def task(config: dict[str, Any]) -> None:
        run(request.checked(config), resume=False)

    outcome = call(task, "train", *QUICK, *words, f"run_dir={run_dir}")
    assert outcome.code == 2, outcome.err
    assert not run_dir.exists()
    return outcome.err


class _Open(Train):
    model_config = ConfigDict(extra="allow")


def train_config(**groups: Any) -> Train:
    """A typed config with these groups and keys, and the schema's defaults for the others. It is not checked."""
    needed = {"seed": 0, "run_dir": "run", "model": {}, "data": {}, "loss": {}, "optimizer": {}}
    return _Open.model_validate(needed | groups)


def compose_raw(*overrides: str, name: str = "train") -> dict[str, Any]:
    """The config that the command line composes, resolved and not yet checked."""
    composed: list[dict[str, Any]] = []
    outcome = call(composed.append, name, *overrides)
    assert outcome.code == 0, outcome.err
    return composed[0]


def command(script: str, *words: str, cwd: Path, group: bool = False, **environment: str) -> subprocess.Popen[str]:
    """Starts `python script words` as a process of its own, in `cwd`, with one thread and without trackers' logins.

    With `group` it and its children can be signalled together, as a terminal does it.
    """
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / script), *words],
        cwd=cwd,
        env=_variables() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=group,
    )


def forked(script: str, *words: str, cwd: Path, group: bool = False, **environment: str) -> Forked:
    """`command` without the seconds of importing torch, for tests that do not concern the start of the interpreter."""
    from forked import Call, Forked  # takes seconds, as above

    return Forked(Call(REPOSITORY / script, words, cwd, _variables() | environment, group))


def _variables() -> dict[str, str]:
    others = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "HYDRA"))}
    return others | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def move_home(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Gives a test another home, W&B's files included. The compiled code of the real one is found and not made anew."""
    patch.setenv("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"))
    patch.setenv("WANDB_CACHE_DIR", str(home / "wandb-cache"))
    patch.setenv("HOME", str(home))


def finished(process: subprocess.Popen[str] | Forked, timeout: float = 280.0) -> Outcome:
    """Waits for a command to end; where four processes share a core, workers start after 60 s."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode is not None
    return Outcome(process.returncode, out, err)


def wait_for(path: Path, process: subprocess.Popen[str] | Forked) -> None:
    """Until the file is there, or the process has ended, or three minutes have passed (on a busy machine)."""
    end = time.monotonic() + 180
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
