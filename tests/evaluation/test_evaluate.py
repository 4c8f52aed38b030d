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
from commands import evaluated
from evaluating import run_eval, seal

from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.config import check_evaluate
from alexnet_lab.evaluation import evaluate as evaluation
from alexnet_lab.evaluation import predict as predict_module
from alexnet_lab.evaluation import printout
from alexnet_lab.evaluation.error_rates import class_errors
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.evaluation.predict import Predictions, predict
from alexnet_lab.run.run_directory import RunDirectory


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def own_metrics(run: Path, stage: str) -> dict[str, float]:
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    return {name: value for name, value in metrics.items() if name.startswith(stage)}


@pytest.mark.parametrize("split", ["test", "val"])
def test_metrics_are_the_runs_own_to_the_bit(run, split, capsys):
    found = run_eval(run, split=split)
    assert found["metrics"] == own_metrics(run, split)
    assert json.loads((run / "eval" / f"{split}_center.json").read_text()) == found
    words = capsys.readouterr().out.split()
    assert words[words.index(f"{split}/top1_error") + 1] == f"{found['metrics'][f'{split}/top1_error']:.2%}"


def test_confusion_matrix_counts_each_image_once(run):
    found = run_eval(run)
    matrix = np.array(found["confusion"])
    assert found["images"] == matrix.sum() == 359
    labels = predict(FinishedRun(str(run), num_threads=1), "test").labels.numpy()
    assert matrix.sum(1).tolist() == np.bincount(labels, minlength=10).tolist()
    assert 1 - np.trace(matrix) / matrix.sum() == pytest.approx(found["metrics"]["test/top1_error"], rel=1e-6)


def test_file_says_what_was_evaluated(run):
    found = run_eval(run, name="mine")
    assert (run / "eval" / "mine.json").is_file()
    assert (found["run"], found["checkpoint"], found["split"], found["views"], found["version"]) == (
        "run", "checkpoints/best.ckpt", "test", "center", 1,
    )  # fmt: skip
    assert found["class_names"] == list("0123456789")


def test_nothing_is_written_outside_eval(run):
    before = files(run)
    run_eval(run)
    names = ("test_center.json", "test_center_classes.csv", "test_center_confusion.csv", "predictions/test_center.npz")
    assert files(run) - before == {run / "eval" / name for name in names}


def test_data_may_lie_elsewhere(run, digits_dir, tmp_path):
    moved = Path(shutil.copytree(digits_dir, tmp_path / "moved"))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["dir"] = "/nowhere"
    RunDirectory(run).write_config(config)
    seal(run)
    found = evaluation.evaluate(check_evaluate({"run": str(run), "data": {"dir": str(moved)}, "num_threads": 1}))
    assert found["metrics"] == own_metrics(run, "test")


def no_predictions(names: list[str]) -> Predictions:
    nothing = torch.empty(0)
    return Predictions(nothing, nothing, nothing, nothing, [], names, {}, {})


def shown(matrix: Any, names: list[str], path: Path = Path("x.json")) -> None:
    """Prints the evaluation that a confusion matrix makes."""
    rows = [row._asdict() for row in class_errors(np.asarray(matrix).tolist(), names)]
    numbers = {"metrics": {}, "images": 1, "confusion": matrix, "classes": rows, "class_names": names}
    printout.show(numbers, no_predictions(names), path)


def test_many_classes_print_their_most_frequent_confusions(capsys):
    count = 30
    confused = np.zeros((count, count), dtype=int)
    confused[3, 4], confused[5, 6], confused[7, 7] = 9, 11, 1000
    shown(confused.tolist(), [f"class{index}" for index in range(count)])
    confusions = capsys.readouterr().out.partition("most frequent confusions")[2]
    assert confusions.index("class5") < confusions.index("class3")
    assert "class7" not in confusions


def test_names_with_brackets_are_shown_as_they_are(capsys):
    shown([[1, 1], [0, 1]], ["[/b]", "[red]"], Path("[bold].json"))
    out = capsys.readouterr().out
    assert "[/b]" in out
    assert "[red]" in out
    assert "[bold].json" in out


LONG = "a name of a class that is far longer than any terminal would ever be wide, and that goes on and on"


@pytest.mark.parametrize("digits", [1, 3, 5])
@pytest.mark.parametrize("names", [list("abcdefghij"), [f"{index} {LONG}" for index in range(10)]])
def test_matrix_keeps_names_and_numbers_whole_in_80_columns(names, digits):
    matrix = (10 ** (digits - 1) + np.arange(100).reshape(10, 10) % 9).tolist()
    lines = printout.matrix_lines(matrix, names, 80)
    assert lines is not None
    text = [line.plain for line in lines]
    assert max(map(len, text)) <= 80
    assert all(f" {value}" in "\n".join(text) for row in matrix for value in row)
    rows, at_hand = iter(text[2:]), "".join(line[2:] for line in text[2:])
    letters = [character for character in "".join(names) if character.isalpha()]
    assert [character for character in at_hand if character.isalpha()] == letters
    assert [int(value) for value in next(rows).rsplit(maxsplit=10)[1:]] == matrix[0]


