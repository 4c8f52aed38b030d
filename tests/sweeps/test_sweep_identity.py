"""Jobs are known by what they compute: extended, reordered, rewritten and moved sweeps reuse what is there."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
from typing import TYPE_CHECKING

import pytest
from commands import REPOSITORY, call
from filelock import FileLock
from sweeping import planned, swept

from alexnet_lab.base.errors import RunError
from alexnet_lab.config import check_report, check_train
from alexnet_lab.report import make_report
from alexnet_lab.run.run_directory import RunDirectory
from alexnet_lab.sweeps import job_states, preflight
from alexnet_lab.sweeps.columns import columns, literal
from alexnet_lab.sweeps.definition import identity
from alexnet_lab.sweeps.results import update_summary
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from alexnet_lab.sweeps.preflight import Plan

EXTEND = "sweep.extend=true"


def begun(place: Path, *words: str, done: bool = True) -> Plan:
    """A sweep whose jobs have all ended, the error of each being 0.1 (relu) or 0.2, and a hundredth for its seed."""
    plan = planned(*words, f"hydra.sweep.dir={place}")
    plan.sweep.write(plan.definition)
    states = job_states.states(plan.sweep, plan.jobs)
    for job in plan.jobs if done else ():
        if states[job.name] == "done":
            continue
        run = RunDirectory(plan.sweep.path / job.name)
        run.path.mkdir(parents=True)
        run.write_config(plan.configs[job.name].model_dump())
        config = plan.configs[job.name]
        error = (0.1 if config.model.get("activation") == "relu" else 0.2) + config.seed / 100
        result = {"status": "completed", "metrics": {"test/top1_error": error, "val/top1_error": error}}
        run.write_result(result)
        plan.sweep.append(job_states.entry(plan.sweep, job, result, status="completed", error=None))
    return plan


def table(plan: Plan) -> dict[str, tuple[int, float]]:
    """n and mean of each level, as summary.csv has them."""
    update_summary(plan.sweep, plan.definition)
    with plan.sweep.summary_csv.open() as file:
        rows = list(csv.DictReader(file))
    return {f"{row['level']} {row['setting']}".strip(): (int(row["n"]), float(row["mean"])) for row in rows}


def left(plan: Plan) -> list[str]:
    """The jobs that would be started."""
    return [job.name for job, state in zip(plan.jobs, job_states.states(plan.sweep, plan.jobs).values(), strict=True)
            if state != "done"]  # fmt: skip


def test_a_seed_that_is_done_is_neither_trained_again_nor_counted_twice(tmp_path):
    begun(tmp_path / "s", "seed=0")
    plan = planned("seed=0,1", EXTEND, f"hydra.sweep.dir={tmp_path / 's'}")
    assert [job.name for job in plan.definition.jobs] == ["job", "seed-1"]
    assert left(plan) == ["seed-1"]
    assert plan.configs["job"].run_dir == str(tmp_path / "s" / "job")
    assert table(begun(tmp_path / "s", "seed=0,1", EXTEND)) == {"all": (2, pytest.approx(0.105))}


def test_a_factor_is_added_whose_value_was_common_before(tmp_path):
    begun(tmp_path / "s", "model.activation=relu", "seed=0,1")
    plan = begun(tmp_path / "s", "model.activation=relu,tanh", "seed=0,1", EXTEND)
    assert [job.name for job in plan.definition.jobs][:2] == ["seed-0", "seed-1"]
    assert table(plan) == {"relu": (2, pytest.approx(0.105)), "tanh": (2, pytest.approx(0.205))}
    folder = REPOSITORY / "src" / "alexnet_lab" / "report" / "config"
    outcome = call(
        lambda config: make_report(check_report(config)), "report", f"sweep={plan.sweep.path}", configs=folder
    )
    assert outcome.code == 0, outcome.err
    assert "| tanh | 2 | 20.50 |" in (tmp_path / "s" / "summary.md").read_text()


def test_a_factor_whose_values_come_one_by_one(tmp_path):
    begun(tmp_path / "s", "model.activation=relu,tanh", "seed=0,1")
    begun(tmp_path / "s", "model.activation=sigmoid", "seed=0,1", EXTEND)
    plan = planned("model.activation=tanh", "seed=0,1", EXTEND, f"hydra.sweep.dir={tmp_path / 's'}")
    assert left(plan) == []
    plan = begun(tmp_path / "s", "model.activation=tanh", "seed=2", EXTEND)
    assert {level: n for level, (n, _) in table(plan).items()} == {"relu": 2, "tanh": 3, "sigmoid": 2}


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (("model.activation=relu,tanh", "seed=0,1"), ("seed=1,0", "model.activation=tanh,relu")),
        (("model.dropout=0.5,0.0", "model=alexnet", "data=cifar10", "seed=0"),
         ("model.dropout=5e-1,0", "model=alexnet", "data=cifar10", "seed=0")),
        (("seed=0,1",), ("seed=0,1", "model=lenet5", "data=digits", "++trainer.max_epochs=30")),
        (("seed=0,1",), ("seed=range(0,2)", "trainer.num_threads=3", "trainer.devices=2", "logger=csv",
                         "launcher=in_process", "trainer.devices=1", "callbacks.augmentation_preview=false")),
        (("seed=0,0,1",), ("seed=0,1,1",)),
    ],
    ids=["reordered", "rewritten", "a default is given", "how it runs", "twice in a command"],
)  # fmt: skip
def test_the_same_jobs_in_other_words_are_the_same(first, then, tmp_path):
    before = begun(tmp_path / "s", *first)
    plan = planned(*then, f"hydra.sweep.dir={tmp_path / 's'}")
    assert left(plan) == []
    assert {job.name for job in plan.jobs} == {job.name for job in before.jobs}
    assert {job.content for job in plan.jobs} == {job.content for job in before.jobs}


def test_a_job_asked_for_twice_counts_once(tmp_path):
    plan = planned(
        "model=alexnet", "data=cifar10", "model.dropout=0,0.5,5e-1,0.0", "seed=0,0", f"hydra.sweep.dir={tmp_path}"
    )
    assert [values["model.dropout"] for values in columns(plan.definition)] == ["0.0", "0.5"]


def test_another_factor_keeps_the_first_one(tmp_path):
    begun(tmp_path / "s", "model.activation=relu,tanh", "seed=0,1")
    plan = begun(tmp_path / "s", "model.pool=max,average", "seed=0,1", EXTEND)
    assert plan.definition.about["factor"] == ["model.activation", "model.pool"]
    found = {level: n for level, (n, _) in table(plan).items()}
    assert found == {"activation=relu pool=max": 2, "activation=tanh pool=max": 2, "activation=relu pool=average": 2}
    again = begun(tmp_path / "s", "model.activation=relu,tanh", "model.pool=max,average", "seed=0,1,2", EXTEND)
    assert len(again.definition.jobs) == 12
    assert {n for n, _ in table(again).values()} == {3}


def test_single_seeds_are_added_one_by_one(tmp_path):
    plan = begun(tmp_path / "s", "seed=0")
    for seed in (1, 2, 3):
        plan = begun(tmp_path / "s", f"seed={seed}", EXTEND)
    assert len({job.name for job in plan.definition.jobs}) == 4
    assert table(plan) == {"all": (4, pytest.approx(0.115))}


def test_models_are_called_by_the_files_of_their_own_jobs(tmp_path):
    begun(tmp_path / "s", "model=lenet5,lenet5_1998", "seed=0")
    plan = begun(tmp_path / "s", "model=lenet5_1998", "seed=0,1", EXTEND)
    update_summary(plan.sweep, plan.definition)
    expected = "Model: LeNet5 (model=lenet5), LeNet51998 (model=lenet5_1998)\n"
    assert expected in (tmp_path / "s" / "summary.md").read_text()


def test_a_group_is_called_by_its_file(tmp_path):
    begun(tmp_path / "s", "augment=crop", "seed=0,1")
    plan = begun(tmp_path / "s", "augment=crop,none", "seed=0", EXTEND)
    assert {level: n for level, (n, _) in table(plan).items()} == {"crop": 2, "none": 1}


def test_an_interrupted_job_resumes_in_its_folder(tmp_path):
    plan = begun(tmp_path / "s", "seed=0", done=False)
    run = plan.sweep.run(plan.jobs[0])
    run.checkpoints.mkdir(parents=True)
    run.write_config(plan.configs["job"].model_dump())
    run.last.touch()
    extended = planned("seed=0,1", EXTEND, f"hydra.sweep.dir={tmp_path / 's'}")
    assert job_states.states(extended.sweep, extended.jobs) == {"job": "interrupted", "seed-1": "to go"}
    assert f"run_dir='{run.path}'" in extended.words["job"]


def test_a_moved_sweep_is_the_same(tmp_path):
    begun(tmp_path / "s", "model.activation=relu,tanh", "seed=0,1")
    shutil.move(tmp_path / "s", tmp_path / "t")
    plan = planned("model.activation=tanh,relu", "seed=1,0", f"hydra.sweep.dir={tmp_path / 't'}")
    assert left(plan) == []


def test_a_swept_way_to_run_is_compared(tmp_path):
    plan = planned("trainer.num_threads=1,2", "seed=0,1", f"hydra.sweep.dir={tmp_path}")
    assert len(plan.jobs) == 4
    assert plan.definition.about["factor"] == ["trainer.num_threads"]


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (("model.activation=relu", "seed=0,1"), ("model.activation=tanh", "seed=0,1"),
         "model.activation was relu, is tanh"),
        (("seed=0,1",), ("seed=2,3", "trainer.max_epochs=3"), "trainer.max_epochs was 30, is 3"),
        (("model.activation=relu", "seed=0,1"), ("model.activation=tanh,sigmoid", "seed=0,1", "trainer.max_epochs=3"),
         "trainer.max_epochs was 30, is 3"),
        (("augment=crop", "seed=0"), ("model.activation=relu,tanh", "augment=none", "seed=0"), "augment"),
        (("seed=0",), ("model=lenet5_1998,lenet5_seed003", "seed=0"), "job job does not say which one it has"),
        (("data=digits", "model.activation=relu", "seed=0"), ("data=mnist,cifar10", "model.activation=tanh", "seed=0"),
         "model.activation was relu, is tanh"),
        (("model.activation=relu,tanh", "sweep.claim=a"), ("model.activation=relu,sigmoid", "sweep.claim=b"),
         "the existing sweep has another claim: a"),
    ],
)  # fmt: skip
def test_jobs_that_make_no_table_are_refused_before_any_starts(first, then, message, tmp_path):
    begun(tmp_path / "s", *first)
    before = (tmp_path / "s" / "sweep.json").read_text()
    outcome = call(check_train, "train", "-m", *then, EXTEND, f"hydra.sweep.dir={tmp_path / 's'}")
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.endswith("choose another hydra.sweep.dir\n")
    assert (tmp_path / "s" / "sweep.json").read_text() == before


def test_what_a_command_does_not_say_is_kept(tmp_path):
    begun(
        tmp_path / "s",
        "model.activation=relu,tanh",
        "seed=0",
        "sweep.claim=a",
        "sweep.metric=test/loss",
        "sweep.base=tanh",
    )
    about = planned(
        "seed=0,1", "model.activation=tanh,relu", EXTEND, f"hydra.sweep.dir={tmp_path / 's'}"
    ).definition.about
    assert (about["claim"], about["metric"], about["base"]) == ("a", "test/loss", ["tanh"])


def test_a_folder_with_another_run_is_not_taken_for_the_job(tmp_path):
    plan = begun(tmp_path / "s", "seed=0,1")
    plan.sweep.definition.unlink()
    outcome = call(check_train, "train", "-m", "seed=0,1", "trainer.max_epochs=3", f"hydra.sweep.dir={tmp_path / 's'}")
    assert "seed-0 contains another run: trainer.max_epochs was 30, is 3; choose another hydra.sweep.dir" in outcome.err
    assert left(planned("seed=0,1", f"hydra.sweep.dir={tmp_path / 's'}")) == []


def test_a_line_of_the_ledger_about_another_job_does_not_count(tmp_path):
    plan = begun(tmp_path / "s", "seed=0,1")
    for path in (plan.sweep.definition, *(plan.sweep.run(job).path for job in plan.jobs)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    changed = begun(tmp_path / "s", "seed=0,1", "trainer.max_epochs=3", done=False)
    assert update_summary(changed.sweep, changed.definition).counts["to_go"] == 2


DAMAGE = {
    "no JSON": ("result.json", "{"),
    "lacks fields": ("result.json", '{"status": "completed"}'),
    "another checksum": ("result.json", '{"status": "completed", "metrics": {}, "checksum": "0"}'),
    "no YAML": ("config.yaml", "{{"),
    "empty": ("config.yaml", ""),
}


@pytest.mark.parametrize(("file", "content"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_job_that_cannot_be_read_fails_and_stops_no_other(file, content, tmp_path, monkeypatch):
    """It stays as it is; the jobs before and after it count."""
    monkeypatch.chdir(tmp_path)
    words = ("model.activation=relu,tanh", "seed=0,1")
    plan = begun(tmp_path / "s", *words)
    bad = plan.sweep.run(plan.jobs[1]).path
    (bad / file).write_text(content)
    task = runpy.run_path(str(REPOSITORY / "train.py"))["train"]
    outcome = call(task, "train", "-m", *words, f"hydra.sweep.dir={tmp_path / 's'}")
    assert outcome.code == 1
    assert "4 jobs: 3 done, 1 failed, 0 to go" in outcome.err
    assert outcome.err.splitlines()[-1].startswith(
        f"error: 1 of 4 jobs failed: {bad.name}; to try them again, repeat the command: "
    )
    assert f"; repair it, or delete {bad} to train the job again" in outcome.err
    assert "Traceback" not in outcome.err
    assert (bad / file).read_text() == content
    with plan.sweep.summary_csv.open() as found:
        assert [(row["level"], row["n"], row["failed"]) for row in csv.DictReader(found)] == [
            ("relu", "1", "1"), ("tanh", "2", "0"),
        ]  # fmt: skip


def test_a_lock_that_cannot_be_taken_ends_no_sweep(tmp_path, monkeypatch):
    """Somebody's folder by its name; or the job has just removed its own folder, after Ctrl-C at its start."""
    plan = begun(tmp_path / "s", "seed=0,1")
    run = plan.sweep.run(plan.jobs[0])
    (run.path / ".lock").mkdir()
    task = runpy.run_path(str(REPOSITORY / "train.py"))["train"]
    outcome = call(task, "train", "-m", "seed=0,1", f"hydra.sweep.dir={tmp_path / 's'}")
    assert outcome.code == 0, outcome.err

    def removed(path: Path, **_: object) -> FileLock:
        shutil.rmtree(path.parent)
        return FileLock(path, blocking=False)

    (run.path / ".lock").rmdir()
    (run.path / ".lock").touch()
    monkeypatch.setattr("alexnet_lab.run.run_directory.FileLock", removed)
    assert run.in_use() is False


