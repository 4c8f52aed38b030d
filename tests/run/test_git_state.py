"""Which files make the state of the repository in manifest.json dirty."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from alexnet_lab.run.provenance import git_state

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *words: str) -> str:
    names = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    return subprocess.run(["git", "-C", str(folder), *names, *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("src/lab/net.py", "configs/train.yaml", "train.py", "README.md", "results/a/ledger.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "all")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "dirty"),
    [
        ("results/a/ledger.jsonl", False),
        ("results/a/job/result.json", False),
        ("results/b/sweep.json", False),
        ("docs/page.md", False),
        ("README.md", False),
        ("tests/test_net.py", False),
        ("src/lab/net.py", True),
        ("src/lab/results/new.py", True),
        ("configs/train.yaml", True),
        ("configs/sweep/mine.yaml", True),
        ("train.py", True),
        ("my_model.py", True),
        ("requirements.lock", True),
    ],
)
def test_a_file_that_is_computed_with_makes_it_dirty(repository, name, dirty):
    commit = git(repository, "rev-parse", "HEAD").strip()
    assert git_state(repository / "src" / "lab") == {"commit": commit, "dirty": False}
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    (repository / name).write_text("2\n")
    assert git_state(repository / "src" / "lab") == {"commit": commit, "dirty": dirty}


def test_outside_a_repository_there_is_none(tmp_path):
    assert git_state(tmp_path) is None


def test_a_package_installed_inside_another_projects_repository_has_none(repository):
    installed = repository / ".venv" / "lib"
    installed.mkdir(parents=True)
    (installed / "net.py").write_text("1\n")
    assert git_state(installed) is None
