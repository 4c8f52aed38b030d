"""The HTML page: what it holds, how large it is, and that nothing in it is taken for code."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources

import pytest
from made import MANIFEST, make_run, make_sweep

from alexnet_lab.report.page import CHART_VERSION, epoch_step, link, page
from alexnet_lab.report.sources import from_runs, from_sweep
from alexnet_lab.report.text_tables import origin

CHART_SHA256 = "87364cc2b2a76a6684929e7d6b80b18a897794db38400caff1fcf1791c6925d2"
"""Of chart.umd.min.js as npm delivers it in chart.js 4.6.1."""

EVIL = "<script>alert('1')</script>\"&"


def data_of(text: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def test_holds_claim_table_failures_and_origin(sweep):
    text = page(from_sweep(sweep), sweep)
    for part in (
        "ReLUs learn faster", "25 % after 5 epochs", "5 of 6 runs completed, 1 failed",
        '<td class="number">12.00</td>', "+3.15 to +15.85", "RunError: the training loss is nan",
        "python train.py -m sweep=activation", "0123abcd",
        'href="./model.activation-tanh_seed-2/"', "2 cores of a processor",
    ):  # fmt: skip
        assert part in text
    data = data_of(text)
    assert data["levels"] == ["relu", "tanh"]
    assert data["runs"][1]["metrics"]["test/top1_error"] == 0.12
    assert data["runs"][1]["curves"]["learning_rate"] == [0.1, 0.05, 0.033333]


def test_needs_nothing_from_elsewhere(sweep):
    text = page(from_sweep(sweep), sweep)
    assert re.findall(r'\b(?:src|srcset|action)\s*=\s*["\']', text.split('<script type="application/json"')[0]) == []
    assert set(re.findall(r'href="([^"]*)"', text)) == {link(run, sweep) for run in from_sweep(sweep).runs}
    assert "sourceMappingURL" not in text
    assert "default-src &#39;none&#39;" in text


def test_texts_of_runs_are_no_code(tmp_path):
    folder = make_sweep(
        tmp_path / "sweep", {"relu": [0.1], "tanh": [float("nan")]}, name=EVIL, claim=EVIL, command=EVIL
    )
    definition = json.loads((folder / "sweep.json").read_text())
    for number, job in enumerate(definition["jobs"]):
        job["job"] = f"{EVIL}{number}"
    (folder / "sweep.json").write_text(json.dumps(definition))
    result = folder / definition["jobs"][1]["run_dir"] / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"error": EVIL}))
    text = page(from_sweep(folder), folder)
    assert "<script>alert" not in text
    assert text.count("<script") == 3
    assert data_of(text)["runs"][0]["name"] == f"{EVIL}0"


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("javascript:alert(1)", "./javascript%3Aalert%281%29/"),
        ('a "b" <c>', "./a%20%22b%22%20%3Cc%3E/"),
        ("50%#?", "./50%25%23%3F/"),
    ],
)
def test_links_lead_to_directories(name, address, tmp_path):
    (run,) = from_runs([str(make_run(tmp_path / name))]).runs
    assert link(run, tmp_path) == address
    assert link(run, tmp_path / "reports" / "one") == f"./../../{address[2:]}"


def test_policy_names_the_scripts_of_the_page(sweep):
    text = page(from_sweep(sweep), sweep)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        digest = hashlib.sha256(script.encode()).digest()
        assert base64.b64encode(digest).decode() in text.replace("&#43;", "+").replace("&#x3D;", "=")


def test_long_runs_lose_epochs_and_the_page_stays_small(tmp_path):
    more = {f"layers/conv{number}/update_ratio": 0.001234567 for number in range(16)}
    for number in range(60):
        make_run(tmp_path / f"run{number:02}", seed=number, epochs=200, more=more)
    study = from_runs([f"{tmp_path}/run*"])
    assert epoch_step(study) == 3  # 60 runs x 200 epochs x 24 columns = 288,000 numbers, of which 120,000 are kept
    text = page(study, tmp_path)
    assert "Every 3rd epoch is drawn" in text
    assert len(text.encode()) < 3_000_000
    epochs = data_of(text)["runs"][0]["epochs"]
    assert epochs[:3] == [1, 4, 7]
    assert epochs[-1] == 200


@pytest.mark.parametrize(("points", "diamonds"), [({"tanh": 3.0}, 1), (None, 0)])
def test_the_note_on_diamonds_is_there_with_them_alone(points, diamonds, tmp_path):
    errors = {"relu": [0.1, 0.2], "tanh": [0.3, 0.2]}  # its interval leaves the axis, so there are arrows too
    folder = make_sweep(tmp_path / "sweep", errors, paper_points=points)
    text = page(from_sweep(folder), folder)
    assert '<path class="interval"' in text
    assert text.count('<path class="papers"') == text.count("a diamond is the paper's number") == diamonds


def test_each_metric_has_a_note_of_its_own(tmp_path):
    """The number of comparisons depends on it: sigmoid reaches no goal."""
    errors = {"relu": [0.1, 0.2, 0.4], "tanh": [0.2, 0.35, 0.4], "sigmoid": [0.3, 0.3, 0.5]}
    folder = make_sweep(tmp_path / "sweep", errors)
    for path in [*folder.glob("*relu*/result.json"), *folder.glob("*tanh*/result.json")]:
        goal = {"error": 0.25, "epochs": 1.0 + 2 * int(path.parent.name[-1]) ** 2}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"to_error": goal}))
    text = page(from_sweep(folder), folder)
    found = dict(re.findall(r'data-metric="(.*?)".*?<p class="note">(n jobs.*?)</p>', text, re.DOTALL))
    assert "2 comparisons" in found["test/top1_error"]
    assert "2 comparisons" not in found["to_error/epochs"]


def test_a_study_without_results_is_a_page_too(tmp_path):
    folder = make_sweep(tmp_path / "sweep", {"relu": [None]})
    text = page(from_sweep(folder), folder)
    assert "No run is complete yet." in text
    assert "0 of 1 run completed, 1 to go" in text


@pytest.mark.parametrize(
    ("manifest", "versions", "hardware"),
    [
        (MANIFEST, "Python 3.11.7, torch 2.9.0", "2 cores of a processor, 8.0 GiB, no GPU"),
        ({"packages": {"torch": "2.9"}, "hardware": {"processor": "a processor"}}, "torch 2.9", "a processor, no GPU"),
        ({"python": "3.11.7", "hardware": {"cores": 2, "gpus": ["a GPU"]}}, "Python 3.11.7", "2 cores, a GPU"),
        ({"hardware": {}}, None, None),
    ],
)
def test_the_origin_leaves_out_what_a_manifest_lacks(manifest, versions, hardware, tmp_path):
    run = make_run(tmp_path / "run")
    (run / "manifest.json").write_text(json.dumps(manifest))
    found = dict(origin(from_runs([str(run)])))
    assert (found.get("versions"), found.get("hardware")) == (versions, hardware)


def test_chart_library_is_as_published_with_its_licence():
    assets = resources.files("alexnet_lab.report") / "assets"
    script = (assets / f"chart-{CHART_VERSION}.umd.min.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() == CHART_SHA256
    assert "The MIT License (MIT)" in (assets / f"chart-{CHART_VERSION}.LICENSE.md").read_text()
    assert b"</script" not in script
