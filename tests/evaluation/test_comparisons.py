"""What eval.py compares, through its command: numbers by plain loops, several runs by a pattern, and where they go."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from commands import REPOSITORY, evaluated
from evaluating import seal
from scipy import stats

from alexnet_lab.config import check_evaluate
from alexnet_lab.evaluation import evaluate
from alexnet_lab.evaluation.comparisons import paired, tower_comparisons
from alexnet_lab.evaluation.gallery import Search
from alexnet_lab.evaluation.kernels import Kernels
from alexnet_lab.run import train
from alexnet_lab.run.run_directory import RunDirectory

if TYPE_CHECKING:
    from conftest import Compose

Rows = list[dict[str, Any]]

FIELDS = {
    "metric", "compared", "over", "n", "mean", "base", "difference", "ci95_low", "ci95_high", "p", "method",
    "speaks_of", "runs", "store_hash", "commit", "dirty", "command",
}  # fmt: skip


def shaken(run: Path, copy: Path, seed: int) -> Path:
    """A copy of a finished run as if trained from another seed: its weights are a little different."""
    shutil.copytree(run, copy)
    directory = RunDirectory(copy)
    checkpoint = torch.load(directory.best, weights_only=True)
    for name, weight in checkpoint["state_dict"].items():
        if weight.is_floating_point():
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
            checkpoint["state_dict"][name] = weight + 0.5 * weight.std(correction=0) * noise
    torch.save(checkpoint, directory.best)
    directory.write_config(directory.read_config() | {"seed": seed})
    seal(copy)
    return copy


@pytest.fixture(scope="module")
def trained(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt something, so that networks agree on some images and not on others."""
    path = tmp_path_factory.mktemp("trained") / "run"
    train(compose(f"run_dir={path}", "trainer.max_epochs=3", "trainer.limit_val_batches=2"))
    return path


@pytest.fixture(scope="module")
def shared(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep's directory with three runs of one level, evaluated. Do not change it; copy it."""
    folder = tmp_path_factory.mktemp("sweeps") / "ideas"
    for seed in range(3):
        shaken(trained, folder / f"base_seed-{seed}", seed)
    (folder / "sweep.json").write_text("{}")
    (folder / "base_summary.csv").touch()
    return folder


@pytest.fixture
def sweep(shared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared, tmp_path / "ideas"))


def written(path: Path) -> Rows:
    return json.loads(path.read_text())["comparisons"]


def the(rows: Rows, **fields: Any) -> dict[str, Any]:
    """The one row with these fields."""
    (row,) = (row for row in rows if all(row[name] == value for name, value in fields.items()))
    return row


def wrong(run: Path, name: str) -> np.ndarray:
    """Which images a run gets wrong, by the predictions that it keeps."""
    with np.load(run / "eval" / "predictions" / f"{name}.npz") as kept:
        return kept["logits"].argmax(1) != kept["labels"]


def test_views_against_one_in_one_run(sweep):
    run = sweep / "base_seed-0"
    outcome = evaluated(f"run={run}", "views=nine")
    assert outcome.code == evaluated(f"run={run}").code == 0
    one, centre = wrong(run, "test_nine"), wrong(run, "test_center")
    rows = written(run / "eval" / "test_nine.json")
    row = the(rows, metric="test/top1_error")
    worse, better = int((one & ~centre).sum()), int((centre & ~one).sum())
    assert worse + better > 0
    assert (row["mean"], row["base"]) == (pytest.approx(one.mean()), pytest.approx(centre.mean()))
    assert row["difference"] == pytest.approx((worse - better) / 359)
    assert row["p"] == pytest.approx(stats.binomtest(worse, worse + better).pvalue)
    assert row["ci95_low"] < row["difference"] < row["ci95_high"]
    assert set(row) == FIELDS
    assert (row["compared"], row["over"], row["n"]) == ("views=nine - views=center", "images", 359)
    assert (row["method"], row["runs"]) == ("McNemar exact, Bonett-Price interval", ["ideas/base_seed-0"])
    assert row["store_hash"] == json.loads((run / "result.json").read_text())["store_hash"]
    assert the(rows, metric="test/top5_error")["n"] == 359
    assert f"{100 * row['difference']:+.2f}" in outcome.out
    assert f"{100 * row['ci95_low']:+.2f} to {100 * row['ci95_high']:+.2f}" in outcome.out


