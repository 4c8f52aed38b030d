"""eval.py: the run's own numbers again, from its directory alone; and what a damaged or foreign run gets."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import call

from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.config import check_evaluate
from alexnet_lab.evaluation import evaluate as evaluation
from alexnet_lab.evaluation import predict as predict_module
from alexnet_lab.evaluation.predict import finished_run, mean_probabilities, predict
from alexnet_lab.run.directory import RunDirectory


def run_eval(run: Path, *words: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"run": str(run), "num_threads": 1} | dict(word.split("=") for word in words)
    return evaluation.evaluate(check_evaluate(fields))


@pytest.fixture
def run(digits_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be evaluated or damaged."""
    return Path(shutil.copytree(digits_run, tmp_path / "run"))


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def own_metrics(run: Path, stage: str) -> dict[str, float]:
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    return {name: value for name, value in metrics.items() if name.startswith(stage)}


@pytest.mark.parametrize("split", ["test", "val"])
def test_metrics_are_the_runs_own_to_the_bit(run, split, capsys):
    found = run_eval(run, f"split={split}")
    assert found["metrics"] == own_metrics(run, split)
    assert json.loads((run / "eval" / f"{split}_center.json").read_text()) == found
    words = capsys.readouterr().out.split()
    assert words[words.index(f"{split}/top1_error") + 1] == f"{found['metrics'][f'{split}/top1_error']:.2%}"


def test_confusion_matrix_counts_each_image_once(run):
    found = run_eval(run)
    matrix = np.array(found["confusion"])
    assert found["images"] == matrix.sum() == 359
    directory, config = finished_run(str(run))
    labels = predict(directory, config, "test", num_threads=1).labels.numpy()
    assert matrix.sum(1).tolist() == np.bincount(labels, minlength=10).tolist()
    assert 1 - np.trace(matrix) / matrix.sum() == pytest.approx(found["metrics"]["test/top1_error"], rel=1e-6)


def test_confusion_has_true_classes_in_its_rows():
    logits = torch.eye(3)[torch.tensor([2, 0, 1, 1])]
    labels = torch.tensor([0, 0, 1, 2])
    predictions = evaluation.Predictions(logits, labels, labels, ["a", "b", "c"], {})
    assert evaluation.confusion(predictions) == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]


def test_file_says_what_was_evaluated(run):
    found = run_eval(run, "name=mine")
    assert (run / "eval" / "mine.json").is_file()
    assert (found["run"], found["checkpoint"], found["split"], found["views"], found["version"]) == (
        "run", "checkpoints/best.ckpt", "test", "center", 1,
    )  # fmt: skip
    assert found["class_names"] == list("0123456789")


def test_nothing_else_is_written(run):
    before = files(run)
    run_eval(run)
    assert files(run) - before == {run / "eval" / "test_center.json"}


