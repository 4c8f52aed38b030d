"""sweep.json and the ledger: written whole, read back, and what makes two sweeps differ."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alexnet_lab.base.errors import RunError
from alexnet_lab.config.default_paths import default_sweep_dir, folder_name, is_outward, job_name
from alexnet_lab.sweeps.definition import Definition, Job, describe, identity, named
from alexnet_lab.sweeps.merging import agreed, differences, extended
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

CHOICES = {"model": "lenet5", "data": "digits", "sweep": None}
ABOUT = {"name": "lrn", "factor": ["model.norm"], "base": ["lrn"], "metric": "test/top1_error", "claim": None}


def definition(*seeds: int, epochs: int = 3) -> Definition:
    jobs = [
        Job(f"model.norm-{norm}_seed-{seed}", (f"model.norm={norm}", f"seed={seed}"),
            {"model.norm": norm, "seed": seed, "trainer.max_epochs": epochs, "model.dropout": True})
        for norm in ("lrn", "none") for seed in seeds
    ]  # fmt: skip
    return Definition(ABOUT, "python train.py -m ...", ("data=cifar10",), tuple(jobs))


def test_definition_is_read_back_as_it_was(tmp_path):
    sweep = SweepDirectory(tmp_path)
    assert sweep.read() is None
    sweep.write(definition(0, 1))
    assert sweep.read() == definition(0, 1)


def test_definition_with_a_path_that_is_no_text_is_read_back_as_it_was(tmp_path):
    path = "caf\udce9"
    asked = replace(definition(0, 1), command=f"train.py -m hydra.sweep.dir={path}", overrides=(f"data.dir={path}",))
    agreed_on = agreed(Path(path), None, asked, ABOUT | {"name": None, "tuned": None, "extend": False}, ())
    sweep = SweepDirectory(tmp_path)
    sweep.write(agreed_on)
    assert sweep.read() == agreed_on
    assert agreed_on.about["name"] == r"caf\udce9"


def test_sweep_json_says_what_is_common_once(tmp_path):
    content = definition(0, 1).to_json()
    assert content["config"] == {"trainer.max_epochs": 3, "model.dropout": True}
    assert content["jobs"][1] == {
        "job": "model.norm-lrn_seed-1", "run_dir": "model.norm-lrn_seed-1",
        "overrides": ["model.norm=lrn", "seed=1"], "config": {"model.norm": "lrn", "seed": 1},
    }  # fmt: skip
    assert (content["version"], content["factor"], content["overrides"]) == (1, ["model.norm"], ["data=cifar10"])


def test_damaged_definition_is_reported(tmp_path):
    (tmp_path / "sweep.json").write_text('{"version": 1}')
    with pytest.raises(RunError, match=r"sweep.json cannot be read: `jobs` is missing"):
        SweepDirectory(tmp_path).read()


def test_differences_name_keys_and_jobs_once():
    assert differences(definition(0, 1), definition(0, 1)) == []
    assert differences(definition(0, 1), definition(0, 1, epochs=5)) == ["trainer.max_epochs was 3, is 5"]
    assert differences(definition(0, 1), definition(1, 2)) == [
        "no longer asked for: model.norm-lrn_seed-0, model.norm-none_seed-0",
        "new: model.norm-lrn_seed-2, model.norm-none_seed-2",
    ]
    many = differences(definition(0), definition(0, 1, 2, 3, 4))
    assert many == ["new: model.norm-lrn_seed-1, model.norm-lrn_seed-2, model.norm-lrn_seed-3 and 5 more"]


def test_extended_sweep_keeps_its_jobs_in_front():
    names = [job.name for job in extended(definition(0), definition(1)).jobs]
    assert names == [f"model.norm-{norm}_seed-{seed}" for seed in (0, 1) for norm in ("lrn", "none")]


def test_true_is_not_one():
    assert differences(definition(0), _replaced(True)) == []
    assert differences(definition(0), _replaced(1)) == ["model.dropout was True, is 1"]


def _replaced(value: Any) -> Definition:
    jobs = [Job(job.name, job.overrides, job.config | {"model.dropout": value}) for job in definition(0).jobs]
    return Definition(ABOUT, "", (), tuple(jobs))


def test_identity_leaves_out_where_and_how():
    config = {
        "seed": 1, "run_dir": "x", "resume": None, "overrides": ["a=1"], "tags": [], "experiment": None,
        "model": {"norm": "lrn"}, "data": {"dir": "/big", "batch_size": 8}, "logger": {"project": "p"},
        "launcher": {"retries": 2}, "sweep": {"name": "lrn"}, "trainer": {"progress_bar": True, "max_epochs": 3},
        "augment": None,
    }  # fmt: skip
    assert identity(config) == {
        "seed": 1, "model.norm": "lrn", "data.batch_size": 8, "trainer.max_epochs": 3, "augment": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("node", "factor", "base"),
    [
        ({"factor": None, "base": None}, ["model.norm", "model.pool"], []),
        ({"factor": "model.norm", "base": "lrn"}, ["model.norm"], ["lrn"]),
        ({"factor": ["a", "b"], "base": [1, True]}, ["a", "b"], [1, True]),
    ],
)
def test_factors_and_bases_are_lists(node, factor, base):
    about = describe(node | {"dry_run": True, "extend": False, "dir": "x"}, ["model.norm", "model.pool", "seed"])
    assert about == {"factor": factor, "base": base, "tuned": []}


def test_a_tuned_key_is_no_factor():
    about = describe({"factor": None, "base": None, "tuned": "optimizer.learning_rate"},
                     ["model.norm", "optimizer.learning_rate", "seed"])  # fmt: skip
    assert about == {"factor": ["model.norm"], "base": [], "tuned": ["optimizer.learning_rate"]}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["seed=0", "model.norm=lrn"], "model.norm-lrn_seed-0"),
        (["+model.extra=[1,2]", "augment=none"], "augment-none_model.extra-1-2-"),
        (["data.root='/a b/c'"], "data.root-a-b-c-"),
        (["optimizer.learning_rate=1e+18"], "optimizer.learning_rate-1e+18"),
        ([], "job"),
    ],
)
def test_job_name(words, name):
    assert job_name(words) == name


@pytest.mark.parametrize(("text", "length"), [("x" * 300, 120), ("é" * 300, 120), ("画" * 80, 93), ("画" * 110, 94)])
def test_long_names_are_cut_and_stay_different(text, length):
    names = {job_name([f"tags=[{text}]", f"seed={seed}"]) for seed in range(3)}
    assert len(names) == 3
    assert {len(name) for name in names} == {length}
    assert max(len(name.encode()) for name in names) <= 255
    assert len(default_sweep_dir(CHOICES | {"sweep": text}, []).rpartition("/")[2].encode()) <= 255


def test_names_that_would_be_alike_get_a_hash_and_doubles_go():
    names = [name for name, _ in named([["a='x/y'"], ["a='x y'"], ["a='x y'"], ["a=z"]])]
    assert names[2] == "a-z"
    assert len(names) == len(set(names)) == 3
    assert all(name.startswith("a-x-y--") for name in names[:2])


def test_same_words_same_place():
    place = default_sweep_dir(CHOICES, ["model.norm=lrn,none", "seed=0,1", "model=alexnet", "logger=csv"])
    assert place.startswith("logs/sweeps/norm_alexnet_digits_")
    again = ["model=alexnet", "launcher=joblib", "seed=0,1", "sweep.dry_run=true", "model.norm=lrn,none"]
    assert default_sweep_dir(CHOICES, again) == place
    assert default_sweep_dir(CHOICES, [*again, "trainer.max_epochs=3"]) != place
    variants = [default_sweep_dir(CHOICES, [f"sweep.variants={{a:{{}},b:{{model.norm:{norm}}}}}"]) for norm in "xy"]
    assert variants[0] != variants[1]


def test_place_of_a_named_sweep():
    place = default_sweep_dir(CHOICES | {"sweep": "lrn"}, ["model=alexnet,caffenet", "seed=range(0,5)"])
    assert place == "logs/sweeps/lrn_alexnet-caffenet_digits"
    assert default_sweep_dir(CHOICES, ["seed=range(0,2)"]).startswith("logs/sweeps/seeds_lenet5_digits_")


def test_outward_keys():
    outward = ("run_dir", "launcher", "sweep", "sweep.dry_run", "logger", "hydra/launcher", "data.dir", "data.verify")
    outward += ("callbacks.cuda_graphs", "callbacks.cuda_graphs._target_")
    assert all(is_outward(key) for key in outward)
    assert not any(is_outward(key) for key in ("data", "data.root", "seed", "model.norm", "launchers"))


def test_folder_name():
    assert (folder_name("logs/sweeps/lrn/"), folder_name(None)) == ("lrn", None)


def entry(job: str, status: str = "completed") -> dict[str, Any]:
    return {"job": job, "status": status, "metrics": {"test/loss": float("nan")}}


def test_ledger_keeps_every_line_and_the_last_counts(tmp_path):
    sweep = SweepDirectory(tmp_path)
    assert sweep.entries() == []
    for line in (entry("a", "failed"), entry("b"), entry("a")):
        sweep.append(line)
    assert [(line["job"], line["status"]) for line in sweep.entries()] == [
        ("a", "failed"), ("b", "completed"), ("a", "completed"),
    ]  # fmt: skip
    assert sweep.latest()["a"]["status"] == "completed"
    line = json.loads(sweep.ledger.read_text().splitlines()[0])
    assert (line["version"], line["metrics"], line["ended"][-6:]) == (1, {"test/loss": None}, "+00:00")


def test_line_that_a_killed_process_left_half_harms_no_other(tmp_path):
    sweep = SweepDirectory(tmp_path)
    sweep.append(entry("a"))
    with sweep.ledger.open("a") as file:
        file.write('{"job": "b", "sta')
    assert list(sweep.latest()) == ["a"]
    sweep.append(entry("c"))
    assert list(sweep.latest()) == ["a", "c"]


def test_lines_of_several_writers_do_not_mix(tmp_path):
    def write(number: int) -> None:
        for turn in range(20):
            SweepDirectory(tmp_path).append(entry(f"{number}-{turn}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(SweepDirectory(tmp_path).latest()) == 80


def test_second_sweep_in_one_directory_is_refused(tmp_path):
    place = tmp_path / "sweep"
    second = SweepDirectory(place).claimed()
    with SweepDirectory(place).claimed(), pytest.raises(RunError, match=r"another process runs the sweep "), second:
        pass
    assert not place.exists()  # nothing was written


def test_place_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be written: "), SweepDirectory(tmp_path / "file" / "sweep").claimed():
        pass