def test_views_and_average_of_several_runs(sweep):
    """Over images and over runs, which speak of different things; and the average of all against a single one."""
    assert evaluated(f"run={sweep}/base_seed-*").code == 0
    outcome = evaluated(f"run={sweep}/base_seed-*", "views=nine")
    assert outcome.code == 0
    runs = [sweep / f"base_seed-{seed}" for seed in range(3)]
    one, centre = (np.stack([wrong(run, f"test_{views}") for run in runs]) for views in ("nine", "center"))
    rows = written(runs[0] / "eval" / "ensemble_of_3_test_nine.json")
    names = [f"ideas/base_seed-{seed}" for seed in range(3)]
    by_image, by_run = (
        the(rows, metric="test/top1_error", compared="views=nine - views=center", over=over, runs=names)
        for over in ("images", "runs")
    )
    expected = stats.ttest_rel(one.mean(1), centre.mean(1))
    assert [by_run["difference"], by_image["difference"]] == pytest.approx([one.mean() - centre.mean()] * 2)
    assert by_run["p"] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (by_run["ci95_low"], by_run["ci95_high"]) == pytest.approx((interval.low, interval.high))
    assert (by_run["n"], by_run["method"]) == (3, "Student t over 3 runs")
    assert (by_image["n"], by_image["method"]) == (359, "paired bootstrap, 10,000")
    assert by_run["speaks_of"] == "other seeds, on these images"
    assert by_image["speaks_of"] == "other images, with these networks"
    for run, name, ours, theirs in zip(runs, names, one, centre, strict=True):
        alone = the(rows, metric="test/top1_error", runs=[name])
        assert alone["difference"] == pytest.approx(ours.mean() - theirs.mean()), run
    for line in (
        "Student t over 3 runs: covers other seeds, on these images",
        "paired bootstrap, 10,000: covers other images, with these networks",
    ):
        assert line in outcome.out
    check_average(the(rows, metric="test/top1_error", compared="average of the runs - mean single run"), one, runs)


def check_average(row: dict[str, Any], single: np.ndarray, runs: list[Path]) -> None:
    """The average of all runs against a single one, by resampling images one by one."""
    kept = [np.load(run / "eval" / "predictions" / "test_nine.npz") for run in runs]
    logits, labels = torch.tensor(np.stack([each["logits"] for each in kept])), kept[0]["labels"]
    joint = logits.softmax(2).mean(0).argmax(1).numpy() != labels
    gaps = joint - single.mean(0)
    rng = np.random.default_rng(0)
    means = [gaps[rng.integers(0, 359, 359)].mean() for _ in range(4000)]
    assert (row["over"], row["n"], row["method"]) == ("images", 359, "paired bootstrap, 10,000")
    assert (row["mean"], row["base"]) == (pytest.approx(joint.mean()), pytest.approx(single.mean()))
    assert row["difference"] == pytest.approx(gaps.mean())
    assert (row["ci95_low"], row["ci95_high"]) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.003)


def test_differences_that_are_all_equal_have_no_interval_over_runs():
    one = np.tile(np.array([True, False, False, False]), (3, 1))
    rows = paired("m", "a - b", ["x", "y", "z"], one, np.zeros((3, 4), dtype=bool))
    assert (rows[1].over, rows[1].effect[:4]) == ("runs", (0.25, None, None, None))


