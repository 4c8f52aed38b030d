"""A run is evaluated on the images that it was trained on, or not at all unless the user asks for it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import QUICK, Outcome, call, evaluated
from evaluating import another_run, run_eval
from pictures import make_pictures, words_of, write_image

from alexnet_lab.data.identity import difference
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.run import train

if TYPE_CHECKING:
    from conftest import Compose


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images in two classes, without a test set. Do not change it; copy it."""
    return make_pictures(tmp_path_factory.mktemp("pictures") / "root")


@pytest.fixture
def root(pictures: Path, tmp_path: Path) -> Path:
    """A copy of the images, to be changed."""
    return Path(shutil.copytree(pictures, tmp_path / "pictures"))


def train_on(root: Path, run: Path, compose: Compose, *words: str) -> Path:
    """A finished run on the images."""
    train(compose(*words_of(root), f"run_dir={run}", *words))
    return run


def error_of(outcome: Outcome, code: int = 1) -> str:
    """The one line that a refusal prints."""
    assert outcome.code == code, outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert outcome.err.endswith(f"{lines[0]}\n")
    return lines[0]


def add_image(root: Path) -> None:
    write_image(root / "train" / "light" / "more.bmp", bright=True)


def remove_image(root: Path) -> None:
    (root / "train" / "light" / "03.bmp").unlink()


def add_test_set(root: Path) -> None:
    for name in ("dark", "light"):
        write_image(root / "val" / name / "00.bmp", bright=name == "light")


def edit_image(root: Path) -> None:
    """In place: the size and the time of the file stay."""
    path = root / "train" / "light" / "03.bmp"
    before = path.stat()
    write_image(path, bright=True)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap_images(root: Path) -> None:
    """Between the classes: the set of files, sizes and times stays."""
    one, other, spare = root / "train" / "light" / "03.bmp", root / "train" / "dark" / "03.bmp", root / "spare"
    one.rename(spare)
    other.rename(one)
    spare.rename(other)


CHANGES = {
    edit_image: "(32 train, 4 val, 4 test images, store .*; now 32 train, 4 val, 4 test images, store ",
    swap_images: "(32 train, 4 val, 4 test images, store .*; now 32 train, 4 val, 4 test images, store ",
    add_image: "(32 train, 4 val, 4 test images, store .*; now 33 train, 4 val, 4 test images, store ",
    remove_image: "(32 train, 4 val, 4 test images, store .*; now 31 train, 4 val, 4 test images, store ",
    add_test_set: "(32 train, 4 val, 4 test images, store .*; now 36 train, 4 val, 2 test images, store ",
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.items())
def test_changed_folder_is_refused(change, expected, root, tmp_path, compose):
    run = train_on(root, tmp_path / "run", compose)
    own = json.loads((run / "result.json").read_text())["metrics"]
    assert evaluated(f"run={run}").code == 0
    before = (run / "eval" / "test_center.json").read_bytes()
    change(root)
    line = error_of(evaluated(f"run={run}"))
    assert f"error: run {run} was trained on other images than its data set contains now " in line
    counts, _, now = expected.partition(".*")
    assert counts in line
    assert now in line
    assert line.endswith("or continue with other_images=true")
    error_of(evaluated(f"run={run}", "figures=training_error"))
    error_of(evaluated(f"run={run}", "views=center", f"data.root={root / 'train'}"))
    outcome = evaluated(f"run={run}", "other_images=true")
    assert outcome.code == 0
    assert f"warning: run {run} was trained on other images" in outcome.err
    found = json.loads((run / "eval" / "test_center_other_images.json").read_text())
    assert counts.lstrip("(") in found["other_images"]["run"]
    assert (run / "eval" / "test_center.json").read_bytes() == before
    assert json.loads(before)["other_images"] is None
    assert json.loads(before)["metrics"] == {name: own[name] for name in own if name.startswith("test/")}


def test_finished_run_stays_finished_where_it_cannot_be_trained_further(root, tmp_path, compose):
    run = train_on(root, tmp_path / "run", compose)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    add_image(root)
    outcome = call(train, "train", *QUICK, f"resume={run}", "trainer.max_epochs=2")
    line = error_of(outcome)
    assert f"the images of the data set are not those that run {run} was trained on (32 train, " in line
    assert line.endswith("or continue with resume_force=true")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_folder_that_is_as_before_again_is_accepted(root, tmp_path, compose):
    run = train_on(root, tmp_path / "run", compose)
    add_image(root)
    error_of(evaluated(f"run={run}"))
    (root / "train" / "light" / "more.bmp").unlink()
    assert evaluated(f"run={run}").code == 0


@pytest.mark.parametrize("figure", ["mistakes", "training_error", "augmentation"])
def test_figures_are_of_the_runs_own_images(figure, root, tmp_path, compose):
    run = train_on(root, tmp_path / "run", compose)
    add_image(root)
    error_of(evaluated(f"run={run}", f"figures={figure}"))
    assert not (run / "eval" / "figures").exists()


