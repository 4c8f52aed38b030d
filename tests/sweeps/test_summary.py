"""A sweep's table: rows, differences, half-finished sweeps, several factors, tuned keys; its files and its look."""

from __future__ import annotations

import csv
import io
import itertools
import math
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.files import write_json
from alexnet_lab.sweeps.definition import Definition, Job, named, split
from alexnet_lab.sweeps.results import outcomes, show, update_summary
from alexnet_lab.sweeps.summary import LEFT_OUT, Outcome, Row, Summary, base_level, summarise
from alexnet_lab.sweeps.summary_tables import cells, csv_text, effect_lines, markdown, terminal_table
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

if TYPE_CHECKING:
    from pathlib import Path

ABOUT = {
    "name": "lrn", "factor": ["model.norm"], "base": [], "tuned": [], "metric": "test/top1_error",
    "claim": "without it the error rises", "paper": "sec. 3.3",
}  # fmt: skip
BASE, NONE = [0.20, 0.22, 0.21], [0.21, 0.24, 0.24]  # gaps .01 .02 .03: mean .02, deviation .01


def done(value: float | None, **overrides: Any) -> Outcome:
    return Outcome({key.replace("__", "."): str(item) for key, item in overrides.items()}, "completed", value, value)


def lrn(base: list[float] = BASE, none: list[float] = NONE) -> list[Outcome]:
    jobs = [done(value, model__norm="lrn", seed=seed) for seed, value in enumerate(base)]
    return jobs + [done(value, model__norm="none", seed=seed) for seed, value in enumerate(none)]


def rows(summary: Summary) -> dict[str, Row]:
    return {row.cell.level[0][1]: row for row in summary.rows}


def interval(row: Row) -> tuple[float, float | None, float | None]:
    assert row.against_base is not None
    return row.against_base.mean, row.against_base.low, row.against_base.high


def test_levels_with_mean_deviation_and_paired_difference():
    found = rows(summarise(ABOUT, lrn()))
    assert (found["lrn"].sample.n, found["lrn"].sample.mean) == (3, pytest.approx(0.21))
    assert found["lrn"].sample.std == pytest.approx(0.01)
    assert found["lrn"].against_base is None
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert interval(found["none"]) == pytest.approx((0.02, 0.02 - half, 0.02 + half))
    assert found["none"].ratio is not None
    assert found["none"].ratio.value == pytest.approx(0.23 / 0.21)


def test_the_base_comes_first_whatever_the_order_of_jobs():
    found = summarise(ABOUT | {"base": ["none"]}, lrn())
    assert [row.cell.level for row in found.rows] == [(("model.norm", "none"),), (("model.norm", "lrn"),)]
    assert interval(found.rows[1])[0] == pytest.approx(-0.02)


def test_a_sweep_that_has_not_begun_has_a_table():
    found = summarise(ABOUT, [Outcome(outcome.overrides, "to_go") for outcome in lrn()])
    assert [row.sample.n for row in found.rows] == [0, 0]
    assert found.counts == dict.fromkeys(LEFT_OUT, 0) | {"to_go": 6}
    assert "| none | 0 |" in markdown(found)


def test_a_half_finished_sweep_compares_the_seeds_that_both_have():
    jobs = lrn()
    jobs[2] = Outcome(jobs[2].overrides, "failed")
    jobs[5] = Outcome(jobs[5].overrides, "interrupted")
    found = rows(summarise(ABOUT, jobs))
    assert found["lrn"].counts == dict.fromkeys(LEFT_OUT, 0) | {"failed": 1}
    gap = found["none"].against_base
    assert gap is not None
    assert (gap.mean, gap.pairs, gap.method) == (pytest.approx(0.015), 2, "paired")


def test_one_seed_has_a_difference_but_no_interval():
    assert interval(rows(summarise(ABOUT, lrn(BASE[:1], NONE[:1])))["none"]) == (pytest.approx(0.01), None, None)


def test_other_swept_keys_part_the_table():
    jobs = [
        done(0.1 * size + (norm == "none") * 0.01 * size, model__norm=norm, data__batch_size=size, seed=seed)
        for norm, size, seed in itertools.product(("lrn", "none"), (1, 2), range(2))
    ]
    found = summarise(ABOUT, jobs)
    assert [row.cell.setting for row in found.rows] == [(("data.batch_size", "1"),), (("data.batch_size", "2"),)] * 2
    assert [interval(row)[0] for row in found.rows[2:]] == pytest.approx([0.01, 0.02])
    assert "batch_size=2" in csv_text(found)


