"""The files of configs/sweep: each by the command in its header, every job composed and checked, levels and claims."""

from __future__ import annotations

import functools
import re
import runpy
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from commands import CONFIGS, REPOSITORY, call
from sweeping import planned

from alexnet_lab.config import check_train
from alexnet_lab.sweeps import dry_run
from alexnet_lab.sweeps.columns import columns
from alexnet_lab.sweeps.summary import Outcome, summarise
from alexnet_lab.sweeps.summary_tables import level_label

if TYPE_CHECKING:
    from alexnet_lab.sweeps.preflight import Plan

FILES = {path.stem: path.read_text(encoding="utf-8") for path in (CONFIGS / "sweep").glob("*.yaml")}

LEVELS = {
    "activation": ["relu", "tanh"],
    "augmentation": ["alexnet", "flip_crop", "none"],
    "bias_init": ["1.0", "0.1", "0.0"],
    "depth": ["none", "conv3", "conv4", "conv5"],
    "dropout": ["0.5", "0.0"],
    "ideas": [
        "all_ideas",
        "no_lrn",
        "no_overlap",
        "tanh",
        "no_dropout",
        "no_crops_flips",
        "no_pca_colour",
        "no_weight_decay",
        "no_momentum",
        "one_tower",
        "one_gpu",
        "biases_of_0",
        "biases_of_0.1",
        "no_conv3",
        "no_conv4",
        "no_conv5",
        "standardized",
    ],
    "lrn": ["lrn", "none"],
    "lrn_cifar": ["none 32", "none 64", "across 32", "across 64"],
    "normalization": ["mean_image", "standardize"],
    "norms_cifar": ["norms", "no_norms"],
    "padding": ["same", "valid", "full"],
    "pooling": ["overlapping", "non_overlapping"],
    "relu_vs_tanh": ["relu", "tanh"],
    "towers": ["2", "1"],
    "weight_decay": ["0.0005", "0.0"],
}

LEVELS |= {"ideas_cifar10": LEVELS["ideas"], "ideas_imagenette": LEVELS["ideas"]}

CLAIMS = {
    "activation": (["several times"], "Krizhevsky 2012, sec. 3.1"),
    "augmentation": (["over 1 point"], "Krizhevsky 2012, sec. 4.1"),
    "bias_init": (["no number"], "Krizhevsky 2012, sec. 5"),
    "depth": (["about 2 points"], "Krizhevsky 2012, sec. 7"),
    "dropout": (["about doubles the epochs"], "Krizhevsky 2012, sec. 4.2"),
    "ideas": (["1.4 points", "0.4", "over 1 point", "about 2"], "Krizhevsky 2012, sec. 3.3"),
    "ideas_cifar10": (["1.4 points", "0.4", "over 1 point", "about 2"], "Krizhevsky 2012, sec. 3.3"),
    "ideas_imagenette": (["1.4 points", "0.4", "over 1 point", "about 2"], "Krizhevsky 2012, sec. 3.3"),
    "lrn": (["1.4", "1.2", "1.37", "1.15"], "Krizhevsky 2012, sec. 3.3"),
    "lrn_cifar": (["13 %", "11 %"], "Krizhevsky 2012, sec. 3.3"),
    "normalization": (["no number"], "Krizhevsky 2012, sec. 2"),
    "norms_cifar": (["18 %", "19 %"], "layers-18pct.cfg"),
    "padding": (["no number"], "LeCun et al. 1998, sec. II.B"),
    "pooling": (["0.4", "0.3", "0.39", "0.30"], "Krizhevsky 2012, sec. 3.4"),
    "relu_vs_tanh": (["six times", "25 %"], "Krizhevsky 2012, sec. 3.1 and figure 1"),
    "towers": (["1.7", "1.2"], "Krizhevsky 2012, sec. 3.2"),
    "weight_decay": (["0.0005"], "Krizhevsky 2012, sec. 5"),
}
"""What the header says of the paper: numbers, or that there is none, and the source."""


def header(name: str) -> str:
    """The comment at a file's head, in one line."""
    return " ".join(re.findall(r"^# (.*)$", FILES[name].partition("\nsweep:")[0], re.MULTILINE))


def command(name: str) -> list[str]:
    """The words of the command in its header, after `python train.py -m`."""
    (line,) = re.findall(r"^# Command: python train\.py -m (.*)$", FILES[name], re.MULTILINE)
    return shlex.split(line)


@functools.cache
def plan(name: str) -> Plan:
    return planned(*command(name))


def level(job: Any, factor: list[str]) -> str:
    values = dict(word.split("=") for word in job.overrides)
    return " ".join(values[key] for key in factor)


def test_each_file_is_known():
    assert FILES.keys() == LEVELS.keys() | {"search"} == CLAIMS.keys() | {"search"}
    for name in FILES:
        assert f"sweep={name}" in command(name)