def test_values_are_written_in_one_way():
    assert [literal(value) for value in (5e-1, 1, True, None, "a/b", [1, 2.0])] == [
        "0.5", "1", "true", "null", "a/b", "[1,2.0]",
    ]  # fmt: skip


def test_first_definition_wins_whoever_writes_it(tmp_path):
    plan = planned("seed=0,1", f"hydra.sweep.dir={tmp_path / 's'}")
    other = planned("seed=2,3", f"hydra.sweep.dir={tmp_path / 's'}")
    assert plan.sweep.begin(plan.definition)
    assert not other.sweep.begin(other.definition)
    assert SweepDirectory(tmp_path / "s").read() == plan.definition


def test_place_of_a_sweep_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    plan = planned("seed=0,1", f"hydra.sweep.dir={tmp_path / 's'}")
    with pytest.raises(RunError, match="cannot be written"):
        SweepDirectory(tmp_path / "file" / "s").begin(plan.definition)


def test_default_place_is_free_for_another_sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ("sweep=pooling", "model=alexnet", "data=cifar10", "seed=0")
    first = planned(*words)
    first.sweep.write(first.definition)
    assert planned(*words).sweep.path == first.sweep.path
    other = planned(*words, "trainer.max_epochs=2")
    assert str(other.sweep.path) == "logs/sweeps/pooling_alexnet_cifar10_2"
    assert other.configs[other.jobs[0].name].sweep.dir == str(other.sweep.path)
    other.sweep.write(other.definition)
    assert planned(*words, "trainer.max_epochs=2").sweep.path == other.sweep.path
    more = call(check_train, "train", "-m", *words[:-1], "seed=0,1")
    assert "new: model.pool-non_overlapping_seed-1" in more.err
    assert "sweep.extend=true adds jobs to it" in more.err
    assert planned(*words[:-1], "seed=0,1", "trainer.max_epochs=2", EXTEND).sweep.path == other.sweep.path


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_extended_by_command(tmp_path, digits_dir):
    place = tmp_path / "sweep"
    for words in (("seed=0",), ("seed=1,0", "model.activation=relu", EXTEND)):
        code, err = swept(words, place, digits_dir)
        assert code == 0, err
    lines = [json.loads(line) for line in (place / "ledger.jsonl").read_text().splitlines()]
    assert [(line["job"], line["status"]) for line in lines] == [("job", "completed"), ("seed-1", "completed")]
    with (place / "summary.csv").open() as file:
        assert [row["n"] for row in csv.DictReader(file)] == ["2"]