def grid() -> list[Outcome]:
    """Norm lowers the error by 1 point, width by 2, and both together by 3 less 1 of interaction."""
    value = {("none", "32"): 0.13, ("across", "32"): 0.12, ("none", "64"): 0.11, ("across", "64"): 0.11}
    return [
        done(value[norm, width] + 0.05 * seed, model__norm=norm, model__local3=width, seed=seed)
        for norm, width, seed in itertools.product(("none", "across"), ("32", "64"), range(3))
    ]


CIFAR = ABOUT | {"factor": ["model.norm", "model.local3"], "base": ["none", 32]}


def test_two_factors_have_a_row_for_each_combination():
    found = summarise(CIFAR, grid())
    gaps = {row.cell.level: row.against_base.mean for row in found.rows if row.against_base}
    assert gaps == {
        (("model.norm", norm), ("model.local3", width)): pytest.approx(gap)
        for norm, width, gap in (("none", "64", -0.02), ("across", "32", -0.01), ("across", "64", -0.02))
    }


def test_each_of_two_factors_has_an_effect_averaged_over_the_other():
    effects = {effect.key: effect for effect in summarise(CIFAR, grid()).effects}
    assert effects["model.norm"].against_base.mean == pytest.approx(-0.005)  # mean of -1 and 0 points
    assert effects["model.local3"].against_base.mean == pytest.approx(-0.015)
    assert effects["model.norm"].against_base.pairs == 3
    lines = effect_lines(summarise(CIFAR, grid()))
    assert (
        lines[0] == "- model.norm=across against none: -0.50 points (no interval: all differences are equal), 3 seeds"
    )


def test_an_effect_takes_only_seeds_and_cells_that_are_there_on_both_sides():
    jobs = [
        outcome for outcome in grid() if outcome.overrides["seed"] != "2" or outcome.overrides["model.norm"] == "none"
    ]
    effect = summarise(CIFAR, jobs).effects[0]
    assert (effect.key, effect.against_base.pairs) == ("model.norm", 2)
    one = [outcome for outcome in grid() if outcome.overrides["seed"] == "0"]
    assert effect_lines(summarise(CIFAR, one))[0].endswith(" points, 1 seed")


def test_a_tuned_key_takes_its_best_value_in_each_level():
    best = {"relu": "0.01", "tanh": "0.001"}
    jobs = [
        done(6.0 * (1 if activation == "relu" else 6) + (rate != best[activation]) + seed, model__activation=activation,
             optimizer__learning_rate=rate, seed=seed)
        for activation, rate, seed in itertools.product(("relu", "tanh"), ("0.001", "0.01"), range(3))
    ]  # fmt: skip
    about = ABOUT | {"factor": ["model.activation"], "tuned": ["optimizer.learning_rate"], "metric": "to_error/epochs"}
    found = summarise(about, jobs)
    assert [dict(row.tuned)["optimizer.learning_rate"] for row in found.rows] == ["0.01", "0.001"]
    assert [row.sample.mean for row in found.rows] == [7.0, 37.0]
    assert found.rows[1].ratio is not None
    assert found.rows[1].ratio.value == pytest.approx(37 / 7)
    head, lines = cells(found)
    assert head == ["activation", "tuned", "n", "mean", "deviation", "difference", "95 % interval", "ratio"]
    assert lines[1][-1] == "5.29x (4.16 to 7.64)"
    assert markdown(found).endswith("The tuned keys are those of each level's best mean.\n")
    on_test = summarise(about | {"metric": "test/top1_error"}, jobs)
    assert markdown(on_test).endswith("each level's best mean on the validation part.\n")


def test_a_tuned_value_of_more_seeds_is_compared_over_those_that_both_have():
    """As after an extension that adds a seed to one value alone."""
    jobs = [
        done(value, model__activation=activation, optimizer__learning_rate=rate, seed=seed)
        for activation in ("relu", "tanh")
        for rate, seed, value in (("0.00001", 0, 0.9), ("0.00001", 1, 0.9), ("0.03", 0, 0.5))
    ]
    about = ABOUT | {"factor": ["model.activation"], "tuned": ["optimizer.learning_rate"], "metric": "test/top1_error"}
    assert [dict(row.tuned)["optimizer.learning_rate"] for row in summarise(about, jobs).rows] == ["0.03", "0.03"]


