"""A cluster for the tests of this folder."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
import slurm_cluster
from commands import skip_unless_required

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables with which commands reach a SLURM of two nodes."""
    if os.geteuid() != 0 or shutil.which("slurmctld") is None:
        install = "sudo python tests/cluster/slurm_cluster.py install"
        skip_unless_required("slurm", f"SLURM is not installed, or we may not start it: {install}")
    folder = tmp_path_factory.mktemp("slurm")
    try:
        yield slurm_cluster.start(folder)
    finally:
        slurm_cluster.stop(folder)
