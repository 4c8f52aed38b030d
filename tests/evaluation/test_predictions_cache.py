"""Predictions on disk: made once, and again when anything that decides on them has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluating import seal

from alexnet_lab.base.errors import RunError
from alexnet_lab.evaluation import cache, predict
from alexnet_lab.evaluation.cache import key_of, predict_once, read_predictions, write_predictions
from alexnet_lab.evaluation.loaded_run import FinishedRun


@pytest.fixture
def passes(monkeypatch) -> list[str]:
    """Fills with a word for each time a network looks at images."""
    seen: list[str] = []
    plain = predict.predict

    def counted(run, split, **fields):
        seen.append(f"{split} {fields['views']}")
        return plain(run, split, **fields)

    monkeypatch.setattr(cache, "predict", counted)
    return seen


def finished(run: Path) -> FinishedRun:
    return FinishedRun(str(run), num_threads=1)


def test_second_time_is_read_from_disk(run, passes):
    first, second = predict_once(finished(run), "test"), predict_once(finished(run), "test")
    assert passes == ["test center"]
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_numpy_reads_the_file(run):
    found = predict_once(finished(run), "val")
    with np.load(run / "eval" / "predictions" / "val_center.npz") as archive:
        assert archive["logits"].shape == (len(found.labels), 10)
        assert archive["features"].shape == (len(found.labels), 84)
        assert np.array_equal(archive["indices"], finished(run).data.split.val)
        assert json.loads(str(archive["meta"]))["class_names"] == list("0123456789")


def test_other_weights_are_seen(run, passes):
    before = predict_once(finished(run), "test")
    path = run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["net.classifier.output.bias"] += 1.0
    torch.save(checkpoint, path)
    seal(run)
    after = predict_once(finished(run), "test")
    assert passes == ["test center"] * 2
    assert torch.allclose(after.logits, before.logits + 1.0, atol=1e-5)


def test_each_split_and_view_has_its_own_file(run, passes):
    for split in ("test", "val", "train"):
        predict_once(finished(run), split)
    predict_once(finished(run), "test", views="nine")
    assert len(passes) == len(list((run / "eval" / "predictions").iterdir())) == 4


def test_training_images_are_shown_plain_and_in_order(run):
    live = finished(run)
    found = predict_once(live, "train")
    assert np.array_equal(found.indices, live.data.split.train)
    again = predict_once(live, "test")
    assert np.array_equal(again.indices, live.data.split.test)


def test_guests_are_not_taken_for_the_test_set_that_lies_on_a_gpu(run, monkeypatch):
    data = finished(run).data
    monkeypatch.setattr(data, "_gpu", lambda: torch.device("cpu"))
    data._resident["test"] = data._resident["train"] = torch.zeros(1)
    guests = data.rows("train")
    assert data.tested_on(guests).plain_loader("test").rows is guests


@pytest.mark.parametrize("how", ["cut", "emptied", "text", "flipped", "other"])
def test_damaged_file_is_made_again(how, run, passes):
    first = predict_once(finished(run), "test")
    path = run / "eval" / "predictions" / "test_center.npz"
    content = path.read_bytes()
    middle = len(content) // 2
    changed = {
        "cut": content[:middle],
        "emptied": b"",
        "text": b"nothing",
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
    }
    if how == "other":
        np.savez(path, x=np.zeros(3))
    else:
        path.write_bytes(changed[how])
    assert torch.equal(predict_once(finished(run), "test").logits, first.logits)
    assert len(passes) == 2
    assert torch.equal(predict_once(finished(run), "test").logits, first.logits)
    assert len(passes) == 2


def test_nothing_half_written_stays(run, monkeypatch):
    live = finished(run)
    found = predict.predict(live, "test")

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    path = run / "eval" / "predictions" / "test_center.npz"
    with pytest.raises(RunError, match=r"cannot write .*test_center\.npz \(No space left on device\)"):
        write_predictions(path, {}, found)
    assert list(path.parent.iterdir()) == []


def test_key_changes_with_what_decides(run):
    live = finished(run)
    key = key_of(live, "test", "center", None)
    assert key_of(live, "val", "center", None) != key
    assert key_of(live, "test", "ten", None) != key
    live.settings = live.settings.with_trainer(precision="bf16-mixed")
    assert key_of(live, "test", "center", None) != key


def test_no_file_is_no_prediction(tmp_path):
    assert read_predictions(tmp_path / "x.npz", {}) is None


def test_evaluation_takes_all_images_whatever_training_took(digits_run, tmp_path):
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("limit_test_batches: 1.0", "limit_test_batches: 2"))
    seal(run)
    assert len(predict.predict(finished(run), "test").labels) == 359
