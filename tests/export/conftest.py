"""What tests of exported files share."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def run(digits_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(digits_run, tmp_path / "run"))


@pytest.fixture(autouse=True, scope="session")
def one_registry() -> Iterator[None]:
    """Keeps the table of ONNX's functions, which torch builds again in each export: it takes 2 to 4 s."""
    registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
    pytest.importorskip("onnxscript")
    registry = registration.ONNXRegistry.from_torchlib()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            logging.getLogger("torch.__trace"), "propagate", False
        )  # pytest would keep its thousands of lines
        patch.setattr(registration.ONNXRegistry, "from_torchlib", lambda *_, **__: registry)
        yield
