"""A search's course with a launcher whose jobs finish, fail, end early, and are interrupted."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from commands import train_config
from hydra.core.override_parser.overrides_parser import OverridesParser

from alexnet_lab.base.errors import ConfigError, Interrupted, RunError
from alexnet_lab.config.schema import Train
from alexnet_lab.run.pruning import JOB, JOURNAL, PRUNED_AT, STUDY, open_journal
from alexnet_lab.sweeps.job_states import entry
from alexnet_lab.sweeps.preflight import Request
from alexnet_lab.sweeps.results import update_summary
from alexnet_lab.sweeps.search import Search, Settings
from alexnet_lab.sweeps.search_runner import counts, drive_search
from alexnet_lab.sweeps.summary_tables import cells
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

pytest.importorskip("optuna")

SPACE = ("a=interval(0.0,1.0)", "b=choice(x,y)")
SETTINGS = Settings(6, "random")
LAUNCHER = {"retries": 0, "jobs_side_by_side": 2}


def composed(words: Sequence[str], c: int = 1) -> Train:
    """A config with the few keys that a sweep looks at, and those that are searched."""
    node = {"name": "search", "factor": [], "metric": "val/loss", "extend": True}
    values = dict(word.split("=", 1) for word in words if word[:2] in ("a=", "b="))
    if values["b"] == "wrong":
        raise ConfigError("`b` is wrong")
    return train_config(c=c, launcher=LAUNCHER, sweep=node, **values)


def drive(place: Path, launch: Callable[..., Any], space: Sequence[str] = SPACE, settings: Settings = SETTINGS) -> None:
    parsed = OverridesParser.create().parse_overrides(list(space))
    drive_search(Request(str(place), ("data=digits", "sweep=search"), (), "python"), parsed, settings, composed, launch)


class Launcher:
    """Ends jobs with the value of `a` as their loss, or as `fate` has it.

    Args:
        place: The sweep's directory.
        fate: For the number of a job, from 0, its status; others are completed.
    """

    def __init__(self, place: Path, fate: dict[int, str] | None = None) -> None:
        self.sweep = SweepDirectory(place)
        self.fate = fate or {}
        self.seen: list[dict[str, str]] = []

    def __call__(self, jobs: Sequence[list[str]]) -> None:
        definition = self.sweep.read()
        assert definition is not None
        for words in jobs:
            values = dict(word.split("=", 1) for word in words)
            status = self.fate.get(len(self.seen), "completed")
            self.seen.append(values)
            job = next(job for job in definition.jobs if all(word in words for word in job.overrides))
            run = self.sweep.run(job)
            run.path.mkdir(exist_ok=True)
            run.config.write_text(yaml.safe_dump(job.config))
            if status == "interrupted":
                raise KeyboardInterrupt
            if status == "pruned":
                end_early(run.path)
            loss = math.nan if status == "nan" else float(values["a"])
            status = "completed" if status in ("nan", "pruned") else status
            result = {"status": status, "metrics": {"val/loss": loss, "val/top1_error": loss}, "epochs": 1, "steps": 2}
            run.result.write_text(json.dumps(result))
            self.sweep.append(entry(self.sweep, job, result, status=status, error=None))


def end_early(run: Path) -> None:
    """Notes it in the search's journal, as the callback does."""
    storage = open_journal(str(run.parent / JOURNAL))
    trials = storage.get_all_trials(storage.get_study_id_from_name(STUDY))
    trial = next(trial for trial in trials if trial.user_attrs.get(JOB) == run.name)
    storage.set_trial_user_attr(trial._trial_id, PRUNED_AT, 1)


def states(place: Path) -> list[str]:
    found = Search(place, OverridesParser.create().parse_overrides(list(SPACE)), SETTINGS)
    return [trial.state.name for trial in found.study.trials]


def test_failed_trials_and_nan_count_as_failed_and_the_search_continues(tmp_path, capsys):
    launcher = Launcher(tmp_path, {1: "failed", 2: "nan"})
    drive(tmp_path, launcher)
    assert states(tmp_path) == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    seen = [float(values["a"]) for number, values in enumerate(launcher.seen) if number not in (1, 2)]
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == "val/loss of the best trials"
    assert [float(line.split()[0]) for line in lines[1:5]] == sorted(seen)
    assert lines[5].startswith("the best with several seeds: python train.py -m data=digits a=")
    assert "6 trials: 4 complete, 0 pruned, 2 failed, 0 to go" in printed.err


def test_trials_that_ended_early_are_reported_as_pruned(tmp_path, capsys):
    drive(tmp_path, Launcher(tmp_path, {1: "pruned", 2: "failed"}))
    assert states(tmp_path) == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert "6 trials: 4 complete, 1 pruned, 1 failed, 0 to go" in capsys.readouterr().err
    sweep = SweepDirectory(tmp_path)
    definition = sweep.read()
    assert definition is not None
    head, rows = cells(update_summary(sweep, definition))
    assert head == ["", "setting", "n", "mean", "left out"]  # nothing is compared
    assert [(row[2], row[-1]) for row in rows] == [
        ("1", ""), ("0", "1 ended early"), ("0", "1 failed"), ("1", ""), ("1", ""), ("1", ""),
    ]  # fmt: skip


