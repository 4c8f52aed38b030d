"""Where a report may go: nothing that was there before is lost, and a wrong place is refused first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from made import make_run, make_sweep, report

from alexnet_lab.report.make import MARK

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A run, a sweep, and places that are none for a report."""
    make_run(tmp_path / "run")
    make_sweep(tmp_path / "sweep", {"relu": [0.1], "tanh": [0.2]})
    make_sweep(tmp_path / "other", {"relu": [0.3], "tanh": [0.4]})
    (tmp_path / "other" / "report.html").write_text(MARK)  # a sweep's report lies beside its files
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "summary.md").write_text("mine")
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "report.html").write_text("<html>mine</html>")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file", "file is no folder"),
        ("file/below", "file is no folder"),
        ("link", "link is no folder"),
        ("full", "the folder contains other files"),
        ("page", "the folder contains other files"),
        ("run", "the folder contains other files"),
        ("other", "the folder contains other files"),
        ("/proc/report", "No such file or directory"),
        ("x" * 300, "File name too long"),
        ("", "`out` is '' (str); allowed: a text that is not empty"),
        ("' '", "`out` is ' ' (str); allowed: a text that is not empty"),
    ],
)
@pytest.mark.parametrize("source", ["runs={here}/run", "sweep={here}/sweep"])
def test_places_that_are_refused(out, message, source, here):
    before = content(here)
    place = here / out if out.strip(" '") else out
    outcome = report(source.format(here=here), f"out={place}")
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert content(here) == before


def test_a_new_place_an_empty_one_and_that_of_an_earlier_report(here):
    (here / "empty").mkdir()
    for out in ("new/folder", "empty", "empty"):
        assert report(f"runs={here}/run", f"out={here / out}").code == 0
    assert (here / "new" / "folder" / "report.html").is_file()
    assert report(f"sweep={here}/sweep", f"out={here / 'sweep'}/").code == 0


def test_two_reports_in_one_second_have_two_places(here, monkeypatch):
    monkeypatch.chdir(here)
    monkeypatch.setattr("time.strftime", lambda form: "2026-01-01_00-00-00")
    for _ in range(2):
        assert report(f"runs={here}/run").code == 0
    assert sorted(path.name for path in here.glob("logs/reports/*")) == ["2026-01-01_00-00-00", "2026-01-01_00-00-00_2"]


def test_a_disk_that_is_full_is_reported_in_one_line(here, monkeypatch):
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("alexnet_lab.report.make.write_text", full)
    outcome = report(f"runs={here}/run", f"out={here / 'out'}")
    assert outcome.code == 1
    assert "error: the report cannot be written: " in outcome.err
    assert "No space left on device" in outcome.err
