"""Sweeps in `results/`: run there, committed, cloned, continued, extended; their pages say what their ledgers say."""

from __future__ import annotations

import csv
import json
import os
import re
import runpy
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml
from commands import QUICK, REPOSITORY, Outcome, call
from made import make_sweep, report
from publishing import CLAIMS, faults

from alexnet_lab.base.files import sealed
from alexnet_lab.run import provenance
from alexnet_lab.sweeps import job_states
from alexnet_lab.sweeps.sweep_directory import SweepDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

TRAIN = runpy.run_path(str(REPOSITORY / "train.py"))["train"]

NOT_QUICK = "callbacks.augmentation_preview=false"
"""A word of QUICK that sweeps may do without: the preview is a file that git must ignore."""

WORDS = (
    *(word for word in QUICK if word != NOT_QUICK), "launcher=in_process", "trainer.accelerator=cpu",
    "trainer.max_epochs=1", "trainer.limit_train_batches=6", "model.activation=relu,tanh",
    "sweep.claim=with tanh the error is higher", "sweep.paper=Krizhevsky 2012", "sweep.expects=higher",
    "sweep.differs=[LeNet-5 and digits.,One epoch.]", "hydra.sweep.dir=results/tiny",
)  # fmt: skip
"""A sweep of two levels, trained in a second a run."""

VIEWS = {"evaluation": "views", "expects": "lower", "metric": "test/top1_error", "compared": "ten", "over": "images"}

OURS = [
    {"sweep": "tiny", "level": "tanh"},
    {"sweep": "tiny", "level": "tanh", "metric": "val/loss", "expects": None},
    VIEWS,
    {"exact": "parameters"},
]

CLAIM = {
    "sweeps": {"tiny": {"what": "digits", "command": "python train.py -m model.activation=relu,tanh"}},
    "evaluations": {"views": {"what": "views", "command": "python eval.py run=RUN"}},
    "claims": [{"number": 1, "claim": "tanh is worse", "paper": "no number", "section": "sec. 3.1", "ours": OURS}],
}


class Published(NamedTuple):
    """A repository with a published sweep."""

    root: Path
    ended: Outcome  # how the sweep's command ended

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def sweep(self) -> Path:
        return self.results / "tiny"


