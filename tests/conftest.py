"""What several packages' tests share: the real data, the command line in process, and one small finished run."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from alexnet_lab.config import check_train
from alexnet_lab.config.entry import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Compose = Callable[..., dict[str, Any]]

REPOSITORY = Path(__file__).parent.parent
CONFIGS = REPOSITORY / "configs"

QUICK = ("logger=csv", "trainer.num_threads=1", "callbacks.augmentation_preview=false", "trainer.progress_bar=false")
"""Overrides for runs that are to be short and to touch no tracker."""


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with MNIST, cifar10 and imagenette."""
    folder = os.environ.get("ALEXNET_LAB_DATA")
    if not folder:
        pytest.skip("ALEXNET_LAB_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the store of the digits, shared by all runs of the tests."""
    return tmp_path_factory.mktemp("data")


def call(task: Callable[[dict[str, Any]], Any], name: str, *words: str) -> Outcome:
    """`python {name}.py words` in this process: what it prints and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, [f"{name}.py", *words]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(task, CONFIGS, name)
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()
    assert isinstance(ended.value.code, int)
    return Outcome(ended.value.code, out.getvalue(), err.getvalue())


def compose_raw(*overrides: str, name: str = "train") -> dict[str, Any]:
    """The config that the command line composes, resolved and not yet checked."""
    composed: list[dict[str, Any]] = []
    outcome = call(composed.append, name, *overrides)
    assert outcome.code == 0, outcome.err
    return composed[0]


@pytest.fixture(scope="session")
def compose(digits_dir: Path) -> Compose:
    """Composes and checks a config: `compose("model=lenet5", "seed=1")`; its data sets lie in a shared folder."""

    def composed(*overrides: str) -> dict[str, Any]:
        return check_train(compose_raw(f"data.dir={digits_dir}", *QUICK, *overrides))

    return composed


@pytest.fixture(scope="session")
def digits_run(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two short epochs on the digits. Do not change it; copy it."""
    from alexnet_lab.run import train

    path = tmp_path_factory.mktemp("runs") / "finished"
    train(compose(f"run_dir={path}", "trainer.max_epochs=2", "trainer.limit_train_batches=12"))
    return path


def command(script: str, *words: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """Starts `python script words` as a process of its own, in `cwd`, with one thread and without trackers' logins."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "HYDRA"))}
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / script), *words],
        cwd=cwd,
        env=variables | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str], timeout: float = 120.0) -> Outcome:
    """Waits for a command to end."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return Outcome(process.returncode, out, err)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Puts back what a run sets for its whole process."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
