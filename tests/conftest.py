"""What several packages' tests share: real data, the command line in process, a small finished run, the browser."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from commands import QUICK, compose_raw, skip_unless_required

from alexnet_lab.config import check_train
from alexnet_lab.run.threads import settings_restored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alexnet_lab.config.schema import Train

    Compose = Callable[..., dict[str, Any]]


if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup make test` hands its disposition on to what tests start

os.fsync = lambda handle: None  # pyright: ignore[reportUnknownLambdaType] - no test cuts the power; a run has 30 of them

gc.disable()  # until all tests are imported


def pytest_collection_finish() -> None:
    """Lets the collector ignore the million objects of the imported packages."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with MNIST, cifar10 and imagenette."""
    folder = os.environ.get("ALEXNET_LAB_DATA")
    if not folder:
        skip_unless_required("data", "ALEXNET_LAB_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the store of the digits, shared by all runs of the tests."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def compose(digits_dir: Path) -> Compose:
    """Composes and checks a config: `compose("model=lenet5", "seed=1")`; its data sets lie in a shared folder."""

    def composed(*overrides: str) -> dict[str, Any]:
        return check_train(compose_raw(f"data.dir={digits_dir}", *QUICK, *overrides)).model_dump()

    return composed


@pytest.fixture(scope="session")
def typed(compose: Compose) -> Callable[..., Train]:
    """`compose`, as the frozen object that the functions of a run take."""
    return lambda *overrides: check_train(compose(*overrides))


@pytest.fixture(scope="session")
def digits_run(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two short epochs on the digits. Do not change it; copy it."""
    from alexnet_lab.run import train

    path = tmp_path_factory.mktemp("runs") / "finished"
    train(compose(f"run_dir={path}", "trainer.max_epochs=2", "trainer.limit_train_batches=12"))
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window, steered by playwright."""
    program = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if program is None or sync_playwright is None:
        missing = "Chromium" if program is None else "playwright (pip install playwright)"
        skip_unless_required("browser", f"{missing} is not installed")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Puts back what a run sets for its whole process."""
    with settings_restored():
        yield
