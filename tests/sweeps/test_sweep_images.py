"""A sweep trains all its jobs on the same images, or says which job would not, before that job trains."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import QUICK, REPOSITORY, Outcome, call
from pictures import make_pictures, words_of, write_image

from alexnet_lab.config import check_report, check_train
from alexnet_lab.report import make_report
from alexnet_lab.run.pruning import JOURNAL, STUDY, open_journal
from alexnet_lab.sweeps import jobs
from alexnet_lab.sweeps.search import SPACE
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

EXTEND = "sweep.extend=true"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of 40 images."""
    return make_pictures(tmp_path / "pictures")


def run_sweep(root: Path, *words: str) -> Outcome:
    """`python train.py -m words`, in this process."""
    fixed = ("-m", *words_of(root), *QUICK, "launcher=in_process", f"hydra.sweep.dir={root.parent / 'sweep'}")
    return call(lambda config: jobs.run_job(check_train(config)), "train", *fixed, *words)


def values(root: Path) -> list[tuple[str, str]]:
    """n and mean of each row of the sweep's table."""
    with (root.parent / "sweep" / "summary.csv").open() as file:
        return [(row["n"], row["mean"]) for row in csv.DictReader(file)]


def add_image(root: Path) -> None:
    write_image(root / "train" / "light" / "more.bmp", bright=True)


def change_image(root: Path) -> None:
    write_image(root / "train" / "light" / "03.bmp", bright=False)


def error_of(outcome: Outcome) -> str:
    """The last line, which says how the sweep ended."""
    assert outcome.code == 1, outcome.err
    return outcome.err.splitlines()[-1]


@pytest.mark.parametrize("change", [add_image, change_image])
@pytest.mark.parametrize("key", ["seed=0,1", "data.val_seed=0,1", "data.stored_size=8,16"])
def test_job_on_changed_images_does_not_train(change: Callable[[Path], None], key: str, root: Path) -> None:
    before = Path(shutil.copytree(root, root.parent / "before"))
    assert run_sweep(root, key.partition(",")[0]).code == 0
    change(root)
    outcome = run_sweep(root, key, EXTEND)
    assert error_of(outcome).startswith("error: 1 of 2 jobs failed: ")
    assert " has other images than job: " in outcome.err
    assert "; restore the data set, choose another hydra.sweep.dir, or continue with " in outcome.err
    sweep = SweepDirectory(root.parent / "sweep")
    (failed,) = [line for line in sweep.latest().values() if line["status"] == "failed"]
    assert not (sweep.path / failed["job"] / "checkpoints").exists()
    assert not (sweep.path / failed["job"] / "config.yaml").exists()
    shutil.rmtree(root)
    before.rename(root)
    again = run_sweep(root, key, EXTEND)
    assert again.code == 0, again.err
    assert sum(int(n) for n, _ in values(root)) == 2


def test_job_on_changed_images_trains_on_request(root):
    assert run_sweep(root, "seed=0").code == 0
    add_image(root)
    outcome = run_sweep(root, "seed=0,1", EXTEND, "sweep.other_images=true")
    assert outcome.code == 0, outcome.err
    assert "warning: seed-1 has other images than job: 33 train" in outcome.err
    assert "; sweep.other_images=true continues" in outcome.err
    assert values(root)[0][0] == "2"


def test_jobs_whose_directories_are_deleted_train_on_the_new_images(root):
    """What the ledger still says of them does not count."""
    assert run_sweep(root, "seed=0,1").code == 0
    add_image(root)
    for name in ("seed-0", "seed-1"):
        shutil.rmtree(root.parent / "sweep" / name)
    outcome = run_sweep(root, "seed=0,1")
    assert outcome.code == 0, outcome.err
    assert [line["num_train"] for line in SweepDirectory(root.parent / "sweep").latest().values()] == [33, 33]


def test_search_stops_at_the_first_trial_on_changed_images(root):
    pytest.importorskip("optuna")
    words = (
        "sweep=search", "hydra.sweeper.params={}", "hydra.sweeper.sampler=random", "schedule=constant",
        "optimizer.learning_rate=interval(0.001,0.1)", "callbacks.pruning=null",
    )  # fmt: skip
    assert run_sweep(root, *words, "hydra.sweeper.trials=1").code == 0
    add_image(root)
    for _ in range(2):
        line = error_of(run_sweep(root, *words, "hydra.sweeper.trials=3"))
        assert " has other images than " in line
        assert "; resume with the same command: " in line
    (root / "train" / "light" / "more.bmp").unlink()
    outcome = run_sweep(root, *words, "hydra.sweeper.trials=3")
    assert outcome.code == 0, outcome.err
    assert "3 trials: 3 complete, 0 pruned, 0 failed, 0 to go" in outcome.err


def test_search_from_elsewhere_starts_nothing(root):
    """An open trial in its journal would become the overrides of a job."""
    optuna = pytest.importorskip("optuna")
    place, trap = root.parent / "sweep", root.parent / "trap"
    fixed = ("sweep=search", "hydra.sweeper.params={}", "optimizer.weight_decay=0.0005", "schedule=constant")
    words = (*fixed, "optimizer.learning_rate=interval(0.001,0.1)", "callbacks.pruning=null")
    place.mkdir()
    study = optuna.create_study(study_name=STUDY, storage=open_journal(str(place / JOURNAL)))
    study.set_user_attr(SPACE, {"optimizer.learning_rate": "interval(0.001,0.1)"})
    values = {"model": f"{{_target_:os.system,command:touch {trap}}}", "optimizer.learning_rate": 0.01}
    study.ask({key: optuna.distributions.CategoricalDistribution([value]) for key, value in values.items()})
    outcome = run_sweep(root, *words, "hydra.sweeper.trials=1")
    assert "trial 0 has a value of `model` that the search does not allow" in error_of(outcome)
    assert not trap.exists()


def report(root: Path) -> Outcome:
    """`python report.py sweep=...`."""
    folder = REPOSITORY / "src" / "alexnet_lab" / "report" / "config"
    words = (f"sweep={root.parent / 'sweep'}",)
    return call(lambda config: make_report(check_report(config)), "report", *words, configs=folder)


@pytest.mark.parametrize("key", ["seed=0,1", "trainer.num_threads=1,2"])
def test_job_that_is_a_copy_of_another_is_no_second_result(key, root):
    assert run_sweep(root, key).code == 0
    assert "2 of 2 runs completed" in report(root).err
    one, other = sorted(path for path in (root.parent / "sweep").iterdir() if path.is_dir() and path.name != "figures")
    shutil.rmtree(other)
    shutil.copytree(one, other)
    outcome = report(root)
    assert outcome.code == 0
    assert "1 of 2 runs completed, 1 unreadable" in outcome.err
    assert f"{other.name}: " in outcome.err
    expected = (
        "contains another run: seed was 0, is 1; " if key.startswith("seed") else f"is a copy of {one}; delete it"
    )
    assert expected in error_of(run_sweep(root, key))