@pytest.mark.parametrize("how", ["changed", "removed"])
def test_damaged_metrics_are_not_drawn(how, run):
    path = run / "metrics.csv"
    path.unlink() if how == "removed" else path.write_text(path.read_text().replace("0.", "0.9", 1))
    line = error_of(evaluated(f"run={run}", "figures=training_error"))
    assert (
        "metrics.csv is not the file that the run wrote" in line or "metrics.csv cannot be read: No such file" in line
    )


def test_ensemble_checks_each_run(root, tmp_path, compose):
    one = train_on(root, tmp_path / "one", compose)
    add_image(root)
    two = train_on(root, tmp_path / "two", compose, "seed=1")
    line = error_of(evaluated(f"run=[{two},{one}]"))
    assert f"run {one} was trained on other images" in line


def test_ensemble_of_other_images_is_refused_and_of_another_size_is_not(root, tmp_path, compose):
    """Two folders with the same classes and counts; and one folder, stored in two sizes."""
    one = train_on(root, tmp_path / "one", compose)
    large = train_on(root, tmp_path / "large", compose, "data.stored_size=16", "seed=1")
    assert evaluated(f"run=[{one},{large}]").code == 0
    other_root = Path(shutil.copytree(root, tmp_path / "elsewhere" / "pictures"))
    edit_image(other_root)
    for number in range(20):
        write_image(other_root / "train" / "dark" / f"{number:02}.bmp", bright=False)
    other = train_on(other_root, tmp_path / "other", compose, "seed=1")
    other_large = train_on(other_root, tmp_path / "other_large", compose, "data.stored_size=16", "seed=2")
    for pair in ((one, other), (one, other_large)):
        line = error_of(evaluated("run=[{},{}]".format(*pair)))
        assert f"those of {pair[0].name} and {pair[1].name} differ (4 test images, images " in line
        assert "; and 4 test images, images " in line
        assert evaluated("run=[{},{}]".format(*pair), "other_images=true").code == 0


@pytest.mark.parametrize("how", ["slash", "dot", "link", "copy"])
def test_ensemble_of_a_run_with_itself_is_refused(how, run, tmp_path):
    other = {"slash": f"{run}/", "dot": f"{run.parent}/./{run.name}"}.get(how, str(tmp_path / "other"))
    if how == "link":
        (tmp_path / "other").symlink_to(run)
    elif how == "copy":
        shutil.copytree(run, other)
    line = error_of(evaluated(f"run=[{run},{other}]"), code=2)
    assert f"`run` names the same run twice, as {run} and {other}; an ensemble needs different runs" in line


@pytest.mark.parametrize("of_sweep", [False, True])
def test_runs_of_one_name_have_a_difference_each(of_sweep, run, tmp_path, monkeypatch):
    other = another_run(run, tmp_path / "more" / "run")
    if of_sweep:
        (tmp_path / "more" / "sweep.json").write_text("{}")
    monkeypatch.setattr(FinishedRun, "difference", property(lambda one: f"of {one.path}"))
    names = ["run", "more/run"] if of_sweep else [str(run), str(other)]
    found = run_eval([str(run), str(other)])["other_images"]
    assert found == dict(zip(names, [f"of {run}", f"of {other}"], strict=True))
    assert run_eval(run)["other_images"] == {"run": f"of {run}"}


def test_records_of_earlier_versions_are_compared_as_far_as_they_go():
    record = {"store_hash": "a" * 64, "split_hash": "b" * 64, "num_train": 3, "num_val": 1, "num_test": 1}
    assert difference({}, record) is None
    assert difference({"store_hash": "a" * 64}, record) is None
    assert difference({"store_hash": None}, record) is None
    assert difference({"store_hash": "c" * 64}, record) == "store cccccccccccc; now store aaaaaaaaaaaa"
    assert difference(record | {"split_hash": "d"}, record) == (
        "3 train, 1 val, 1 test images, store aaaaaaaaaaaa, split d; "
        "now 3 train, 1 val, 1 test images, store aaaaaaaaaaaa, split bbbbbbbbbbbb"
    )


def test_ensemble_of_a_run_and_its_repetition_is_refused(root, tmp_path, compose):
    one, two = (train_on(root, tmp_path / name, compose, "logger=csv") for name in ("one", "two"))
    line = error_of(evaluated(f"run=[{one},{two}]"), code=2)
    assert f"`run` names networks of the same weights twice, as {one} and {two}; an ensemble needs different" in line


def test_ensembles_of_runs_of_the_same_names_have_files_of_their_own(root, tmp_path, compose):
    one = train_on(root, tmp_path / "a" / "seed-0", compose)
    for place, seed in (("a", 1), ("b", 2), ("a", 1)):
        other = tmp_path / place / "seed-1"
        other = other if other.exists() else train_on(root, other, compose, f"seed={seed}")
        assert evaluated(f"run=[{one},{other}]").code == 0
    files = sorted((one / "eval").glob("ensemble_of_2_*_center*.json"))
    assert [path.stem.rpartition("_")[2] for path in files] == ["center", "2"]
    assert len({tuple(json.loads(path.read_text())["checkpoints"]) for path in files}) == 2