def test_retrieval_of_several_runs(sweep):
    outcome = evaluated(
        f"run={sweep}/base_seed-*", "figures=[retrieval,codes]", f"out={sweep}/evaluations", "name=found"
    )
    assert outcome.code == 0
    found = json.loads((sweep / "evaluations" / "found.json").read_text())
    assert sorted(found["figures"]) == sorted(
        f"figures/found/{name}.{kind}" for name in ("retrieval", "codes") for kind in ("png", "svg")
    )
    assert all((sweep / "evaluations" / figure).is_file() for figure in found["figures"])
    rows = [row for row in found["comparisons"] if row["metric"] == "precision_at_10" and len(row["runs"]) == 3]
    by_run = {row["compared"]: row for row in rows if row["over"] == "runs"}
    ways = ("features", "codes", "pixels")
    assert set(by_run) == {f"{way} - chance" for way in ways} | {
        "features - pixels", "features - codes", "codes - pixels",
    }  # fmt: skip
    assert len(rows) == 2 * len(by_run)  # over queries too
    codes = found["codes"]
    assert codes["chance"] == pytest.approx(0.1, abs=0.005)
    for way in ways:
        assert by_run[f"{way} - chance"]["mean"] == pytest.approx(codes[f"precision_by_{way}"]["10"])
        assert by_run[f"{way} - chance"]["base"] == pytest.approx(codes["chance"])
    assert by_run["pixels - chance"]["ci95_low"] is None  # each run sees the same pixels
    gaps = [the(found["comparisons"], compared="features - codes", runs=[f"ideas/base_seed-{seed}"])["difference"]
            for seed in range(3)]  # fmt: skip
    half = stats.t.ppf(0.975, 2) * np.std(gaps, ddof=1) / 3**0.5
    row = by_run["features - codes"]
    assert (row["difference"], row["ci95_high"]) == pytest.approx((np.mean(gaps), np.mean(gaps) + half))


def test_retrieval_of_training_images_leaves_the_queries_out(trained, tmp_path):
    """Each image would find itself first; and no class gains by the order in which images are stored."""
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    found = {}
    for split in ("train", "test"):
        assert evaluated(f"run={run}", f"split={split}", "figures=retrieval").code == 0
        found[split] = json.loads((run / "eval" / f"{split}_center.json").read_text())["retrieval"]
    images = found["test"]["gallery"]
    assert found["train"]["queries"] + found["train"]["gallery"] == images
    assert found["train"]["precision_by_pixels"]["1"] < 1
    assert found["test"]["queries"] == 359


def test_retrieval_is_alike_for_all_runs_and_ways(towers):
    """The same queries and gallery for each run; and equal distances favour no class, though the store is sorted."""
    words = {"run": f"{towers}/two_seed-*", "num_threads": 1}
    subject = evaluate.predicted(check_evaluate(words))
    one, other = Search(subject), Search(subject, 1)
    assert torch.equal(one.queries, other.queries)
    assert torch.equal(one.gallery, other.gallery)
    assert one.gallery.sort().values.tolist() == list(range(len(one.train.labels)))
    one.train, one.predictions = (
        seen._replace(features=torch.zeros_like(seen.features)) for seen in (one.train, one.predictions)
    )
    for found in (one.by_features, one.by_codes):
        assert 0.1 < one.gallery_labels[found.neighbours.indices[:, :20]].double().mean() < 0.9