def test_data_may_lie_elsewhere(run, digits_dir, tmp_path):
    moved = Path(shutil.copytree(digits_dir, tmp_path / "moved"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["dir"] = "/nowhere"
    directory = RunDirectory(run)
    directory.write_config(config)
    directory.write_result(directory.read_result() or {})  # so that the config is that of the run
    found = evaluation.evaluate(check_evaluate({"run": str(run), "data": {"dir": str(moved)}, "num_threads": 1}))
    assert found["metrics"] == own_metrics(run, "test")


def test_many_classes_are_told_by_their_most_frequent_confusions(capsys, tmp_path):
    count = evaluation.WIDEST_MATRIX + 1
    confused = np.zeros((count, count), dtype=int)
    confused[3, 4], confused[5, 6], confused[7, 7] = 9, 11, 100
    shown = {
        "metrics": {"test/loss": 1.25}, "images": 120, "confusion": confused.tolist(),
        "class_names": [f"class{index}" for index in range(count)],
    }  # fmt: skip
    evaluation.show(shown, tmp_path / "x.json")
    out = capsys.readouterr().out
    assert out.index("class5") < out.index("class3")
    assert "class7" not in out


def test_names_with_brackets_are_shown_as_they_are(capsys, tmp_path):
    shown = {"metrics": {}, "images": 3, "confusion": [[1, 1], [0, 1]], "class_names": ["[/b]", "[red]"]}
    evaluation.show(shown, tmp_path / "[bold].json")
    out = capsys.readouterr().out
    assert "[/b]" in out
    assert "[red]" in out
    assert "[bold].json" in out


def test_a_matrix_of_many_classes_keeps_its_digits(capsys, tmp_path):
    count = evaluation.WIDEST_MATRIX
    matrix = (1000 + np.arange(count * count).reshape(count, count)).tolist()
    names = [f"name{index:02}" for index in range(count)]
    evaluation.show({"metrics": {}, "images": 1, "confusion": matrix, "class_names": names}, tmp_path / "x.json")
    out = capsys.readouterr().out
    assert all(str(value) in out for row in matrix for value in row)


class Bomb:
    """What a hostile checkpoint holds: loading it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def replace(checkpoint: Path, how: str, trap: Path) -> None:
    """Makes a checkpoint one that cannot be used."""
    content = checkpoint.read_bytes()
    if how == "missing":
        checkpoint.unlink()
    elif how == "empty":
        checkpoint.write_bytes(b"")
    elif how in ("cut_early", "cut_late"):
        checkpoint.write_bytes(content[: 100 if how == "cut_early" else len(content) * 9 // 10])
    elif how == "pickle":
        checkpoint.write_bytes(pickle.dumps({"state_dict": Bomb(trap)}))
    elif how == "torch_pickle":
        torch.save({"state_dict": Bomb(trap)}, checkpoint)
    elif how == "torch_legacy":
        torch.save({"state_dict": Bomb(trap)}, checkpoint, _use_new_zipfile_serialization=False)
    elif how == "text":
        checkpoint.write_text("no checkpoint")
    elif how == "other_content":
        torch.save([1, 2, 3], checkpoint)
    elif how == "other_network":
        torch.save(torch.load(checkpoint, weights_only=True) | {"state_dict": {"net.x": torch.zeros(1)}}, checkpoint)


DAMAGES = {
    "missing": "there is no checkpoint ",
    "empty": "is damaged or cut short (0 bytes)",
    "cut_early": "is damaged or cut short (100 bytes)",
    "cut_late": "is damaged or cut short",
    "pickle": "is no checkpoint, or would run code when loaded; it is not loaded",
    "torch_pickle": "holds more than tensors, numbers and strings; it is not loaded",
    "torch_legacy": "it is not loaded",
    "text": "is no checkpoint, or would run code when loaded; it is not loaded",
    "other_content": "is no checkpoint of a run",
    "other_network": "does not fit the network of its config",
}


@pytest.mark.parametrize(("how", "message"), DAMAGES.items())
def test_bad_checkpoint_is_told_in_one_line_and_never_run(how, message, run, tmp_path):
    replace(run / "checkpoints" / "best.ckpt", how, tmp_path / "trap")
    before = files(run)
    outcome = call(lambda config: evaluation.evaluate(check_evaluate(config)), "eval", f"run={run}", "num_threads=1")
    assert outcome.code == 1
    assert outcome.out == ""
    assert message in outcome.err
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "trap").exists()
    assert files(run) == before


def test_bombs_would_go_off(tmp_path):
    """So that the test above proves something."""
    for how in ("pickle", "torch_pickle", "torch_legacy"):
        (tmp_path / how).touch()
        replace(tmp_path / how, how, tmp_path / f"{how}.trap")
    pickle.loads((tmp_path / "pickle").read_bytes())
    torch.load(tmp_path / "torch_pickle", weights_only=False)
    torch.load(tmp_path / "torch_legacy", weights_only=False)
    assert all((tmp_path / f"{how}.trap").exists() for how in ("pickle", "torch_pickle", "torch_legacy"))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (None, "is unfinished; eval.py takes finished runs; go on with it: python train.py resume="),
        ("interrupted", "ended as interrupted; eval.py takes finished runs"),
        ("failed", "ended as failed; eval.py takes finished runs"),
    ],
)
def test_unfinished_run(status, message, run):
    path = run / "result.json"
    path.unlink() if status is None else path.write_text(json.dumps({"status": status}))
    with pytest.raises(RunError, match=message):
        run_eval(run)


@pytest.mark.parametrize(
    ("what", "message"),
    [("missing", "there is no run directory"), ("empty", "is no run directory: it has no config.yaml")],
)
def test_no_run(what, message, tmp_path):
    folder = tmp_path / what
    if what == "empty":
        folder.mkdir()
    outcome = call(lambda config: evaluation.evaluate(check_evaluate(config)), "eval", f"run={folder}")
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert files(tmp_path) == set()


def test_config_that_lacks_a_group(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["optimizer"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"config\.yaml: `optimizer` is missing"):
        run_eval(run)


def test_run_cannot_grant_trust_to_itself(run, tmp_path):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"] = {"_target_": "os.system", "command": f"touch {tmp_path / 'trap'}"}
    config["trusted_packages"] = ["os"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"`_target_: os\.system` lies outside the trusted packages"):
        run_eval(run)
    assert not (tmp_path / "trap").exists()


def test_views_average_probabilities_not_logits():
    logits = torch.tensor([[[4.0, 0, -9]], [[0, 1.5, 0]], [[0, 1.5, 0]]])  # docs/fidelity.md, 32
    mean = mean_probabilities(logits)[0]
    assert mean.tolist() == pytest.approx([0.4302, 0.4670, 0.1029], abs=5e-5)
    assert mean.argmax() == 1
    assert logits.mean(0)[0].tolist() == pytest.approx([1.333, 1, -3], abs=5e-4)


@pytest.mark.parametrize(("views", "number"), [("ten", 10), ("nine", 9)])
def test_views_give_the_mean_of_single_views(run, views, number, monkeypatch):
    seen: list[torch.Tensor] = []
    single = predict_module._predict_view

    def remembered(*arguments: Any) -> Any:
        seen.append((prediction := single(*arguments)).logits)
        return prediction

    monkeypatch.setattr(predict_module, "_predict_view", remembered)
    found = run_eval(run, f"views={views}")
    assert len(seen) == number
    labels = predict(*finished_run(str(run)), "test", num_threads=1).labels
    mean = torch.stack([logits.softmax(1) for logits in seen[:number]]).mean(0)
    assert found["metrics"]["test/top1_error"] == pytest.approx((mean.argmax(1) != labels).double().mean().item())
    assert (run / "eval" / f"test_{views}.json").is_file()
