"""The trials of a search: their ranges, their journal, their results, and when one ends early."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from commands import QUICK, call
from hydra.core.override_parser.overrides_parser import OverridesParser

from alexnet_lab import run
from alexnet_lab.base.errors import ConfigError, RunError
from alexnet_lab.config import check_train
from alexnet_lab.run.pruning import JOB, JOURNAL, PRUNED_AT, STUDY, Pruning, Rule, open_journal
from alexnet_lab.sweeps.search import Search, Settings, distribution, words
from alexnet_lab.training.last_validation import LastValidation

if TYPE_CHECKING:
    from pathlib import Path

optuna = pytest.importorskip("optuna")

SPACE = ("optimizer.learning_rate=tag(log,interval(0.001,0.1))", "model.activation=choice(relu,tanh)")


def parse(*texts: str) -> list[Any]:
    return OverridesParser.create().parse_overrides(list(texts))


def search(folder: Path, *, trials: int = 6, space: tuple[str, ...] = SPACE, sampler: str = "tpe") -> Search:
    return Search(folder, parse(*space), Settings(trials, sampler, seed=0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=interval(0.0,1.0)", "FloatDistribution(high=1.0, log=False, low=0.0, step=None)"),
        ("a=tag(log,interval(1e-4,1e-1))", "FloatDistribution(high=0.1, log=True, low=0.0001, step=None)"),
        ("a=interval(1,9)", "FloatDistribution(high=9.0, log=False, low=1.0, step=None)"),
        ("a=int(interval(1,9))", "IntDistribution(high=9, log=False, low=1, step=1)"),
        ("a=range(1,10,3)", "IntDistribution(high=7, log=False, low=1, step=3)"),
        ("a=range(0.0,1.0,0.25)", "FloatDistribution(high=0.75, log=False, low=0.0, step=0.25)"),
        ("a=range(9,1,-2)", "IntDistribution(high=9, log=False, low=3, step=2)"),
        ("a=choice(relu,tanh,1.5)", "CategoricalDistribution(choices=('relu', 'tanh', '1.5'))"),
        ("a=16,32", "CategoricalDistribution(choices=('16', '32'))"),
    ],
)
def test_ranges_are_those_of_hydras_grammar(text, expected):
    assert str(distribution(parse(text)[0])) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed=range(0,5)", "a search takes one seed; train the best values with several"),
        ("a=interval(1.0,0.5)", "`a` cannot be searched in a=interval.*: the first end must be below the second"),
        ("a=tag(log,interval(0.0,0.5))", "with log, 0 < first end < second end"),
        ("a=interval(0.5,inf)", "`a` cannot be searched in a=interval.*: .* below the second, and both finite"),
        ("a=tag(lgo,interval(0.1,0.5))", "`a` has the tag lgo in a=tag.*; allowed: log"),
    ],
)
def test_ranges_that_cannot_be_searched(text, message):
    with pytest.raises(ConfigError, match=message):
        distribution(parse(text)[0])


@pytest.mark.parametrize(
    ("value", "text"), [(0.1, "0.1"), (1e-05, "1e-05"), (0.0012345678, "0.001235"), (3.0, "3.0"), (7, "7"), ("x", "x")]
)
def test_values_as_overrides(value, text):
    assert words({"a.b": value}) == (f"a.b={text}",)
    assert parse(f"a.b={text}")[0].value() == (float(text) if isinstance(value, float) else value)


def test_trials_are_asked_recorded_and_counted(tmp_path):
    found = search(tmp_path)
    seen = 0
    while batch := found.batch(2):
        assert len(batch) == 2
        for number, overrides in batch.items():
            rate = float(overrides[0].partition("=")[2])
            assert 0.001 <= rate <= 0.1
            found.tell(number, [rate, math.nan, None, math.inf][number % 4])
            seen += 1
    assert seen == 6
    assert [trial.state.name for trial in found.study.trials] == [
        "COMPLETE",
        "FAIL",
        "FAIL",
        "FAIL",
        "COMPLETE",
        "FAIL",
    ]
    best = found.best()
    assert len(best) == 2
    assert best[0][0] <= best[1][0]
    assert best[0][2] == words(found.study.trials[best[0][1]].params)


def test_an_interrupted_search_resumes_its_open_trials(tmp_path):
    first = search(tmp_path)
    first.tell(0, 0.5) if first.batch(1) else None
    asked = first.batch(2)  # their jobs are interrupted
    again = search(tmp_path)
    assert again.batch(2) == asked
    assert again.batch(3).items() > asked.items()
    for number in list(again.batch(3)):
        again.tell(number, 0.1)
    more = search(tmp_path, trials=8)
    assert len(more.batch(99)) == 4
    assert len({words(trial.params) for trial in more.study.trials}) == 8, "a resumed search draws other numbers"


def test_another_search_in_the_same_place_is_refused(tmp_path):
    search(tmp_path)
    with pytest.raises(ConfigError, match=r"a search in which model.activation is choice\(relu,tanh\), not fixed"):
        search(tmp_path, space=SPACE[:1])


def test_trial_that_was_killed_while_its_values_were_drawn_gets_the_rest(tmp_path):
    found = search(tmp_path)
    trial = found.study.ask({key: found.space[key] for key in list(found.space)[:1]})
    drawn = words(trial.params)
    ((number, overrides),) = search(tmp_path).batch(1).items()
    assert number == trial.number
    assert overrides[:1] == drawn
    assert overrides[1] in ("model.activation=relu", "model.activation=tanh")


@pytest.mark.parametrize(
    ("key", "choices"),
    [
        ("model._target_", ["os.system"]),
        ("model.activation", ["relu model._target_=os.system"]),
        ("optimizer.learning_rate", [0.5]),
        ("optimizer.learning_rate", ["0.01,0.02"]),
    ],
)
def test_values_that_the_ranges_do_not_allow_are_refused(key, choices, tmp_path):
    """The journal is data: whoever sends a search cannot have its values become overrides of jobs."""
    found = search(tmp_path)
    trial = found.study.ask({key: optuna.distributions.CategoricalDistribution(choices)})
    message = f"{JOURNAL} cannot be read: trial {trial.number} has a value of `{key}` that the search does not allow"
    with pytest.raises(RunError, match=re.escape(message)):
        search(tmp_path)


def test_tpe_comes_closer_to_the_least_value_than_chance(tmp_path):
    def least(sampler: str, seed: int) -> float:
        folder = tmp_path / f"{sampler}{seed}"
        folder.mkdir()
        found = Search(folder, parse("a=interval(0.0,1.0)", "b=interval(0.0,1.0)"), Settings(30, sampler, seed))
        while batch := found.batch(1):
            for number in batch:
                params = found.study.trials[number].params
                found.tell(number, (params["a"] - 0.3) ** 2 + (params["b"] - 0.7) ** 2)
        return found.best()[0][0]

    mean = {sampler: sum(least(sampler, seed) for seed in range(3)) / 3 for sampler in ("tpe", "random")}
    assert mean["tpe"] < mean["random"]


def test_half_a_line_at_the_end_of_the_journal_is_taken_away(tmp_path):
    found = search(tmp_path)
    found.batch(1)
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 6, "tri')
    again = search(tmp_path)
    assert len(again.study.trials) == 1
    assert journal.read_bytes().startswith(whole)


DAMAGED_LINES = {
    "half a line in the middle": b'{"op_code": 4, \n{}\n',
    "garbage at the end": b"garbage\n",
    "bytes": b"\xff\xfe\x00\n\x80\n",
    "no record": b"[]\n{}\n",
    "another operation": b'{"op_code": 99, "worker_id": "x"}\n{}\n',
    "no fields": b'{"op_code": 4}\n{}\n',
}


@pytest.mark.parametrize("lines", DAMAGED_LINES.values(), ids=DAMAGED_LINES.keys())
def test_damaged_journal_is_one_line_and_stays_as_it_is(lines, tmp_path):
    search(tmp_path, space=("optimizer.learning_rate=interval(0.1,0.2)",)).batch(1)
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes() + lines)
    before = journal.read_bytes()
    outcome = call(check_train, "train", "-m", "sweep=search", f"hydra.sweep.dir={tmp_path}")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert outcome.err.startswith(f"error: {journal} cannot be read (")
    assert "delete it: the search then starts again" in outcome.err
    assert journal.read_bytes() == before


def test_journal_that_is_a_folder(tmp_path):
    (tmp_path / JOURNAL).mkdir()
    outcome = call(check_train, "train", "-m", "sweep=search", f"hydra.sweep.dir={tmp_path}")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert f"{tmp_path / JOURNAL} cannot be read (IsADirectoryError" in outcome.err


class Trainer:
    """As much of Lightning's as the callback asks."""

    is_global_zero = True
    should_stop = False

    class strategy:  # noqa: N801 - stands for an attribute
        @staticmethod
        def broadcast(decision: bool) -> bool:
            return decision

    def __init__(self, min_epochs: int) -> None:
        self.callbacks = [LastValidation()]
        self.current_epoch = self.global_step = 0
        self.min_epochs, self.min_steps = min_epochs, None