def test_a_tuned_value_that_gets_there_more_often_wins_against_a_quicker_one():
    epochs = {"0.1": [1.0, None], "0.01": [9.0, 9.0]}
    jobs = [
        done(value, model__activation=activation, optimizer__learning_rate=rate, seed=seed)
        for activation, rate in itertools.product(("relu", "tanh"), epochs)
        for seed, value in enumerate(epochs[rate])
    ]
    about = ABOUT | {"factor": ["model.activation"], "tuned": ["optimizer.learning_rate"], "metric": "to_error/epochs"}
    assert [row.sample.mean for row in summarise(about, jobs).rows] == [9.0, 9.0]


@pytest.mark.parametrize(
    ("about", "jobs", "message"),
    [
        ({"factor": ["model.pool"]}, lrn(), "the sweep is over `model.pool`, which no job sets; give its values"),
        ({"tuned": ["optimizer.learning_rate"]}, lrn(), "the sweep is over `optimizer.learning_rate`, which no job"),
        ({}, lrn(none=[]), "`model.norm` is lrn in all jobs, so there is nothing to compare; set model.norm=A,B"),
        ({"base": ["lrn", 32]}, lrn(), "`sweep.base` has 2 values for 1 factors: model.norm"),
        ({"base": ["batch"]}, lrn(), "`sweep.base` is batch for `model.norm`, which no job has; set one of lrn, none"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_reported(about, jobs, message):
    with pytest.raises(ConfigError, match=message):
        summarise(ABOUT | about, jobs)


@pytest.mark.parametrize(
    ("base", "values"),
    [(0.0005, ["5e-4", "0.0"]), (None, ["null", "2"]), (True, ["true", "false"]), ("none", ["none", "conv3"])],
    ids=str,
)
def test_the_base_is_found_however_it_is_written(base, values):
    found = base_level({"factor": ["k"], "base": [base]}, [{"k": value} for value in reversed(values)])
    assert found == (("k", values[0]),)


def test_seeds_alone_make_one_row():
    found = summarise(ABOUT | {"factor": []}, [done(value, seed=seed) for seed, value in enumerate(BASE)])
    assert [row.sample.mean for row in found.rows] == [pytest.approx(0.21)]
    assert cells(found)[1][0][0] == "all"


def test_overrides_are_split():
    assert split(["+model.norm=lrn", "seed=0", "++a.b=x=y"]) == {"model.norm": "lrn", "seed": "0", "a.b": "x=y"}


def test_errors_are_shown_in_per_cent():
    head, lines = cells(summarise(ABOUT, lrn()))
    assert head == ["norm", "n", "mean, %", "deviation", "difference, points", "95 % interval"]
    assert lines == [
        ["lrn", "3", "21.00", "1.00", "base", ""],
        ["none", "3", "23.00", "1.73", "+2.00", "-0.48 to +4.48"],
    ]


def test_welch_is_named():
    jobs = [done(value, model__norm=norm, seed=seed) for norm, seed, value in
            (("lrn", 0, 0.2), ("lrn", 1, 0.3), ("none", 2, 0.2), ("none", 3, 0.4))]  # fmt: skip
    assert cells(summarise(ABOUT, jobs))[1][1][-1].endswith("(Welch)")


def test_a_table_of_three_levels_is_corrected_and_notes_it():
    batch = [done(value, model__norm="batch", seed=seed) for seed, value in enumerate([0.15, 0.18, 0.16])]
    found = summarise(ABOUT, lrn() + batch)
    head, lines = cells(found)
    assert head[-2:] == ["simultaneous 95 % interval", "p (Holm)"]
    half = 6.205347 * 0.01 / math.sqrt(3)  # t of 97.5 % with 2 degrees
    assert interval(rows(found)["none"]) == pytest.approx((0.02, 0.02 - half, 0.02 + half))
    assert [line[-1] for line in lines] == ["", "0.074", "0.010"]  # batch: t = 14, p = 0.00506, times 2
    assert "2 comparisons: the intervals hold together (Bonferroni, 97.5 % each), and p is" in markdown(found)
    record = list(csv.DictReader(io.StringIO(csv_text(found))))[1]
    assert (record["comparisons"], float(record["p"])) == ("2", pytest.approx(0.0742, abs=1e-4))
    assert "comparisons" not in markdown(summarise(ABOUT, lrn()))


def test_csv_holds_all_numbers_in_full():
    jobs = lrn()
    jobs[5] = Outcome(jobs[5].overrides, "failed")
    base, none = csv.DictReader(io.StringIO(csv_text(summarise(ABOUT, jobs))))
    assert base["level"] == "lrn"
    assert base["difference"] == base["ci95_low"] == base["ratio"] == ""
    assert (none["n"], none["pairs"], none["interval"], none["failed"], none["to_go"]) == ("2", "2", "paired", "1", "0")
    assert float(none["mean"]) == pytest.approx(0.225)
    assert float(none["ci95_low"]) == pytest.approx(0.015 - 12.7062 * 0.005, abs=1e-6)


def test_markdown_says_claim_table_and_how_to_read_it():
    jobs = lrn()
    jobs[5] = Outcome(jobs[5].overrides, "failed")
    text = markdown(summarise(ABOUT, jobs))
    assert text.startswith("# Sweep lrn: test/top1_error\n\nClaim: without it the error rises\n\nPaper: sec. 3.3\n")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    assert table[3].endswith("| 1 failed |")
    assert "Student's t" in text


def test_markdown_escapes_what_would_break_its_table():
    jobs = [done(0.1, tags="[a|b]", seed="0"), done(0.2, tags="x", seed="0")]
    assert "| [a\\|b] | 1 |" in markdown(summarise(ABOUT | {"factor": ["tags"]}, jobs))


def test_terminal_shows_values_as_they_are():
    jobs = [done(0.1, tags="[red]a", seed="0"), done(0.2, tags="x", seed="0")]
    console = Console(file=io.StringIO(), width=120)
    console.print(terminal_table(summarise(ABOUT | {"factor": ["tags"]}, jobs)))
    assert "[red]a" in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue] - a StringIO


def sweep_on_disk(folder: Path, metric: str = "test/top1_error") -> tuple[SweepDirectory, Definition]:
    words = [(f"model.norm={norm}", f"seed={seed}") for norm in ("lrn", "none") for seed in range(2)]
    jobs = tuple(Job(name, overrides) for name, overrides in named(words))
    definition = Definition(ABOUT | {"metric": metric}, "python train.py -m ...", (), jobs)
    sweep = SweepDirectory(folder)
    sweep.write(definition)
    return sweep, definition


def entry(job: str, status: str = "completed", **metrics: float | None) -> dict[str, Any]:
    return {"job": job, "status": status, "metrics": {key.replace("__", "/"): value for key, value in metrics.items()}}


def test_the_last_line_of_a_job_counts(tmp_path, capsys):
    sweep, definition = sweep_on_disk(tmp_path)
    sweep.append(entry("model.norm-lrn_seed-0", "failed"))
    sweep.append(entry("model.norm-lrn_seed-0", test__top1_error=0.2, val__top1_error=0.3))
    sweep.append(entry("model.norm-none_seed-0", test__top1_error=None))
    first = outcomes(sweep, definition)[0]
    assert (first.status, first.value, first.choice) == ("completed", 0.2, 0.3)
    summary = update_summary(sweep, definition)
    assert summary.counts == dict.fromkeys(LEFT_OUT, 0) | {"to_go": 2, "empty": 1}
    assert "20.00" in sweep.summary_md.read_text()
    assert sweep.summary_csv.read_text().count("\n") == 3
    show(summary)
    printed = capsys.readouterr().out
    assert "Sweep lrn: test/top1_error" in printed
    assert "1 to go, 1 without a value" in printed


def test_a_number_of_result_json_can_be_the_metric(tmp_path):
    sweep, definition = sweep_on_disk(tmp_path, "to_error/epochs")
    for number, epochs in enumerate((6.5, None)):
        job = definition.jobs[number]
        write_json(
            sweep.run(job).result, {"status": "completed", "metrics": {}, "to_error": {"error": 0.25, "epochs": epochs}}
        )
        sweep.append(entry(job.name, test__top1_error=0.2))
    assert [outcome.value for outcome in outcomes(sweep, definition)] == [6.5, None, None, None]