@pytest.fixture(scope="module")
def towers(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two untrained AlexNets with two towers and one with a single one, on noise in colour."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("towers")
    rng = np.random.default_rng(0)
    for number in range(120):
        path = folder / "root" / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    words = ("data=image_folder", f"data.root={folder / 'root'}", f"data.dir={folder / 'data'}", "data.stored_size=32",
             "data.image_size=32", "model=alexnet", "model.width=0.125", "augment=none", "trainer.max_epochs=1",
             "trainer.precision=32-true")  # fmt: skip
    for seed in range(2):
        train(compose(f"run_dir={folder}/two_seed-{seed}", f"seed={seed}", *words))
    train(compose(f"run_dir={folder}/one_seed-0", "model.towers=1", *words))
    return folder


def test_towers_over_all_runs(towers, tmp_path):
    outcome = evaluated(f"run={towers}/two_seed-*", "figures=kernels", f"out={tmp_path}", "name=kernels")
    assert outcome.code == 0, outcome.err
    found = json.loads((tmp_path / "kernels.json").read_text())
    means = np.array(found["colour_saturation"])
    rows = [row for row in found["comparisons"] if row["metric"] == "colour_saturation"]
    assert [row["runs"] for row in rows] == [["two_seed-0", "two_seed-1"], ["two_seed-0"], ["two_seed-1"]]
    gaps = np.abs(means[:, 0] - means[:, 1])
    assert [row["mean"] for row in rows] == pytest.approx([gaps.mean(), *gaps])
    assert all(row["base"] > 0.01 and row["difference"] == pytest.approx(row["mean"] - row["base"]) for row in rows)
    assert [(row["over"], row["n"]) for row in rows] == [("runs", 2), ("kernels", 12), ("kernels", 12)]
    method = "permutation within runs, 10,000"
    assert [row["method"] for row in rows] == [f"{method}; interval: Student t over 2 runs", method, method]
    assert all(0.01 < row["p"] <= 1 for row in rows)
    half = stats.t.ppf(0.975, 1) * abs(rows[1]["difference"] - rows[2]["difference"]) / 2
    assert rows[0]["ci95_high"] - rows[0]["difference"] == pytest.approx(half)
    assert rows[1]["ci95_low"] is None
    assert "distance of the towers - by chance" in " ".join(outcome.out.split())
    assert (tmp_path / "figures" / "kernels" / "kernels.svg").is_file()


def test_one_tower_cannot_be_tested(towers):
    outcome = evaluated(f"run={towers}/one_seed-0", "figures=kernels")
    assert outcome.code == 0
    assert outcome.err.count("no test of the towers' colour: ") == 1
    assert "one_seed-0 has one tower" in outcome.err
    assert written(towers / "one_seed-0" / "eval" / "test_center.json") == []
    outcome = evaluated(f"run={towers}/*_seed-*", "figures=kernels")
    assert outcome.code == 2
    assert "figures=kernels of several runs compares two towers that see colour, but" in outcome.err
    assert "one_seed-0 has one tower; give one run" in outcome.err


def test_towers_that_differ_in_each_run():
    """In one run the first tower is the colour one, in the other the second."""
    rng = np.random.default_rng(0)
    grey = rng.standard_normal((12, 1, 5, 5)).astype(np.float32).repeat(3, axis=1)
    colour = rng.standard_normal((12, 3, 5, 5)).astype(np.float32)
    together, *each = tower_comparisons(["a", "b"], [Kernels([grey, colour]), Kernels([colour, grey])])
    assert together.mean == pytest.approx(2 / 3, abs=0.05)
    assert together.base < 0.2
    assert together.effect.p == pytest.approx(1 / 10_001)
    assert [row.mean for row in each] == pytest.approx([together.mean] * 2)


def test_runs_that_differ_in_more_than_the_seed_are_reported(sweep):
    path = sweep / "base_seed-1" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["optimizer"]["lr" if "lr" in config["optimizer"] else "learning_rate"] = 0.5
    path.write_text(yaml.safe_dump(config))
    seal(sweep / "base_seed-1")
    outcome = evaluated(f"run={sweep}/base_seed-*")
    assert outcome.code == 0
    warning = "the runs differ in more than the seed: `optimizer.l"
    assert outcome.err.count(warning) == 1
    assert warning not in evaluated(f"run=[{sweep}/base_seed-0,{sweep}/base_seed-2]").err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("run={0}/none_*", 1, "no runs found by run={0}/none_*; a run is a directory with a config.yaml"),
        ("run={0}", 1, "is a sweep; eval.py takes runs, such as those of one level: \"run='{0}/LEVEL_seed-*'\""),
        ("run=[{0}/base_seed-*,{0}/base_seed-1]", 2, "`run` names the same run twice, as {0}/base_seed-1 and"),
        ("run=[{0}/base_*,{0}/base_seed-?]", 2, "`run` names the same run twice, as {0}/base_seed-0 and"),
    ],
)
def test_patterns_that_are_refused(words, code, message, sweep):
    outcome = evaluated(words.format(sweep))
    assert (outcome.code, outcome.err.count("\n")) == (code, 1)
    assert message.format(sweep) in outcome.err
    assert not list(sweep.glob("*/eval"))