def of_an_older_version(place: Path, *words: str) -> Plan:
    """A sweep of a version that had no `model.dropout` and no `trainer.deterministic`, whose jobs have ended."""
    write = RunDirectory.write_config

    def lacking(self, config):
        parts = {group: dict(config[group]) for group in ("model", "trainer")}
        del parts["model"]["dropout"], parts["trainer"]["deterministic"]
        write(self, config | parts)

    def known(config, compared=()):
        found = identity(config, compared)
        return {key: found[key] for key in found.keys() - {"model.dropout", "trainer.deterministic"}}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "identity", known)
        patch.setattr(RunDirectory, "write_config", lacking)
        return begun(place, *words)


def test_a_new_key_with_its_default_makes_no_other_job(tmp_path):
    place, words = tmp_path / "s", ("model.activation=relu,tanh", "seed=0,1")
    before = table(of_an_older_version(place, *words))
    again = planned(*words, f"hydra.sweep.dir={place}")
    assert left(again) == []
    assert table(again) == before == {"relu": (2, pytest.approx(0.105)), "tanh": (2, pytest.approx(0.205))}
    extended = begun(place, words[0], "seed=range(0,3)", EXTEND)
    assert {len(job.config) for job in extended.definition.jobs} == {len(again.jobs[0].config)}
    assert table(extended) == {"relu": (3, pytest.approx(0.11)), "tanh": (3, pytest.approx(0.21))}
    assert left(planned(words[0], "seed=range(0,3)", f"hydra.sweep.dir={place}")) == []
    make_report(check_report({"sweep": str(place)}))
    assert "6 of 6 runs completed" in (place / "report.html").read_text()