def train(folder: Path, job: str, values: list[float], rule: Rule, min_epochs: int = 1) -> int:
    """One trial; returns its epochs."""
    trainer: Any = Trainer(min_epochs)
    callback = Pruning(folder / job, "val/top1_error", rule)
    callback.on_train_start(trainer, None)  # pyright: ignore[reportArgumentType] - it does not look at the module
    for epoch, value in enumerate(values):
        if trainer.should_stop:
            return epoch
        trainer.current_epoch, trainer.callbacks[0].metrics = epoch, {"val/top1_error": value}
        callback.on_train_epoch_end(trainer, None)  # pyright: ignore[reportArgumentType]
    return len(values)


@pytest.fixture
def begun(tmp_path: Path) -> Search:
    """Three complete trials, with 0.5, 0.4 and 0.3 in all epochs, and one that is open: job-3."""
    found = search(tmp_path)
    for value in (0.5, 0.4, 0.3):
        (number,) = found.batch(1)
        found.name(number, f"job-{number}")
        assert train(tmp_path, f"job-{number}", [value] * 6, Rule(99, 0)) == 6
        found.tell(number, value)
    (number,) = found.batch(1)
    found.name(number, f"job-{number}")
    return found


@pytest.mark.parametrize(("values", "epochs"), [([0.45] * 6, 4), ([0.45, 0.45, 0.45, 0.39, 0.39, 0.39], 6)])
@pytest.mark.usefixtures("begun")
def test_a_trial_does_not_end_before_its_least_epochs(tmp_path, values, epochs):
    assert train(tmp_path, "job-3", values, Rule(3, 0), min_epochs=4) == epochs