@pytest.mark.parametrize("name", LEVELS)
def test_every_job_is_valid_and_levels_come_in_order(name):
    factor = plan(name).definition.about["factor"]
    assert list(dict.fromkeys(level(job, factor) for job in plan(name).jobs)) == LEVELS[name]
    seeds = 8 if plan(name).definition.about["variants"] else 5
    assert len(plan(name).jobs) == len(LEVELS[name]) * seeds


@pytest.mark.parametrize("name", LEVELS)
def test_jobs_differ_in_the_factor_the_seed_and_what_is_tuned_alone(name):
    about, jobs = plan(name).definition.about, plan(name).jobs
    every = {key for job in jobs for key in job.config}
    changed = {key for key in every if len({str(job.config.get(key, "absent")) for job in jobs}) > 1}
    group = {key for key in changed if key.startswith("augment.")} if name == "augmentation" else set()
    named = {key for keys in (about["variants"] or {}).values() for key in keys}
    named -= {"augment.padding"} if name == "ideas_imagenette" else set()  # 0 there: the store is larger than the crop
    assert changed - group == {*about["factor"], *about["tuned"], *named, "seed"} - {"sweep.variant"}


@pytest.mark.parametrize("name", CLAIMS)
def test_the_header_states_the_papers_claim(name):
    words, source = CLAIMS[name]
    text = header(name)
    assert "Claim: " in text
    assert [word for word in (*words, source) if word not in text] == []
    about = plan(name).definition.about
    assert about["name"] == name
    assert about["claim"]
    assert about["paper"].startswith(source.partition(",")[0])


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        # conv4 has 384 maps, conv5 256: without conv5, fc6 sees half as many again
        ("depth", {"none": 28_569_994, "conv3": 27_463_690, "conv4": 27_906_058, "conv5": 32_845_962}),
        ("towers", {"2": 28_569_994, "1": 29_983_114}),  # 1,413,120 weights between the towers of conv2, conv4, conv5
        ("lrn_cifar", {"none 32": 1_116_490, "none 64": 2_112_970, "across 32": 1_116_490, "across 64": 2_112_970}),
        ("padding", {"same": 61_706, "valid": 44_426, "full": 82_826}),
        ("pooling", {"overlapping": 28_569_994, "non_overlapping": 28_569_994}),  # the same, as in run 147
    ],
)
def test_a_dry_run_lists_the_parameters_of_each_level(name, sizes):
    lines = dry_run.described_plan(plan(name))[1:-3]
    found = {
        level(job, plan(name).definition.about["factor"]): int(line.split()[2].replace(",", ""))
        for job, line in zip(plan(name).jobs, lines, strict=True)
    }
    assert found == sizes


@pytest.mark.parametrize(
    ("words", "levels"),
    [
        (("sweep=augmentation", "model=lenet5", "data=mnist", "augment=crop,none"), ["crop", "none"]),
        (("sweep=lrn", "model=cuda_convnet_18pct", "data=cifar10"), ["spatial", "none"]),
        (("sweep=dropout", "model=lenet5", "data=digits"), ["0.5", "0.0"]),
        (("sweep=pooling", "model=lenet5", "data=mnist"), ["max", "average", "min"]),
        (("sweep=pooling", "model=lenet5_seed003", "data=mnist"), ["max", "average", "min"]),
        (("sweep=pooling", "model=cuda_convnet_18pct", "data=cifar10"), ["overlapping", "non_overlapping"]),
    ],
)
def test_other_models_have_levels_of_their_own(words, levels):
    found = planned(*words, "seed=0")
    assert [level(job, found.definition.about["factor"]) for job in found.jobs] == levels


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sweep=lrn model=lenet5 data=digits", "unknown key `model.norm`; allowed: activation"),
        ("sweep=lrn model=cuda_convnet_19pct data=cifar10", "`model.norm` is none in all jobs, so there is nothing to"),
    ],
)
def test_a_factor_that_the_model_lacks_is_refused_in_a_line(words, message):
    outcome = call(check_train, "train", "-m", *words.split())
    assert outcome.code == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_the_search_lists_its_ranges():
    pytest.importorskip("optuna")
    outcome = call(check_train, "train", "-m", *command("search"), "--dry-run")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines() == [
        "20 trials over",
        "  optimizer.learning_rate=tag(log,interval(0.001,0.3))",
        "  optimizer.weight_decay=tag(log,interval(0.00001,0.01))",
        "  model.activation=choice(relu,tanh)",
    ]


KNOWN = runpy.run_path(str(REPOSITORY / "tools" / "claims.py"))["read_claims"](REPOSITORY / "results")
"""results/claims.yaml."""


@pytest.mark.parametrize("name", KNOWN.sweeps)
def test_the_commands_of_the_claims_make_sweeps_with_these_levels(name):
    definition = planned(*shlex.split(KNOWN.sweeps[name].command)[3:], f"hydra.sweep.dir=results/{name}").definition
    table = summarise(definition.about, [Outcome(values, "to_go") for values in columns(definition)])
    levels = {ours.level for claim in KNOWN.claims for ours in claim.ours if ours.sweep == name}
    assert levels
    assert levels <= {level_label(row) for row in table.rows}