def test_an_interrupted_search_resumes_where_it_was(tmp_path):
    with pytest.raises(Interrupted, match="resume with the same command"):
        drive(tmp_path, Launcher(tmp_path, {3: "interrupted"}))
    assert states(tmp_path) == ["COMPLETE"] * 2 + ["RUNNING"] * 2
    again = Launcher(tmp_path)
    drive(tmp_path, again)
    assert states(tmp_path) == ["COMPLETE"] * 6
    assert len(again.seen) == 3  # of the two that were open one was done
    drive(tmp_path, Launcher(tmp_path, dict.fromkeys(range(9), "failed")))  # nothing is left to launch
    drive(tmp_path, again, settings=Settings(8, "random"))
    assert len(again.seen) == 5


def test_each_trial_is_a_job_of_the_sweep(tmp_path):
    drive(tmp_path, Launcher(tmp_path))
    definition = SweepDirectory(tmp_path).read()
    assert definition is not None
    assert len(definition.jobs) == 6
    assert all(len(job.overrides) == 2 for job in definition.jobs)
    assert (definition.about["name"], definition.overrides) == ("search", ("data=digits", "sweep=search"))
    assert definition.command == "python"  # once, though each batch of trials adds jobs


def test_finished_search_is_not_that_of_other_fixed_settings(tmp_path, capsys):
    drive(tmp_path, Launcher(tmp_path))
    capsys.readouterr()
    space = OverridesParser.create().parse_overrides(list(SPACE))
    request = Request(str(tmp_path), ("data=digits", "sweep=search", "c=2"), (), "python")
    with pytest.raises(ConfigError, match=r"contains another sweep: c was 1, is 2"):
        drive_search(request, space, SETTINGS, lambda words: composed(words, c=2), Launcher(tmp_path))
    assert not capsys.readouterr().out


def test_a_search_goes_on_by_its_own_metric_alone(tmp_path):
    drive(tmp_path, Launcher(tmp_path), settings=Settings(2, "random"))
    space = OverridesParser.create().parse_overrides(list(SPACE))
    request = Request(str(tmp_path), ("data=digits", "sweep=search"), (), "python")

    def by_error(words: Sequence[str]) -> Train:
        config = composed(words)
        return config.model_copy(update={"sweep": config.sweep.model_copy(update={"metric": "val/top1_error"})})

    with pytest.raises(ConfigError, match=r"`sweep.metric` is val/top1_error, but .* a search by val/loss; set sweep"):
        drive_search(request, space, Settings(4, "random"), by_error, Launcher(tmp_path))
    assert len(states(tmp_path)) == 2


def test_a_space_of_few_values_trains_each_once(tmp_path):
    launcher = Launcher(tmp_path)
    drive(tmp_path, launcher, space=("a=choice(0.1,0.2)", "b=choice(x,y)"), settings=Settings(12, "random"))
    assert len(launcher.seen) == len({(values["a"], values["b"]) for values in launcher.seen}) <= 4


def test_a_search_without_a_complete_trial_has_failed(tmp_path):
    with pytest.raises(RunError, match=r"no trial of the search is complete; see .*ledger.jsonl"):
        drive(tmp_path, Launcher(tmp_path, dict.fromkeys(range(6), "failed")))


def test_errors_are_reported_before_the_first_trial(tmp_path):
    with pytest.raises(ConfigError, match="`b` is wrong"):
        drive(tmp_path / "search", Launcher(tmp_path), space=("a=interval(0.0,1.0)", "b=choice(wrong,y)"))
    assert not (tmp_path / "search").exists()


def test_the_best_values_keep_what_affects_a_run(tmp_path, capsys):
    words = ("data=digits", "sweep=search", "callbacks.checkpoint.monitor=val/loss", "callbacks.pruning=null",
             "callbacks=[pruning,to_error]", "+callbacks.x._target_=y", "seed=3", "hydra.sweeper.trials=6")  # fmt: skip
    space = OverridesParser.create().parse_overrides(list(SPACE))
    drive_search(Request(str(tmp_path), words, (), "python"), space, SETTINGS, composed, Launcher(tmp_path))
    last = capsys.readouterr().out.splitlines()[-1]
    assert "-m data=digits callbacks.checkpoint.monitor=val/loss +callbacks.x._target_=y a=" in last
    assert last.endswith("'seed=range(0,5)'")


def test_counts(tmp_path):
    found = Search(tmp_path, OverridesParser.create().parse_overrides(list(SPACE)), SETTINGS)
    found.batch(1)
    assert counts(found) == "6 trials: 0 complete, 0 pruned, 0 failed, 6 to go"