@pytest.mark.parametrize(
    ("values", "rule", "epochs"),
    [
        ([0.45] * 6, Rule(3, 3), 3),  # worse than the median, 0.4, as soon as it may end
        ([0.45] * 6, Rule(3, 0), 1),
        ([0.45] * 6, Rule(4, 3), 6),  # too few complete trials
        ([0.35] * 6, Rule(3, 0), 6),  # better
        ([0.45, 0.45, 0.39, 0.9, 0.9, 0.9], Rule(3, 3), 6),  # its best so far counts
        ([math.nan] * 6, Rule(3, 0), 6),  # an epoch without validation
    ],
)
def test_a_trial_ends_when_it_is_worse_than_the_median(begun, tmp_path, values, rule, epochs):
    assert train(tmp_path, "job-3", values, rule) == epochs
    begun.tell(3, min(values))
    expected = "PRUNED" if epochs < 6 else "FAIL" if math.isnan(values[0]) else "COMPLETE"
    assert begun.study.trials[3].state.name == expected


def test_a_pruned_trial_that_was_interrupted_does_not_train_on(begun, tmp_path):
    assert train(tmp_path, "job-3", [0.9] * 6, Rule(3, 2)) == 2
    assert train(tmp_path, "job-3", [0.9] * 6, Rule(3, 2)) == 0
    assert begun.study.trials[3].user_attrs == {JOB: "job-3", PRUNED_AT: 2}


def test_a_second_trial_with_the_same_values_shares_the_fate_of_the_first(begun, tmp_path):
    train(tmp_path, "job-3", [0.9] * 6, Rule(3, 2))
    begun.tell(3, 0.9)
    (number,) = begun.batch(1)
    begun.name(number, "job-3")
    begun.tell(number, 0.9)
    assert begun.study.trials[number].state.name == "PRUNED"


def test_pruning_outside_of_a_search_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"`callbacks.pruning` is for the trials of sweep=search, and there is no"):
        Pruning(tmp_path / "run", "val/top1_error", Rule(5, 5))


def test_a_run_beside_the_journal_that_is_no_trial_is_refused_before_it_trains(begun, tmp_path):
    outcome = call(run.train, "train", *QUICK, "callbacks=pruning", f"run_dir={tmp_path / 'job-3-copy'}")
    problem = f"`callbacks.pruning`: job-3-copy is no trial of {tmp_path / JOURNAL}; set callbacks.pruning=null"
    assert problem in outcome.err
    assert not (tmp_path / "job-3-copy").exists()


def test_without_optuna_the_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "optuna.storages", None)
    with pytest.raises(ConfigError, match="sweep=search needs optuna: pip install 'alexnet-lab\\[sweeps\\]'"):
        open_journal(str(tmp_path / JOURNAL))


STOP = """
import os
from lightning.pytorch.callbacks import Callback

class Stop(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 4 and "STOP_HERE" in os.environ:
            raise KeyboardInterrupt
"""


def test_a_trial_resumed_after_a_validation_within_its_epoch_reports_that_validation(tmp_path, digits_dir, monkeypatch):
    """The epoch has 5 batches; it is validated after 3, saved after 4 and interrupted in the fifth."""
    (tmp_path / "stop_here.py").write_text(STOP)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ALEXNET_LAB_DATA", str(digits_dir))
    monkeypatch.setenv("STOP_HERE", "1")
    study = optuna.create_study(study_name=STUDY, storage=open_journal(str(tmp_path / JOURNAL)))
    study.ask().set_user_attr(JOB, "run")
    words = (
        *QUICK, "callbacks=pruning", "+callbacks.stop._target_=stop_here.Stop", "trainer.limit_train_batches=5",
        "trainer.val_check_interval=3", "callbacks.checkpoint.every_steps=4", "launcher=in_process",
        "trainer.max_epochs=1", f"run_dir={tmp_path / 'run'}", "trainer.limit_val_batches=2",
    )  # fmt: skip
    assert call(run.train, "train", *words).code == 130
    monkeypatch.delenv("STOP_HERE")
    outcome = call(run.train, "train", f"resume={tmp_path / 'run'}", "trusted_packages=[stop_here]")
    assert outcome.code == 0, outcome.err
    error = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]["val/top1_error"]
    (trial,) = optuna.load_study(study_name=STUDY, storage=open_journal(str(tmp_path / JOURNAL))).trials
    assert trial.intermediate_values == {1: pytest.approx(error, rel=1e-6)}
