"""Before a sweep starts: all jobs are composed as Hydra would, checked, compared with what is there, and listed."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest
from commands import call, finished, forked
from sweeping import planned

from alexnet_lab.config import check_train
from alexnet_lab.sweeps import job_states
from alexnet_lab.sweeps.definition import Job
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

GRID = ("model.activation=relu,tanh", "seed=range(0,2)")


def test_jobs_are_all_combinations_named_by_what_is_swept(tmp_path):
    plan = planned(*GRID, "trainer.max_epochs=2", f"hydra.sweep.dir='{tmp_path}/a b\\'s'")
    assert [job.name for job in plan.jobs] == [
        "model.activation-relu_seed-0", "model.activation-relu_seed-1",
        "model.activation-tanh_seed-0", "model.activation-tanh_seed-1",
    ]  # fmt: skip
    config = plan.configs["model.activation-tanh_seed-1"]
    assert (config.model["activation"], config.seed, config.trainer.max_epochs) == ("tanh", 1, 2)
    assert config.run_dir == f"{tmp_path}/a b's/model.activation-tanh_seed-1"
    assert config.sweep.dir == f"{tmp_path}/a b's"
    assert plan.definition.about["factor"] == ["model.activation"]
    assert plan.definition.overrides == ("trainer.max_epochs=2",)
    assert plan.definition.command.startswith("python train.py -m model.activation=relu,tanh 'seed=range(0,2)'")


def test_configs_are_those_that_hydra_composes(tmp_path):
    words = ("model=alexnet,caffenet", "data=cifar10", "augment=none,flip_crop", "seed=0,1", "+sweep.name=x",
             "optimizer.learning_rate=0.1", "callbacks=early_stopping", "~tags")  # fmt: skip
    ours = planned(*words, f"hydra.sweep.dir={tmp_path}").configs
    theirs: list[dict[str, Any]] = []
    outcome = call(theirs.append, "train", "-m", "hydra/sweeper=basic", *words, f"hydra.sweep.dir={tmp_path}")
    assert outcome.code == 0, outcome.err
    assert len(ours) == len(theirs) == 8
    own = {"overrides", "run_dir", "sweep", "logger"}
    for one, other in zip(ours.values(), map(check_train, theirs), strict=True):
        assert one.model_dump(exclude=own) == other.model_dump(exclude=own)
        assert (one.logger or {})["group"] == tmp_path.name


def test_checking_is_quick_and_needs_no_torch(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("torch", "lightning")]:
        monkeypatch.setitem(sys.modules, name, None)  # an import would raise
    planned("seed=0", f"hydra.sweep.dir={tmp_path}")  # reads the sources of the constructors once
    taken: list[float] = []
    for _ in range(3):  # the best counts: other work on the machine slows the others
        start = time.process_time()
        plan = planned("seed=range(0,40)", "model=alexnet", "data=cifar10", f"hydra.sweep.dir={tmp_path}")
        taken.append(time.process_time() - start)
        assert len(plan.jobs) == 40
        if taken[-1] < 4.0:
            break
    assert min(taken) < 4.0  # 0.1 s a job; importing torch and lightning alone would take longer


def test_sweep_file_and_command_line_join(tmp_path):
    file = "+hydra.sweeper.params={seed: '0,1,2', model.pool: 'max,average'}"
    plan = planned(file, "seed=7", "model.activation=tanh", f"hydra.sweep.dir={tmp_path}")
    assert [job.name for job in plan.jobs] == ["model.pool-max", "model.pool-average"]
    assert plan.configs["model.pool-max"].seed == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model.activation=relu,tahn",), "error: `model.activation` is 'tahn' (str); allowed: "),
        (("data.batch_size=16,17", "trainer.devices=2"), "images in total, which 2 devices cannot share equally;"),
        (("model.nrom=lrn,none",), "error: unknown key `model.nrom`; "),
        (("model=lenet5,alexnext",), "error: there is no `model=alexnext`; did you mean"),
        (
            ("seed=0,1", "run_dir=x"),
            "error: `run_dir` is the directory of one run; that of a sweep is hydra.sweep.dir=FOLDER",
        ),
        (("seed=0,1", "resume=x"), "error: `resume` continues one run; to resume a sweep, repeat its command"),
        (
            ("seed=0,1", "sweep.dir=x"),
            "error: `sweep.dir` is set by the sweep; choose its directory with hydra.sweep.dir",
        ),
        (
            ("seed=0,1", "trainer.num_nodes=2"),
            "error: `trainer.num_nodes` is 2, which a sweep can only start with launcher=",
        ),
        (
            ("trainer.num_nodes=1,2", "launcher=slurm"),
            "error: `trainer.num_nodes` must be the same for all jobs",
        ),
        (
            ("sweep.metric=val/loss,test/loss",),
            "error: `sweep.metric` is that of the whole sweep, and",
        ),
        (("seed=0", "sweep.variant=foo"), "error: `sweep.variant` is foo; there are no variants; leave it out"),
        (("seed=range(0,0)",), "error: seed=range(0,0) has no values; give at least one, such as seed=A,B"),
        (("seed=range(0,3,0)",), "error: seed=range(0,3,0): range() arg 3 must not be zero\n"),
        (("model.activation=glob(*)",), "error: model.activation=glob(*) has no values"),
        (("model=glob(nosuch*)",), "error: model=glob(nosuch*) has no values"),
        (("sweep=search", "data.batch_size=range(5,5)"), "error: data.batch_size=range(5,5) has no values"),
        (
            ("sweep=search", "sweep.metric=images_per_second"),
            "error: a search takes the lowest value of `sweep.metric`",
        ),
        (
            (
                "optimizer.learning_rate=0.1,0.2",
                "sweep.tuned=optimizer.learning_rate",
                "sweep.metric=images_per_second",
            ),
            "error: `sweep.tuned` takes the lowest value of `sweep.metric`, which is images_per_second; set it",
        ),
        (("seed=0,1", "sweep=nothing"), "error: there is no `sweep=nothing`"),
        (("seed=0,1", "hydra.sweeper.max_batch_size=0"), "error: `hydra.sweeper.max_batch_size` is 0 (int); allowed: "),
        (("seed=0,1", "hydra.sweeper.trials=1.5"), "error: `hydra.sweeper.trials` is 1.5 (float); allowed: integer"),
        (("seed=0,1", "hydra.sweeper.params=3"), "error: `hydra.sweeper.params` is 3 (int); allowed: a group of keys"),
        (("seed=0,1", "hydra.sweeper.params=[]"), "error: `hydra.sweeper.params=[]`: give it keys with values: {KEY: "),
        (("+hydra.sweeper.params={seed: null}",), "error: `seed` is None (NoneType); allowed: integer\n"),
        (
            ("hydra.sweeper.params={seed: 0}",),
            "error: `hydra.sweeper.params` is a group of keys and takes no value; add keys: +hydra.sweeper.params.KEY=",
        ),
        (("seed=0,1", "launcher.jobs_side_by_side=2"), "this launcher runs one job after the other; set launcher=job"),
        (
            ("seed=0,1", "launcher=joblib", "hydra.launcher.n_jobs=0"),
            "error: `hydra.launcher.n_jobs` is 0 (int); allowed: -1 or greater than or equal to 1",
        ),
        (
            ("seed=0,1", "launcher=joblib", "hydra.launcher.batch_size=0"),
            "error: `hydra.launcher.batch_size` is '0' (str); allowed: auto, or a whole number from 1",
        ),
        (
            ("seed=0,1", "launcher=joblib", "hydra.launcher.n_jobs=many"),
            "hydra.launcher.n_jobs=many: Value 'many' of type 'str' could not be converted to Integer\n",
        ),
        (
            ("seed=0,1", "launcher=submitit_local", "hydra.launcher.timeout_min=-1"),
            "error: `hydra.launcher.timeout_min` is -1 (int); allowed: greater than or equal to 1",
        ),
        (
            ("seed=0,1", "launcher=slurm", "hydra.launcher.array_parallelism=0"),
            "error: `hydra.launcher.array_parallelism` is 0 (int); allowed: greater than or equal to 1",
        ),
        (
            ("sweep=search", "hydra.sweeper.trials=0"),
            "error: `hydra.sweeper.trials` is 0 (int); allowed: greater than ",
        ),
        (
            ("sweep=search", "hydra.sweeper.sampler=grid"),
            "error: `hydra.sweeper.sampler` is 'grid' (str); allowed: 'tpe' or 'random'",
        ),
    ],
)
def test_one_wrong_job_stops_all_before_the_first(words, message, tmp_path):
    started: list[Any] = []
    outcome = call(started.append, "train", "-m", *words, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert (started, list(tmp_path.iterdir())) == ([], [])


NO_FOLDER = "/dev/null is no folder; choose another folder: hydra.sweep.dir=DIR\n"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("null", "error: `hydra.sweep.dir=null`: give it a value, or leave it out\n"),
        ("[a]", "error: `hydra.sweep.dir=[a]`: give it one text; quote its commas and brackets\n"),
        ("/dev/null", f"error: the sweep cannot go to /dev/null: {NO_FOLDER}"),
        ("/dev/null/a", f"error: the sweep cannot go to /dev/null/a: {NO_FOLDER}"),
    ],
)
def test_directory_of_a_sweep_that_cannot_be_a_folder(word, message):
    outcome = call(check_train, "train", "-m", "seed=0,1", f"hydra.sweep.dir={word}")
    assert (outcome.code, outcome.err) == (2, message)


def test_sweep_is_started_once(tmp_path, monkeypatch):
    for name, value in {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}.items():
        monkeypatch.setenv(name, value)
    outcome = call(check_train, "train", "-m", "seed=0,1", f"hydra.sweep.dir={tmp_path}")
    assert outcome.err.startswith("error: a sweep starts its jobs itself, but 2 processes were started")


def test_wrong_job_is_named(tmp_path):
    outcome = call(check_train, "train", "-m", "model.activation=relu,tahn", f"hydra.sweep.dir={tmp_path}")
    assert outcome.err.rstrip().endswith("(job model.activation-tahn)")


def test_folders_of_jobs_cannot_be_named_otherwise(tmp_path):
    outcome = call(check_train, "train", "-m", "seed=0,1", "hydra.sweep.subdir=x", f"hydra.sweep.dir={tmp_path}")
    assert outcome.code == 2
    assert outcome.err.startswith("error: `hydra.sweep.subdir` is set; a sweep names the folders of its jobs by ")


def test_wrong_job_is_named_where_hydra_refuses_it(tmp_path):
    words = ("model=alexnet,lenet5", "data=cifar10", "model.width=0.5", f"hydra.sweep.dir={tmp_path}")
    outcome = call(check_train, "train", "-m", *words)
    assert outcome.code == 2
    assert outcome.err.startswith("error: unknown key `model.width`; allowed: ")
    assert outcome.err.rstrip().endswith("(job model-lenet5)")


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (("model=alexnet,alexnet_caffe", "data=cifar10", "model.width=0.5"), "model.width", 0.5),
        (
            ("experiment=cuda_convnet_19pct,cuda_convnet_18pct", "schedule.drop_epochs=[1,2]"),
            "schedule.drop_epochs",
            [1, 2],
        ),
        (("schedule=caffe_inv,caffe_step", "schedule.gamma=0.5", "optimizer=sgd"), "schedule.gamma", 0.5),
    ],
)
def test_keys_that_the_swept_files_have_and_the_default_lacks(words, key, value, tmp_path):
    plan = planned(*words, "seed=0,1", f"hydra.sweep.dir={tmp_path}")
    group, _, field = key.partition(".")
    assert [getattr(config, group)[field] for config in plan.configs.values()] == [value] * 4


def test_dry_run_lists_all_and_writes_nothing(tmp_path):
    place = tmp_path / "sweep"
    words = ("model=lenet5,lenet5_1998", "seed=0,1", "loss=cross_entropy", "--dry-run", f"hydra.sweep.dir={place}")
    outcome = call(check_train, "train", "-m", *words)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == "all with: loss=cross_entropy"
    assert lines[1] == "to go  61,706 parameters  model-lenet5_seed-0       model=lenet5 seed=0"
    assert lines[4] == "to go  60,000 parameters  model-lenet5_1998_seed-1  model=lenet5_1998 seed=1"
    assert lines[5:] == [
        f"sweep directory: {place}",
        "4 jobs: 0 done, 0 failed, 4 to go",
        "time: unknown, since no job of this sweep is complete yet",
    ]
    assert not place.exists()


def test_changed_sweep_is_refused_with_the_difference(tmp_path):
    place = f"hydra.sweep.dir={tmp_path}"
    SweepDirectory(tmp_path).write(planned("seed=0,1", place).definition)
    planned("seed=0,1", "logger=csv", "launcher.retries=5", place)  # where and how may change
    outcome = call(check_train, "train", "-m", "seed=0,1", "trainer.max_epochs=3", "optimizer=adam", place)
    assert outcome.code == 2
    assert outcome.err.startswith(
        f"error: {tmp_path} contains another sweep: optimizer._target_ was alexnet_lab.training"
    )
    assert "trainer.max_epochs was 30, is 3" in outcome.err
    assert outcome.err.endswith("; choose another hydra.sweep.dir; sweep.extend=true adds jobs to it\n")
    fewer = call(check_train, "train", "-m", "seed=1,2", place)
    assert "no longer asked for: seed-0; new: seed-2; choose another" in fewer.err


def test_sweep_may_be_extended_but_not_changed(tmp_path):
    place = f"hydra.sweep.dir={tmp_path}"
    sweep = SweepDirectory(tmp_path)
    sweep.write(planned("seed=0,1", place).definition)
    plan = planned("seed=1,2", "sweep.extend=true", place)
    assert [job.name for job in plan.definition.jobs] == ["seed-0", "seed-1", "seed-2"]
    assert [job.name for job in plan.jobs] == ["seed-1", "seed-2"]
    outcome = call(check_train, "train", "-m", "seed=1,2", "trainer.max_epochs=3", "sweep.extend=true", place)
    assert outcome.code == 2
    assert outcome.err.endswith("; choose another hydra.sweep.dir\n")


def test_description_of_an_extended_sweep_stays_when_the_same_command_goes_on(tmp_path):
    sweep = SweepDirectory(tmp_path)
    words = ("model.activation=tanh,relu", f"hydra.sweep.dir={tmp_path}")
    about = ("sweep.base=relu", "sweep.metric=val/top1_error", "sweep.claim=mine", "sweep.expects=lower")
    sweep.write(planned(*words, "seed=0,1", *about).definition)
    for _ in range(2):
        sweep.write(planned(*words, "seed=range(0,3)", "sweep.extend=true").definition)
        found = sweep.read()
        assert found is not None
        kept = {name: found.about[name] for name in ("base", "metric", "claim", "expects")}
        assert kept == {"base": ["relu"], "metric": "val/top1_error", "claim": "mine", "expects": "lower"}
        assert (len(found.jobs), found.about["factor"]) == (6, ["model.activation"])


def test_a_metric_that_the_finished_jobs_lack_is_refused(tmp_path):
    sweep, words = SweepDirectory(tmp_path), ("seed=0,1", f"hydra.sweep.dir={tmp_path}")
    plan = planned(*words)
    sweep.write(plan.definition)
    for job in plan.jobs:
        sweep.append(job_states.entry(sweep, job, {"metrics": {"test/loss": 1.0}}, status="completed", error=None))
    assert planned(*words, "sweep.metric=test/loss").definition.about["metric"] == "test/loss"
    more = ("sweep.metric=train_set/top1_error", "callbacks.train_set=true")
    outcome = call(check_train, "train", "-m", *words, *more)
    assert outcome.code == 2
    assert "`sweep.metric` is train_set/top1_error, which none of the 2 finished jobs in" in outcome.err
    assert plan.definition == sweep.read()


@pytest.mark.parametrize(
    ("states", "line"),
    [
        (["done"] * 7 + ["failed"] + ["to go"] * 4, "12 jobs: 7 done, 1 failed, 4 to go"),
        (["to go"], "1 job: 0 done, 0 failed, 1 to go"),
    ],
)
def test_count_line(states, line):
    assert job_states.count_line(states) == line


def test_time_is_estimated_from_complete_jobs(tmp_path):
    sweep = SweepDirectory(tmp_path)
    for number, seconds in enumerate((100.0, 200.0)):
        sweep.append({"job": str(number), "status": "completed", "wall_seconds": seconds})
    sweep.append({"job": "9", "status": "failed", "wall_seconds": 1.0})
    assert job_states.estimate(sweep, 8, 2) == "about 10 min 0 s (a job took 2 min 30 s, mean of 2)"
    assert job_states.estimate(sweep, 0, 2) == "nothing is left to do"
    line = job_states.bar_line(sweep, [Job("9", ()), Job("10", ())], 1)
    assert line == "[##########----------] 1/2 jobs; to go: about 2 min 30 s (a job took 2 min 30 s, mean of 2)"


def test_what_is_there_already_counts(tmp_path):
    plan = planned("seed=range(0,4)", f"hydra.sweep.dir={tmp_path}")
    for name, status in (("seed-0", "completed"), ("seed-1", "failed"), ("seed-2", None)):
        run = plan.sweep.run(next(job for job in plan.jobs if job.name == name))
        run.path.mkdir()
        run.config.write_text("seed: 0")
        if status:
            run.result.write_text(json.dumps({"status": status, "metrics": {"test/loss": 1.0}, "epochs": 3}))
    plan.sweep.append({"job": "seed-1", "status": "failed"})
    found = job_states.states(plan.sweep, plan.jobs)
    assert list(found.values()) == ["done", "failed", "interrupted", "to go"]
    job_states.adopt(plan.sweep, plan.jobs)
    job_states.adopt(plan.sweep, plan.jobs)
    lines = [line for line in plan.sweep.entries() if line["job"] == "seed-0"]
    assert [(line["status"], line["metrics"], line["epochs"]) for line in lines] == [
        ("completed", {"test/loss": 1.0}, 3)
    ]


def test_dry_run_of_one_run_checks_its_parts_too(tmp_path):
    done = finished(forked("train.py", "--dry-run", "logger=csv", "run_dir=run", cwd=tmp_path))
    assert (done.code, done.out) == (0, "run directory: run\n61,706 parameters\n")
    words = ("+transforms.half._target_=torchvision.transforms.v2.Resize", "+transforms.half.size=5")
    wrong = finished(forked("train.py", "--dry-run", "logger=csv", "run_dir=run", *words, cwd=tmp_path))
    assert wrong.code == 2
    assert "Resize turns torch.uint8 (1, 28, 28) into torch.uint8 (1, 5, 5); it must keep both" in wrong.err
    assert list(tmp_path.iterdir()) == []


def test_swept_path_that_is_no_text_is_that_of_sweep_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    roots = [tmp_path / name for name in ("caf\udce9", "b")]
    for folder in (root / "train" / name for root in roots for name in "xy"):
        folder.mkdir(parents=True)
    asked = ("data=image_folder", "model=alexnet", f"data.root='{roots[0]}','{roots[1]}'")
    plan = planned(*asked)
    plan.sweep.begin(plan.definition)
    assert plan.sweep.read() == plan.definition == planned(*asked).definition
    assert [job.config["data.root"] for job in plan.jobs] == [rf"{tmp_path}/caf\udce9", str(roots[1])]
    assert str(roots[0]) in " ".join(plan.words[plan.jobs[0].name])