@pytest.mark.parametrize("word", ["model.dropout=0.5", "trainer.deterministic=false"])
def test_a_new_key_with_another_value_is_another_sweep(word, tmp_path):
    place, words = tmp_path / "s", ("model.activation=relu,tanh", "seed=0,1")
    of_an_older_version(place, *words)
    outcome = call(check_train, "train", "-m", *words, word, f"hydra.sweep.dir={place}")
    assert outcome.code == 2
    key, _, value = word.partition("=")
    assert f"{key} was not set, is {value.capitalize()}" in outcome.err


def test_an_extended_sweep_keeps_its_commands_and_its_description(tmp_path):
    place, words = tmp_path / "s", ("model.activation=relu,tanh", "seed=0,1")
    first = begun(place, *words, "sweep.differs=[One epoch.]", "sweep.also=[val/loss]").definition
    more = begun(place, words[0], "seed=range(0,3)", EXTEND).definition
    assert (more.about["differs"], more.about["also"]) == (["One epoch."], ["val/loss"])
    assert "&&" not in more.command  # the second command makes all jobs of the first too
    assert "range(0,3)" in more.command
    both = begun(place, "model.activation=sigmoid", "seed=0,1", EXTEND).definition
    assert both.command == f"{more.command} && {begun(tmp_path / 'other', 'seed=0').definition.command}".replace(
        f"seed=0 hydra.sweep.dir={tmp_path / 'other'}",
        f"model.activation=sigmoid seed=0,1 {EXTEND} hydra.sweep.dir={place}",
    )
    assert begun(place, "model.activation=sigmoid", "seed=0,1", EXTEND).definition.command == both.command
    assert first.about["differs"] == both.about["differs"]