def test_digits_are_not_named_twice():
    lines = printout.matrix_lines([[2, 1], [0, 3]], ["0", "1"], 80)
    assert [line.plain for line in lines or ()][1:] == ["   0 1", "0  2 1", "1  . 3"]


def test_matrix_that_does_not_fit_is_left_to_the_file():
    assert printout.matrix_lines(np.full((20, 20), 1000).tolist(), ["name"] * 20, 80) is None


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
def test_bad_checkpoint_is_reported_in_one_line_and_never_run(how, message, run, tmp_path):
    replace(run / "checkpoints" / "best.ckpt", how, tmp_path / "trap")
    before = files(run)
    outcome = evaluated(f"run={run}")
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
        (None, "is unfinished; eval.py takes finished runs; resume it: python train.py resume="),
        ("interrupted", "ended as interrupted; eval.py takes finished runs"),
        ("failed", "ended as failed; eval.py takes finished runs"),
    ],
)
def test_unfinished_run(status, message, run):
    path = run / "result.json"
    path.unlink() if status is None else path.write_text(json.dumps({"status": status, "metrics": {}}))
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
    outcome = evaluated(f"run={folder}")
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
    with pytest.raises(ConfigError, match=r"`_target_: os\.system` is outside the trusted packages"):
        run_eval(run)
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(("views", "number", "centre"), [("ten", 5, 2), ("nine", 9, 4)])  # digits are not mirrored
def test_views_give_the_mean_of_single_views(run, views, number, centre, monkeypatch):
    seen: list[Predictions] = []
    single = predict_module._one_view

    def remembered(*arguments: Any, **fields: Any) -> Predictions:
        seen.append(prediction := single(*arguments, **fields))
        return prediction

    monkeypatch.setattr(predict_module, "_one_view", remembered)
    found = run_eval(run, views=views)
    assert len(seen) == number
    plain = predict(FinishedRun(str(run), num_threads=1), "test")
    mean = torch.stack([each.logits.softmax(1) for each in seen[:number]]).mean(0)
    assert found["metrics"]["test/top1_error"] == pytest.approx((mean.argmax(1) != plain.labels).double().mean().item())
    assert found["center_metrics"] == plain.metrics == seen[centre].metrics
    assert torch.equal(seen[centre].logits, plain.logits)
    assert torch.equal(seen[centre].features, plain.features)
    assert json.loads((run / "eval" / f"test_{views}.json").read_text())["num_views"] == [number]


@pytest.mark.parametrize(
    ("views", "counts", "note"),
    [
        ("center", [1], ""),
        ("ten", [5], ", 5 views of each (views=ten; trained without mirroring, so none is mirrored)"),
        ("ten", [10, 5], ", 10 and 5 views of each (views=ten)"),
        ("nine", [9], ", 9 views of each (views=nine)"),
    ],
)
def test_number_of_views_is_printed(views, counts, note):
    assert printout.views_note({"views": views, "num_views": counts}) == note


def test_gain_of_views_is_printed():
    after, before = {"test/loss": 1.0, "test/top1_error": 0.18}, {"test/loss": 1.0, "test/top1_error": 0.1925}
    assert list(printout.gains(after, before, "X")) == ["test/top1_error  1.25 points below X (19.25%)"]
    assert list(printout.gains(before, after, "X")) == ["test/top1_error  1.25 points above X (18.00%)"]


def test_views_average_probabilities_not_logits(run, monkeypatch):
    logits = torch.tensor([[[4.0, 0, -9]], [[0, 1.5, 0]], [[0, 1.5, 0]]])  # docs/fidelity.md, 32
    each, label = iter([*logits] * 3), torch.zeros(1).long()
    monkeypatch.setattr(
        predict_module, "_one_view",
        lambda *_, **__: Predictions(next(each), torch.empty(0), label, label, [], list("abc"), {}, {}),
    )  # fmt: skip
    found = predict(FinishedRun(str(run), num_threads=1), "test", views="nine").probabilities[0]
    assert found.tolist() == pytest.approx([0.4302, 0.4670, 0.1029], abs=5e-5)
    assert found.argmax() == 1
    assert logits.mean(0)[0].tolist() == pytest.approx([1.333, 1, -3], abs=5e-4)


def test_features_are_what_the_last_layer_sees(run):
    finished = FinishedRun(str(run), num_threads=1)
    found = predict(finished, "test")
    output = finished.classifier.get_submodule("net.classifier.output")
    assert found.features.shape == (359, 84)
    assert torch.allclose(output(found.features), found.logits, atol=1e-5)


def test_logits_of_probability_nought_are_finite():
    assert predict_module.log_of(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([-87.3365, 0.0], abs=1e-3)


@pytest.mark.parametrize("name", ["../result", "a/b", "/tmp/x", "..", ".hidden", "a\\b", "a\tb", "x" * 300])
def test_names_that_are_paths_are_refused(name):
    with pytest.raises(ConfigError, match=r"`name` is .* allowed: a name without folders"):
        check_evaluate({"run": "logs/runs/a", "name": name})