def test_an_unfinished_run_of_a_pattern_is_refused(sweep):
    """Seeds that are left out in silence would make the interval another one."""
    (sweep / "base_seed-1" / "result.json").unlink()
    outcome = evaluated(f"run={sweep}/base_seed-*")
    assert outcome.code == 1
    assert f"run {sweep}/base_seed-1 is unfinished" in outcome.err


def test_another_folder_takes_the_evaluation(sweep, tmp_path):
    out = tmp_path / "results" / "evaluations"
    for _ in range(2):  # the same evaluation again overwrites its file
        assert evaluated(f"run={sweep}/base_seed-*", f"out={out}", "name=average").code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "average.json", "average_classes.csv", "average_confusion.csv",
    ]  # fmt: skip
    assert not list((sweep / "base_seed-0" / "eval").glob("*.json"))
    assert evaluated(f"run={sweep}/base_seed-[01]", f"out={out}", "name=two").code == 0
    assert json.loads((out / "two.json").read_text())["runs"] == ["base_seed-0", "base_seed-1"]
    assert evaluated(f"run={sweep}/base_seed-0", f"out={out}").code == 0
    assert (out / "base_seed-0_test_center.json").is_file()


def test_the_table_of_claims_reads_the_evaluation(sweep, tmp_path):
    out = tmp_path / "evaluations"
    assert evaluated(f"run={sweep}/base_seed-*", "views=nine", f"out={out}", "name=nine").code == 0
    claims = runpy.run_path(str(REPOSITORY / "tools" / "claims.py"))
    ours = claims["Ours"](
        evaluation="nine", metric="test/top1_error", compared="views=nine - views=center", over="runs"
    )
    found = claims["_of_evaluation"](ours, "nine", claims["Place"](what="views", command="x"), tmp_path)
    row = the(written(out / "nine.json"), metric="test/top1_error", over="runs")
    assert found.difference.startswith(f"{100 * row['difference']:+.2f} (")
    assert found.difference.endswith(", Student t over 3 runs")
    assert (found.n, found.what) == ("3 runs", "[views](evaluations/nine.json)")


def test_no_other_evaluation_in_the_folder_is_overwritten(sweep, tmp_path):
    """Runs of two sweeps have the same names, and other weights."""
    other = tmp_path / "elsewhere" / "ideas"
    for seed in range(3):
        shaken(sweep / f"base_seed-{seed}", other / f"base_seed-{seed}", 10 + seed)
    assert evaluated(f"run={sweep}/base_*", f"out={tmp_path}/out", "name=average").code == 0
    before = (tmp_path / "out" / "average.json").read_bytes()
    outcome = evaluated(f"run={other}/base_*", f"out={tmp_path}/out", "name=average")
    assert outcome.code == 2
    assert "that file contains another evaluation (checkpoints: " in outcome.err
    assert (tmp_path / "out" / "average.json").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "content"),
    [("mine.json", "[1, 2]"), ("mine.json", "{"), ("mine.json", '{"a": 1}'), ("mine_classes.csv", "x,y")],
)
def test_no_foreign_file_in_the_folder_is_overwritten(file, content, sweep, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / file).write_text(content)
    outcome = evaluated(f"run={sweep}/base_seed-0", f"out={tmp_path}/out", "name=mine")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "choose another name" in outcome.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [file]
    assert (tmp_path / "out" / file).read_text() == content


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("{0}/file", "the evaluation cannot go to {0}/file: "),
        ("{0}/file/deeper", "the evaluation cannot go to {0}/file/deeper: Not a directory; choose another folder"),
        ("{0}/new/ten.json", "a file; allowed: a folder, with `name` for the file in it: out={0}/new name=ten"),
    ],
)  # fmt: skip
def test_places_that_are_no_folder(out, message, sweep, tmp_path):
    (tmp_path / "file").touch()
    outcome = evaluated(f"run={sweep}/base_seed-0", f"out={out.format(tmp_path)}")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert message.format(tmp_path) in outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "ideas"]
    assert not (sweep / "base_seed-0" / "eval").exists()
