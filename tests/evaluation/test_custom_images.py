"""eval.py data.root=FOLDER: a user's own images, with classes and without."""

from __future__ import annotations

import csv
import json
import shutil
import unicodedata
from typing import TYPE_CHECKING

import numpy as np
import pytest
from evaluating import run_eval
from PIL import Image

from alexnet_lab.base.errors import DataError
from alexnet_lab.data.source_files import SourceFiles
from alexnet_lab.evaluation.custom_images import find_images
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.evaluation.predict import predict

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = list("0123456789")


@pytest.fixture(scope="module")
def test_images(digits_run):
    """The run's own test images (359, 1, 8, 8), their labels, and what it makes of them."""
    live = FinishedRun(str(digits_run), num_threads=1)
    rows = live.data.rows("test")
    return rows.images[rows.indices], rows.labels[rows.indices], predict(live, "test")


def lay(root: Path, images: np.ndarray, labels: np.ndarray | None) -> Path:
    """Writes images as PNG files, into class folders if there are labels."""
    for number, image in enumerate(images):
        folder = root if labels is None else root / str(labels[number])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(folder / f"{number:03}.png")
    return root


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_own_copies_of_the_test_images_give_the_runs_errors(run, test_images, tmp_path):
    images, labels, plain = test_images
    found = run_eval(run, data={"root": str(lay(tmp_path / "mine", images, labels))})
    assert found["metrics"] == pytest.approx(plain.metrics, rel=1e-5)
    assert found["images"] == 359
    assert (found["split"], found["data_root"]) == ("own", str(tmp_path / "mine"))
    assert json.loads((run / "eval" / "own_mine_center.json").read_text()) == found
    rows = {row["file"]: row for row in rows_of(run / "eval" / "own_mine_center_images.csv")}
    for number, guess in enumerate(plain.logits.argmax(1).tolist()):
        row = rows[f"{labels[number]}/{number:03}.png"]
        assert (row["true class"], row["class 1"]) == (str(labels[number]), str(guess))
        assert float(row["probability 1"]) == pytest.approx(float(plain.probabilities[number, guess]), abs=6e-5)


def test_the_files_are_hashed_once(run, test_images, tmp_path, monkeypatch):
    read: list[str] = []
    monkeypatch.setattr(SourceFiles, "read", lambda self, rows, title: read.append(title))
    run_eval(run, data={"root": str(lay(tmp_path / "mine", test_images[0][:5], None))})
    assert read == ["reading"]


def test_images_without_folders_are_predicted_only(run, test_images, tmp_path, capsys):
    images, _, plain = test_images
    found = run_eval(run, data={"root": str(lay(tmp_path / "mine", images[:30], None))})
    assert found["metrics"] == {}
    assert "confusion" not in found
    out = capsys.readouterr().out
    assert "predictions only" in out
    assert "the first 20 of 30" in out
    rows = rows_of(run / "eval" / "own_mine_center_images.csv")
    assert [row["class 1"] for row in rows] == [str(guess) for guess in plain.logits.argmax(1).tolist()[:30]]
    assert {row["true class"] for row in rows} == {""}


def test_some_classes_suffice(run, test_images, tmp_path):
    images, labels, _ = test_images
    chosen = np.isin(labels, (3, 7))
    found = run_eval(run, data={"root": str(lay(tmp_path / "mine", images[chosen], labels[chosen]))}, views="nine")
    counts = [row["images"] for row in found["classes"]]
    assert counts == [int((labels == index).sum()) if index in {3, 7} else 0 for index in range(10)]
    assert found["classes"][0]["error"] is None
    assert (run / "eval" / "own_mine_nine.json").is_file()


def test_images_beside_the_class_folders_are_named(run, test_images, tmp_path, capsys):
    images, labels, _ = test_images
    root = lay(tmp_path / "mine", images[:9], labels[:9])
    Image.fromarray(images[10][0]).save(root / "loose.png")
    assert run_eval(run, data={"root": str(root)})["images"] == 9
    assert f"{root}: images beside the class folders are left out: 1, such as loose.png" in capsys.readouterr().err


def test_umlauts_of_macos_are_those_of_the_run(tmp_path):
    name = "h\u00fcte"
    (tmp_path / unicodedata.normalize("NFD", name)).mkdir()
    (tmp_path / unicodedata.normalize("NFD", name) / "a.png").touch()
    assert find_images(str(tmp_path), ["\u00c4pfel", name]).labels == [1]


def test_predictions_are_kept_until_a_file_changes(run, test_images, tmp_path):
    images, labels, _ = test_images
    root = lay(tmp_path / "mine", images[:20], labels[:20])
    path = run / "eval" / "predictions" / "own_mine_center.npz"
    run_eval(run, data={"root": str(root)})
    before = path.stat().st_mtime_ns
    run_eval(run, data={"root": str(root)})
    assert path.stat().st_mtime_ns == before
    Image.fromarray(images[30][0]).save(root / str(labels[0]) / "more.png")
    assert run_eval(run, data={"root": str(root)})["images"] == 21


def test_unreadable_file_is_named_or_left_out(run, test_images, tmp_path):
    images, labels, _ = test_images
    root = lay(tmp_path / "mine", images[:9], labels[:9])
    (root / str(labels[0]) / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=rf"cannot read {labels[0]}/broken\.png: .*set data\.skip_unreadable=true"):
        run_eval(run, data={"root": str(root)})
    found = run_eval(run, data={"root": str(root), "skip_unreadable": True})
    assert found["images"] == 9
    files = [row["file"] for row in rows_of(run / "eval" / "own_mine_center_images.csv")]
    assert len(files) == 9
    assert not any("broken" in name for name in files)


def test_names_with_colons_are_distinguished(run, test_images, tmp_path):
    images, labels, _ = test_images
    root = lay(tmp_path / "mine", images[:2], labels[:2])
    folder = root / str(labels[0])
    shutil.copy(next(folder.iterdir()), folder / "x.png")
    (folder / "x.png: 1.png").write_bytes(b"no image")
    assert run_eval(run, data={"root": str(root), "skip_unreadable": True})["images"] == 3
    files = [row["file"] for row in rows_of(run / "eval" / "own_mine_center_images.csv")]
    assert sum(name.endswith("/x.png") for name in files) == 1
    assert not any(name.endswith("1.png") and "x.png: " in name for name in files)


def test_classes_may_be_called_by_their_other_name(tmp_path):
    (tmp_path / "n01440764").mkdir()
    (tmp_path / "n01440764" / "a.png").touch()
    found = find_images(str(tmp_path), ["tench", "springer"], {"n01440764": "tench"})
    assert found.labels == [0]


def test_litter_is_no_image(tmp_path):
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "a.PNG", "b.jpeg"):
        (tmp_path / name).touch()
    assert find_images(str(tmp_path), CLASSES).names == ["a.PNG", "b.jpeg"]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["33"], r"has a folder `33`, which is no class of the run \(did you mean `3`\?\)"),
        (["dog"], r"has a folder `dog`, which is no class of the run \(allowed: 0, 1, 2.*rename or move it"),
        (["train", "val"], r"has a folder `train`: name the folder to evaluate: data\.root=.*train"),
        (["3"], "the class folders in .* are empty"),
        ([], r"contains no images \(.*\.jpg.*\) and no class folders"),
    ],
)
def test_folder_that_does_not_fit(folders, message, tmp_path):
    for name in folders:
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=message):
        find_images(str(tmp_path), CLASSES)


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere: set `data.root` to a folder of images"):
        find_images(str(tmp_path / "nowhere"), CLASSES)
