"""Reports never compare results on different images, nor draw a damaged file, nor count a run twice."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from made import make_run, make_sweep, report

from alexnet_lab.data.identity import Result, on_other_images
from alexnet_lab.run.run_directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = {"store_hash": "a" * 64, "split_hash": "b" * 64, "num_train": 32, "num_val": 4, "num_test": 4}
FOLDER = {"_target_": "alexnet_lab.data.ImageFolderDataModule", "root": "pictures", "dir": "data", "batch_size": 8}


def record(run: Path, data: dict[str, Any] = FOLDER, **images: Any) -> Path:
    """Adds to a run what training records of its images."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"data": data}))
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | IMAGES | images))
    return run


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A sweep between whose jobs a picture was added; its directory."""
    folder = make_sweep(tmp_path / "sweep", {"relu": [0.1, 0.2], "tanh": [0.3, 0.4]})
    for number, run in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        record(run, **({"store_hash": "c" * 64, "num_train": 33} if number == 3 else {}))
    return folder


def test_sweep_whose_jobs_saw_other_images_is_refused(changed):
    outcome = report(f"sweep={changed}")
    assert outcome.code == 1
    name = "model.activation-{}_seed-{}"
    assert outcome.err == (
        f"error: {changed / name.format('tanh', 1)} has other images than {changed / name.format('relu', 0)}: "
        "33 train, 4 val, 4 test images, store cccccccccccc, split bbbbbbbbbbbb; "
        "not 32 train, 4 val, 4 test images, store aaaaaaaaaaaa, split bbbbbbbbbbbb; "
        "leave such results out, train them again, or continue with other_images=true\n"
    )
    assert not (changed / "report.html").exists()


def test_sweep_on_other_images_is_compared_on_request(changed):
    outcome = report(f"sweep={changed}", "other_images=true")
    assert outcome.code == 0
    assert outcome.err.startswith(f"warning: {changed / 'model.activation-tanh_seed-1'} has other images than")
    assert "4 of 4 runs completed" in outcome.err


def test_runs_on_other_images_are_refused(tmp_path):
    record(make_run(tmp_path / "a"))
    record(make_run(tmp_path / "b", seed=1), store_hash="c" * 64)
    record(make_run(tmp_path / "c", seed=2), store_hash="d" * 64)
    words = (f"runs={tmp_path}/?", f"out={tmp_path / 'out'}")
    outcome = report(*words)
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "store cccccccccccc" in outcome.err
    assert "(and 1 more); leave such results out" in outcome.err
    assert not (tmp_path / "out").exists()
    assert report(*words, "other_images=true").code == 0


def test_other_data_configs_are_compared_on_purpose():
    one = Result("one", FOLDER, IMAGES)
    other_split = Result("two", FOLDER | {"val_seed": 1}, IMAGES | {"split_hash": "c"})
    other_size = Result("three", FOLDER | {"stored_size": 32}, IMAGES | {"store_hash": "d"})
    assert on_other_images([one, other_split, other_size]) == {}
    for aside in ({"dir": "elsewhere"}, {"batch_size": 16}, {"normalization": "unit"}):
        assert list(on_other_images([one, Result("four", FOLDER | aside, IMAGES | {"store_hash": "d"})])) == ["four"]


FILES = IMAGES | {"files_hash": "f" * 64}


@pytest.mark.parametrize(
    ("config", "record", "odd"),
    [
        ({}, {"files_hash": "g"}, False),  # the same pixels in other files: edited metadata
        ({"val_seed": 1}, {"split_hash": "c"}, False),
        ({"val_seed": 1}, {"split_hash": "c", "store_hash": "d"}, True),
        ({"test_fraction": 0.2}, {"num_test": 8, "store_hash": "d"}, True),
        ({"stored_size": 32}, {"store_hash": "d"}, False),
        ({"stored_size": 32, "channels": 1, "val_seed": 2}, {"store_hash": "d", "files_hash": "g"}, True),
        ({"root": "others"}, {"store_hash": "d", "files_hash": "g"}, False),
    ],
)
def test_configs_that_split_or_store_the_same_images_otherwise(config, record, odd):
    results = [Result("one", FOLDER, FILES), Result("two", FOLDER | config, FILES | record)]
    assert list(on_other_images(results)) == (["two"] if odd else [])
    third = Result("three", FOLDER | config, FILES | record)  # of the odd ones all are named, not only the first
    assert list(on_other_images([*results, third])) == (["two", "three"] if odd else [])


def test_result_without_a_record_hides_no_difference():
    """A failed run, or one of an earlier version, comes first."""
    results = [
        Result("failed", FOLDER, {}),
        Result("old", FOLDER, {"store_hash": "a" * 64}),
        Result("one", FOLDER, IMAGES),
        Result("two", FOLDER, IMAGES | {"split_hash": "c"}),
        Result("three", FOLDER, {"store_hash": "d"}),
    ]
    assert list(on_other_images(results)) == ["two", "three"]


def test_run_counts_once_whatever_its_path(tmp_path):
    run = make_run(tmp_path / "run")
    (tmp_path / "link").symlink_to(run)
    outcome = report(f"runs=[{run},{run}/,{tmp_path / 'link'},{tmp_path}/*]", f"out={tmp_path / 'out'}")
    assert outcome.code == 0
    assert "1 of 1 run completed" in outcome.err


def finish(run: Path) -> Path:
    """Seals a run, with the hashes of its files, as training does."""
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    RunDirectory(run).write_result(json.loads((run / "result.json").read_text()))
    return run


def test_copied_run_counts_once(tmp_path):
    run = finish(make_run(tmp_path / "one"))
    shutil.copytree(run, tmp_path / "two")
    outcome = report(f"runs={tmp_path}/*", f"out={tmp_path / 'out'}")
    assert outcome.code == 0
    assert f"warning: {tmp_path / 'two'} is a copy of {run} and is left out" in outcome.err
    assert "1 of 1 run completed" in outcome.err


@pytest.mark.parametrize("name", ["metrics.csv", "config.yaml"])
@pytest.mark.parametrize("how", ["changed", "removed"])
def test_damaged_file_of_a_finished_run_is_not_drawn(name, how, tmp_path):
    run = finish(make_run(tmp_path / "run"))
    path = run / name
    path.unlink() if how == "removed" else path.write_text(path.read_text().replace("0", "1", 1))
    outcome = report(f"runs=[{run},{make_run(tmp_path / 'whole')}]", f"out={tmp_path / 'out'}")
    assert "1 of 2 runs completed, 1 unreadable" in outcome.err
    page = (tmp_path / "out" / "report.html").read_text()
    reasons = (f"{name} is not the file that the run wrote", f"{name} cannot be read", f"it has no {name}")
    assert any(reason in page for reason in reasons)