def git(folder: Path, *words: str) -> str:
    names = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org", "-c", "core.autocrlf=input")
    command = ["git", "-C", str(folder), *names, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def train(folder: Path, *words: str) -> Outcome:
    """`python train.py -m words` in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return call(TRAIN, "train", "-m", *WORDS, *words)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, digits_dir: Path) -> Iterator[Published]:
    """A sweep that was run in a repository, with its pages. Do not change it; copy it."""
    root = tmp_path_factory.mktemp("repository")
    for name in (".gitignore", ".gitattributes"):
        shutil.copy(REPOSITORY / name, root)
    (root / "src").mkdir()
    (root / "src" / "code.py").write_text("")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "code")
    state = provenance.git_state
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALEXNET_LAB_DATA", str(digits_dir))
        patch.setattr(provenance, "git_state", lambda _: state(root / "src"))
        ended = train(root, "seed=0,1")
        with pytest.MonkeyPatch.context() as inside:
            inside.chdir(root)
            assert report("sweep=results/tiny", "readme=true").code == 0
        (root / "results" / "claims.yaml").write_text(yaml.safe_dump(CLAIM))
        (root / "results" / "README.md").write_text(CLAIMS["page"](root / "results"))
        yield Published(root, ended)


@pytest.fixture
def copy(published: Published, tmp_path: Path) -> Published:
    return Published(shutil.copytree(published.root, tmp_path / "copy"), published.ended)


def test_of_what_is_committed_all_agrees():
    assert faults(REPOSITORY / "results") == []
    kept = git(REPOSITORY, "ls-files", "results").splitlines() if (REPOSITORY / ".git").exists() else []
    assert [name for name in kept if re.search(r"\.(ckpt|html|log|lock|png|npz)$", name)] == []


def test_pages_and_records_of_a_sweep_agree(published):
    assert published.ended.code == 0, published.ended.err
    assert faults(published.results) == []


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def change_result(sweep: Path) -> None:
    """Another number, under a checksum that fits."""
    path = sweep / "model.activation-tanh_seed-1" / "result.json"
    content = json.loads(path.read_text())
    content["metrics"]["test/top1_error"] /= 2
    path.write_text(json.dumps(sealed(content)))


def change_manifest(sweep: Path, **git: Any) -> None:
    path = sweep / "model.activation-relu_seed-0" / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"git": content["git"] | git}))


def mean(sweep: Path) -> str:
    """The mean of the level tanh, as the page has it."""
    (found,) = re.findall(r"^\| tanh \| 2 \| ([\d.]+) ", (sweep / "README.md").read_text(), re.MULTILINE)
    return found


EDITS = {
    "page": (lambda sweep: replace(sweep / "README.md", mean(sweep), "1.23"), "tiny/README.md is not what report.py"),
    "table": (lambda sweep: replace(sweep / "summary.csv", "tanh,,,", "tanh,,,9"), "tiny/summary.csv is not what"),
    "words": (lambda sweep: replace(sweep / "summary.md", mean(sweep), "1.23"), "tiny/summary.md is not what report"),
    "result": (change_result, "`metrics` is not that of the ledger"),
    "damaged result": (
        lambda sweep: replace(sweep / "model.activation-relu_seed-0" / "result.json", '"epochs": 1', '"epochs": 2'),
        "its checksum does not match its content",
    ),
    "curves": (
        lambda sweep: replace(sweep / "model.activation-relu_seed-0" / "metrics.csv", "0.", "1."),
        "metrics.csv is not the file that the run wrote",
    ),
    "ledger": (lambda sweep: replace(sweep / "ledger.jsonl", '"epochs": 1', '"epochs": 2'), "no line in the ledger"),
    "uncommitted": (lambda sweep: change_manifest(sweep, dirty=True), "no clean commit"),
    "no commit": (lambda sweep: change_manifest(sweep, commit=""), "no clean commit"),
    "claims": (lambda sweep: replace(sweep.parent / "README.md", "60,965,224", "61"), "README.md is not what tools/"),
    "a path": (lambda sweep: replace(sweep / "sweep.json", '"data.batch_size=16"', '"data.dir=/home/me"'), "/home/me"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_number_is_found(name, copy):
    edit, message = EDITS[name]
    edit(copy.sweep)
    assert any(message in fault for fault in faults(copy.results)), faults(copy.results)


def test_git_keeps_what_identifies_a_run_and_nothing_else(published):
    names = {path.name for path in (published.sweep / "model.activation-relu_seed-0").iterdir()}
    assert {"checkpoints", "train.log", "augmentation.png", "manifest.json"} <= names
    kept = git(published.root, "ls-files", "--others", "--exclude-standard").splitlines()
    jobs = [f"model.activation-{level}_seed-{seed}" for level in ("relu", "tanh") for seed in (0, 1)]
    records = ("config.yaml", "manifest.json", "metrics.csv", "result.json")
    own = ("README.md", "ledger.jsonl", "summary.csv", "summary.md", "sweep.json")
    figures = [f"figures/{name}.svg" for name in ("curves", "differences", "levels")]
    below = [*own, *figures, *(f"{job}/{record}" for job in jobs for record in records)]
    assert sorted(kept) == sorted(
        ["results/README.md", "results/claims.yaml", *(f"results/tiny/{name}" for name in below)]
    )


def test_no_published_file_names_this_machine(published, digits_dir):
    names = [str(digits_dir), str(published.root), os.uname().nodename]
    for path in git(published.root, "ls-files", "--others", "--exclude-standard").splitlines():
        text = (published.root / path).read_text()
        assert [name for name in names if name in text] == [], path
    config = yaml.safe_load((published.sweep / "model.activation-relu_seed-0" / "config.yaml").read_text())
    assert config["data"]["dir"] == "$ALEXNET_LAB_DATA"
    assert config["run_dir"] == "results/tiny/model.activation-relu_seed-0"


def test_a_sweep_that_writes_below_results_keeps_the_tree_clean(published):
    manifests = [json.loads(path.read_text()) for path in published.sweep.glob("*/manifest.json")]
    commit = git(published.root, "rev-parse", "HEAD").strip()
    assert [manifest["git"] for manifest in manifests] == [{"commit": commit, "dirty": False}] * 4


def test_the_page_of_a_sweep(published):
    text = (published.sweep / "README.md").read_text()
    assert len(text.splitlines()) <= 40
    commit = git(published.root, "rev-parse", "HEAD")[:10]
    device = provenance.hardware(on_gpu=False)["device"]
    for words in (
        "- **Claim.** with tanh the error is higher (Krizhevsky 2012).",
        "LeNet5 on Digits, 1 epoch, 2 seeds (0, 1), 2 levels, 4 of 4 runs completed.",
        "1,294 to train on, 144 to validate, 359 to test (`store_hash` ",
        f"4 runs on {device}; 4 runs at commit {commit}; no uncommitted change of the code; torch ",
        "- **Differs from the paper.** LeNet-5 and digits. One epoch.",
        "over the seeds that both have",
        "There is one comparison, so nothing is corrected for.",
        "*supported*: the whole interval says higher, as the claim does",
        "best epoch on the validation part. Nothing is chosen on the test set.",
        "![differences](figures/differences.svg)",
    ):
        assert words in text
    assert "seed=0,1 hydra.sweep.dir=results/tiny`" in text
    assert "'seed=range(0,4)' sweep.extend=true hydra.sweep.dir=results/tiny`" in text


def test_the_table_of_claims(published):
    rows = [line.split(" | ") for line in (published.results / "README.md").read_text().splitlines() if "|" in line]
    assert [row[3] for row in rows[2:]] == [
        "[digits: tanh](tiny/README.md)", "[digits: tanh, val/loss](tiny/README.md)", "views", "parameters, counted",
    ]  # fmt: skip
    assert [row[4] for row in rows[4:]] == ["not run yet", "60,965,224"]
    assert [row[5] for row in rows[2:4]] == ["2", "2"]
    assert {row[6] for row in rows[2:4]} <= {"supported", "contradicted", "undecided", "higher", "lower"}


def test_runs_on_other_hardware_are_reported_and_are_no_pairs(copy, monkeypatch):
    path = copy.sweep / "model.activation-tanh_seed-1" / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"hardware": content["hardware"] | {"device": "NVIDIA H100"}}))
    monkeypatch.chdir(copy.root)
    assert report("sweep=results/tiny", "readme=true").code == 0
    page, table = ((copy.sweep / name).read_text() for name in ("README.md", "summary.csv"))
    device = content["hardware"]["device"]
    assert f"3 runs on {device}, 1 run on NVIDIA H100; " in page
    assert "1 on other hardware than the base's" in page
    assert "a pair only if the same kind of hardware (processor or GPU) computed both" in page
    rows = list(csv.DictReader(table.splitlines()))
    assert [(row["n"], row["pairs"], row["other_hardware"]) for row in rows] == [("2", "", "0"), ("2", "1", "1")]
    assert train(copy.root, "seed=0,1").code == 0  # trains nothing, and rewrites the table
    assert (copy.sweep / "summary.csv").read_text() == table


@pytest.mark.parametrize(
    ("interval", "p", "difference", "verdict"),
    [
        ((-0.03, -0.01), 0.001, "-2.00 (-3.00 to -1.00), a test", "supported"),
        ((-0.05, 0.01), 0.2, "-2.00 (-5.00 to +1.00), a test", "undecided"),
        ((None, None), 0.001, "-2.00 (p 0.001), a test", "supported"),
        ((None, None), 0.2, "-2.00 (p 0.2), a test", "undecided"),
    ],
)
def test_an_evaluation_in_the_table_of_claims(interval, p, difference, verdict, copy):
    what = {"metric": "test/top1_error", "compared": "views=ten - views=center", "over": "images", "method": "a test"}
    row = what | {"n": 10_000, "difference": -0.02, "ci95_low": interval[0], "ci95_high": interval[1], "p": p}
    other = row | {"over": "runs", "difference": 0.5}
    (copy.results / "evaluations").mkdir()
    path = copy.results / "evaluations" / "views.json"
    path.write_text(json.dumps({"comparisons": [other, row]}))
    line = next(line for line in CLAIMS["page"](copy.results).splitlines() if "views.json" in line)
    assert line.split(" | ")[3:7] == ["[views](evaluations/views.json)", difference, "10,000 images", verdict]
    path.write_text(json.dumps({"comparisons": [other]}))
    with pytest.raises(ValueError, match="does not compare test/top1_error, ten, over images; it has test/top1_error"):
        CLAIMS["page"](copy.results)


def test_the_same_command_on_a_clone_continues_and_extends_the_sweep(copy, tmp_path, digits_dir):
    directory = SweepDirectory(copy.sweep)
    definition = directory.read()
    assert definition is not None
    before = {job.name: directory.run(job).readable_result()["metrics"] for job in definition.jobs}
    for job, status in zip(definition.jobs, ("interrupted", "failed"), strict=False):  # the other two are complete
        result = directory.run(job).readable_result() | {"status": status, "files": None}
        directory.run(job).write_result(result)
        directory.append(job_states.entry(directory, job, result, status=status, error="it stopped"))
    git(copy.root, "add", ".")
    git(copy.root, "commit", "--quiet", "-m", "results")
    clone = tmp_path / "elsewhere" / "clone"
    git(tmp_path, "clone", "--quiet", str(copy.root), str(clone))
    assert not list(clone.rglob("*.ckpt"))
    dry = train(clone, "seed=0,1", "--dry-run")
    assert "2 done, 1 failed, 1 to go (1 interrupted)" in dry.out
    outcome = train(clone, "seed=0,1")
    assert outcome.code == 0, outcome.err
    begun = re.findall(r"job (\S+ \S+) has no checkpoint: starts again", outcome.err)
    assert begun == [job.label for job in definition.jobs[:2]]
    assert outcome.err.count("job model.") == 2
    there = SweepDirectory(clone / "results" / "tiny")
    assert {job.name: there.run(job).readable_result()["metrics"] for job in definition.jobs} == before
    outcome = train(clone, "seed=range(0,3)", "sweep.extend=true")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("job model.") == 2
    assert "6 jobs: 6 done" in outcome.err
    assert {job.config["seed"] for job in there.read().jobs} == {0, 1, 2}  # pyright: ignore[reportOptionalMemberAccess]
    assert git(clone, "status", "--porcelain", "--", "src") == ""


def test_a_readme_that_somebody_wrote_stays(copy, tmp_path):
    (copy.sweep / "README.md").write_text("mine\n")
    (copy.sweep / "report.html").unlink()
    outcome = report(f"sweep={copy.sweep}", "readme=true")
    assert outcome.code == 2
    assert "README.md is not a page of report.py, which would overwrite it; move it away" in outcome.err
    assert (copy.sweep / "README.md").read_text() == "mine\n"
    assert not (copy.sweep / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "given"), [(("runs=logs/runs/*",), "runs"), (("sweep=results/tiny", "metric=val/loss"), "metric")]
)
def test_a_readme_is_about_a_sweeps_own_metric(words, given):
    outcome = report(*words, "readme=true")
    assert outcome.code == 2
    assert f"leave `{given}` out" in outcome.err


def test_a_page_of_many_levels_fits_on_forty_lines_and_warns_of_places(tmp_path):
    errors = {f"level{number:02}": [0.1 + number / 1000] for number in range(22)}
    sweep = make_sweep(
        tmp_path / "sweep", errors, base=["level00"], command="python train.py -m data.dir=/home/me/data"
    )
    outcome = report(f"sweep={sweep}", "readme=true")
    assert outcome.code == 0, outcome.err
    text = (sweep / "README.md").read_text()
    assert len(text.splitlines()) <= 40
    assert "4 more levels: [summary.md](summary.md)" in text
    assert "names a place of this machine, " in outcome.err
    assert "data.dir=" not in text


def test_every_claim_has_its_row_and_each_level_is_one_of_its_sweep():
    known = CLAIMS["read_claims"](REPOSITORY / "results")
    assert [claim.number for claim in known.claims] == list(range(1, 20))
    used = {ours.sweep for claim in known.claims for ours in claim.ours} - {None}
    assert used <= known.sweeps.keys()
    assert {ours.evaluation for claim in known.claims for ours in claim.ours} - {None} == known.evaluations.keys()
    assert all(claim.ours or (claim.command and claim.cost) for claim in known.claims)
