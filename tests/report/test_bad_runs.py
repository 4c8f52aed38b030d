"""Whatever a run's files hold, report.py lists the run with the reason and shows the others; nothing is destroyed."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from made import make_run, make_sweep, report

if TYPE_CHECKING:
    from pathlib import Path

GOOD: dict[str, Any] = {
    "status": "completed", "metrics": {"test/top1_error": 0.1}, "epochs": 3, "images_per_second": 1.5,
    "wall_seconds": 9, "error": None,
}  # fmt: skip


def result(**changes: Any) -> str:
    return json.dumps(GOOD | changes)


BAD_RESULTS = {
    "no metrics": ('{"status": "completed"}', "`metrics` is missing"),
    "deep": ('{"status": "completed", "metrics": {}, "a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    "not so deep": ('{"status": "completed", "metrics": {}, "a": ' + "[" * 500 + "]" * 500 + "}", "nested too deeply"),
    "empty": ("", "Expecting value"),
    "no JSON": ("{'status': 1}", "cannot be read"),
    "a list": ("[]", "contains no result"),
    "null": ("null", "contains no result"),
    "status": (result(status="fine"), "`status` is 'fine' (str); allowed: 'completed', 'failed' or 'interrupted'"),
    "no status": ("{}", "contains no result"),
    "metrics as a list": (result(metrics=[0.1]), "`metrics` is ... (list)"),
    "metrics as text": (result(metrics={"test/loss": "0.1"}), "`metrics.test/loss` is '0.1' (str); allowed: number"),
    "a metric true": (result(metrics={"test/loss": True}), "`metrics.test/loss` is True (bool)"),
    "a metric of lists": (result(metrics={"test/loss": [1]}), "`metrics.test/loss` is ... (list)"),
    "a metric NaN": (result(metrics={"test/loss": float("nan")}), "NaN is no number in JSON"),
    "a metric infinite": (result(metrics={"test/loss": 1.0}).replace("1.0}", "1e999}"), "`metrics.test/loss` is inf"),
    "a huge metric": (result(metrics={"test/loss": 10**400}), "`metrics.test/loss` is 1000"),
    "an error above one": (result(metrics={"test/top1_error": 1.5}), "allowed: `test/top1_error` in [0, 1]"),
    "an error below zero": (result(metrics={"val/top5_error": -0.1}), "allowed: `val/top5_error` in [0, 1]"),
    "a metric without name": (result(metrics={"": 0.1}), "allowed: a name of printable characters"),
    "a metric of two lines": (result(metrics={"test/\nloss": 0.1}), "allowed: a name of printable characters"),
    "epochs as text": (result(epochs="3"), "`epochs` is '3' (str); allowed: integer"),
    "epochs below zero": (result(epochs=-3), "`epochs` is -3 (int); allowed: greater than or equal to 0"),
    "huge epochs": (result().replace(": 3,", ": " + "9" * 5000 + ","), "cannot be read"),
    "speed as text": (result(images_per_second="fast"), "`images_per_second` is 'fast'"),
    "time below zero": (result(wall_seconds=-1.0), "`wall_seconds` is -1.0"),
    "error as a list": (result(error=["a"]), "`error` is ... (list)"),
    "to_error as a number": (result(to_error=3), "`to_error` is 3 (int); allowed: a record of fields"),
    "to_error without error": (result(to_error={"epochs": 2.0}), "`to_error.error` is missing"),
    "files as a list": (result(files=["a"]), "`files` is ... (list)"),
    "a newer version": (result(version=99), "`version` is 99 (int); allowed: less than or equal to 1"),
    "half a character": (result(error="\ud800"), "text that is not Unicode"),
    "bytes": (b"\xff\xfe{", "no text in UTF-8"),
}  # fmt: skip

BAD_METRICS = {
    "no csv": ("epoch,step\nx,y\n", "line 2: `epoch` is 'x'; allowed: a number"),
    "csv without epochs": ("step,val/loss\n1,0.5\n", "it has no column `epoch`"),
    "half an epoch": ("epoch,val/loss\n0.5,0.5\n", "line 2: `epoch` is '0.5'; allowed: whole numbers from 0"),
    "no epoch": ("epoch,val/loss\n,0.5\n", "line 2: `epoch` is ''; allowed: whole numbers from 0"),
    "a long row": ("epoch,val/loss\n0,0.5,7\n", "line 2 has 3 cells, not 2"),
    "a short row": ("epoch,val/loss\n0\n", "line 2 has 1 cells, not 2"),
    "two columns alike": ("epoch,a,a\n0,1,2\n", "its columns have no names, or two have the same"),
    "a huge number": ("epoch,val/loss\n0,1e300\n", "`val/loss` is '1e300'; allowed: numbers up to 1e+50"),
    "a huge cell": ("epoch,val/loss\n0," + "1" * 200_000 + "\n", "field larger than field limit"),
    "csv of bytes": (b"epoch\n\xff\n", "no text in UTF-8"),
}

BAD_CONFIGS = {
    "yaml": ("a: [", "config.yaml cannot be read"),
    "deep yaml": ("a: " + "[" * 20_000, "config.yaml cannot be read: it is nested too deeply"),
    "yaml list": ("[]", "config.yaml contains no config"),
    "seed": ("seed: zero\n", "`seed` is 'zero' (str)"),
    "overrides": ("overrides: 3\n", "`overrides` is 3 (int)"),
    "model": ("model: [1]\n", "`model` is ... (list)"),
    "logger": ("logger: {group: [1]}\n", "`logger.group` is ... (list)"),
}

CASES = [
    *((name, "result.json", *case) for name, case in BAD_RESULTS.items()),
    *((name, "metrics.csv", *case) for name, case in BAD_METRICS.items()),
    *((name, "config.yaml", *case) for name, case in BAD_CONFIGS.items()),
]


def put(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))


def test_each_bad_run_is_listed_with_its_reason_beside_the_good_one(tmp_path):
    make_run(tmp_path / "runs" / "good", error=0.25)
    for name, file, content, _ in CASES:
        put(make_run(tmp_path / "runs" / name) / file, content)
    outcome = report(f"runs={tmp_path}/runs/*", f"out={tmp_path / 'out'}")
    assert outcome.code == 0, outcome.err
    assert f"{len(CASES)} of {len(CASES) + 1} runs cannot be read: " in outcome.err
    text = (tmp_path / "out" / "report.html").read_text()
    failures = text.split('<section id="failures">')[1].split("</section>")[0].replace("&#39;", "'")
    for name, _, _, reason in CASES:
        line = next(line for line in failures.splitlines() if f">{name}</a>" in line)
        assert "(unreadable)" in line
        assert reason in line, name
    assert '<td class="number">25.00</td>' in text


@pytest.mark.parametrize("make", ["folder", "pipe", "link to nothing", "huge"])
@pytest.mark.parametrize("file", ["result.json", "metrics.csv", "config.yaml"])
def test_something_else_in_the_place_of_a_file(make, file, tmp_path):
    make_run(tmp_path / "good")
    path = make_run(tmp_path / "bad", error=0.3, seed=1) / file
    path.unlink()
    if make == "folder":
        path.mkdir()
    elif make == "pipe":
        os.mkfifo(path)
    elif make == "link to nothing":
        path.symlink_to(tmp_path / "nothing")
    else:
        with path.open("wb") as large:
            large.truncate(2**40)
    outcome = report(f"runs=[{tmp_path}/good,{tmp_path}/bad]", f"out={tmp_path / 'out'}")
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err
    if make != "link to nothing":
        assert f"1 of 2 runs cannot be read: bad: {path} cannot be read: " in outcome.err


def test_where_no_run_can_be_read_nothing_is_written(tmp_path):
    for name in ("one", "two"):
        put(make_run(tmp_path / name) / "result.json", '{"status": "completed"}')
    outcome = report(f"runs={tmp_path}/*", f"out={tmp_path / 'out'}")
    assert outcome.code == 1
    assert "error: 2 of 2 runs cannot be read: one: " in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_bad_job_leaves_the_rest_of_its_sweep(tmp_path):
    sweep = make_sweep(tmp_path / "sweep", {"relu": [0.1, 0.2, 0.3], "tanh": [0.2, 0.3, 0.4]})
    put(sweep / "model.activation-tanh_seed-1" / "result.json", '{"status": "completed"}')
    lines = (sweep / "ledger.jsonl").read_text().splitlines()
    bad = ["[]", '{"job": "x"}', "[" * 100_000, lines[0].replace('"completed"', '"well"'), '{"job": 3}', "\x00"]
    (sweep / "ledger.jsonl").write_text("\n".join([*lines, *bad]) + "\n")
    outcome = report(f"sweep={sweep}")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("is damaged and ignored") == len(bad)
    assert "5 of 6 runs completed, 1 unreadable" in outcome.err
    assert "| tanh | 2 | 30.00" in (sweep / "summary.md").read_text()
    assert "1 unreadable" in (sweep / "summary.md").read_text()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"jobs": 3}, "`jobs` is 3 (int)"),
        ({"jobs": [{"job": "../../x", "overrides": []}]}, "allowed: a folder inside the sweep's"),
        ({"jobs": [{"job": "/etc", "overrides": []}]}, "allowed: a folder inside the sweep's"),
        ({"jobs": [{"job": "a", "overrides": []}] * 2}, "allowed: jobs of different names"),
        ({"jobs": [{"job": "a", "overrides": "b"}]}, "`jobs.0.overrides` is 'b' (str)"),
        ({"factor": "model.norm"}, "`factor` is 'model.norm' (str)"),
        ({"factor": [["a"]]}, "`factor.0` is ... (list)"),
        ({"base": [{}]}, "`base.0"),
        ({"claim": 7}, "`claim` is 7 (int)"),
        ({"metric": None}, "`metric` is None"),
        ({"also": 3}, "`also` is 3 (int)"),
        ({"paper_points": {"tanh": "2"}}, "`paper_points.tanh` is '2' (str)"),
        ({"config": []}, "`config` is ... (list)"),
        ({"version": 99}, "`version` is 99 (int)"),
    ],
    ids=str,
)
def test_a_bad_definition_is_reported_in_one_line(changes, reason, sweep):
    content = json.loads((sweep / "sweep.json").read_text()) | changes
    (sweep / "sweep.json").write_text(json.dumps(content))
    outcome = report(f"sweep={sweep}")
    assert outcome.code == 1
    assert f"error: {sweep}/sweep.json cannot be read: " in outcome.err
    assert reason in outcome.err


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base": ["sigmoid"]}, "`sweep.base` is sigmoid for `model.activation`, which no job has"),
        ({"base": ["relu", 1]}, "`sweep.base` has 2 values for 1 factors"),
        ({"factor": ["model.nothing"]}, "the sweep is over `model.nothing`, which no job sets"),
        ({"tuned": ["optimizer.nothing"]}, "the sweep is over `optimizer.nothing`, which no job sets"),
    ],
    ids=str,
)
def test_a_comparison_that_cannot_be_made_leaves_the_results(changes, reason, sweep):
    content = json.loads((sweep / "sweep.json").read_text()) | changes
    (sweep / "sweep.json").write_text(json.dumps(content))
    outcome = report(f"sweep={sweep}")
    assert outcome.code == 0, outcome.err
    assert f"warning: {sweep}/sweep.json: {reason}" in outcome.err
    table = (sweep / "summary.md").read_text()
    assert "difference, points" not in table
    assert "activation=tanh" in table


@pytest.mark.parametrize(
    "content", ["[]", '{"packages": []}', '{"hardware": {"gpus": 3}}', "{", '{"git": {}}'], ids=str
)
def test_a_bad_manifest(content, tmp_path):
    make_run(tmp_path / "good")
    (make_run(tmp_path / "bad", seed=1) / "manifest.json").write_text(content)
    outcome = report(f"runs={tmp_path}/*", f"out={tmp_path / 'out'}")
    assert outcome.code == 0
    assert f"1 of 2 runs cannot be read: bad: {tmp_path}/bad/manifest.json cannot be read" in outcome.err


def test_names_that_are_no_text(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    make_run(folder)
    outcome = report(f"runs={tmp_path}/*", f"out={tmp_path / 'out'}")
    assert outcome.code == 0, outcome.err
    text = (tmp_path / "out" / "report.html").read_text()
    assert "caf\\udce9" in text
    assert 'href="./../caf%E9/"' in text


def test_a_run_counts_once(tmp_path):
    run = make_run(tmp_path / "one", error=0.125)
    (tmp_path / "two").symlink_to(run)
    outcome = report(f"runs=[{run},{run}/,{tmp_path}/*]", f"out={tmp_path / 'out'}")
    assert outcome.code == 0
    assert "1 of 1 run completed" in outcome.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("runs={here}/nothing", "nothing is no run: there is no such directory"),
        ("runs=[{here}/run,{here}/nothing]", "nothing is no run: there is no such directory"),
        ("runs=[{here}/run,{here}/empty]", "empty is no run: it has no config.yaml"),
        ("runs={here}/sweep", "sweep is a sweep: sweep={here}/sweep"),
        ("runs=[]", "`runs` is [] (list); allowed: string or a list that is not empty"),
    ],
)
def test_what_is_no_run(words, message, tmp_path):
    make_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    make_sweep(tmp_path / "sweep", {"relu": [0.1]})
    outcome = report(words.format(here=tmp_path), f"out={tmp_path / 'out'}")
    assert outcome.code == (2 if words == "runs=[]" else 1)  # a wrong value; a run that is not there
    assert message.format(here=tmp_path) in outcome.err
    assert not (tmp_path / "out").exists()
