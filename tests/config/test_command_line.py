"""The command line is read as users type it: flags anywhere, `~`, and paths with any character."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import yaml
from commands import CONFIGS, REPOSITORY, call, compose_raw
from hydra.core.override_parser.overrides_parser import OverridesParser

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.config import check_evaluate, check_report, check_train
from alexnet_lab.config.command_line import PATHS, arranged, explain_unreadable, quoted
from alexnet_lab.config.schema import EvaluatedData, Report, Sweep, Train
from alexnet_lab.config.signatures import read_signature

if TYPE_CHECKING:
    from collections.abc import Callable

Seen = TypeVar("Seen")

HARD = [
    "a=b",
    "a#b",
    "jürgen",
    "a(1)",
    "a;b",
    "a&b",
    "a'b",
    'it\'s a "b"',
    "a\\",
    "a\\'b",
    "{x}",
    "[x",
    "图",
    "a b",
    "a!",
]
"""Names that Hydra's grammar, or a shell, does not take as they are."""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a=1", "-m", "b=1,2"], ["-m", "a=1", "b=1,2"]),
        (["-m", "a=1", "--config-dir", "b", "c=2"], ["-m", "--config-dir", "b", "a=1", "c=2"]),
        (["a=1", "--info", "b=2"], ["--info", "all", "a=1", "b=2"]),
        (["a=1", "--info", "defaults", "b=2"], ["--info", "defaults", "a=1", "b=2"]),
        (["a=1", "--cfg=job", "b=2"], ["--cfg=job", "a=1", "b=2"]),
        (["a=1", "--multi"], ["--multi", "a=1"]),
        (["run_dir=a=b", "data.dir=~/x", "seed=1"], ["run_dir='a=b'", "data.dir='~/x'", "seed=1"]),
        (["runs=[~/a, b,c#d]"], ["runs=['~/a',b,'c#d']"]),
        (["data.dir='~/x'", "run_dir=a,b"], ["data.dir='~/x'", "run_dir=a,b"]),
    ],
)
def test_flags_come_first_and_paths_in_quotes(words, expected):
    assert arranged(words) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--confg-dir=x", "unknown flag `--confg-dir`; did you mean `--config-dir`?"),
        ("--dry_run", "unknown flag `--dry_run`; did you mean `--dry-run`?"),
        ("seed=1 --cfg", "`--cfg` needs a value: job, hydra, all"),
        ("--cfg jobs", "`--cfg` is 'jobs'; did you mean `job`?"),
        ("-m=1", "`-m` takes no value, got '1'"),
        ("=3", "cannot read `=3` on the command line: `` is no key"),
        ("foo", "cannot read `foo` on the command line: an override is key=value"),
        ("model.activation=[", "cannot read `model.activation=[` on the command line: close its brackets"),
        ("logger.notes=a=b", "this value needs quotes; type 'logger.notes=\"a=b\"'"),
        ("tags=[1,true,a]", 'a text that looks like a number needs quotes: \'tags=["1","true","a"]\''),
        ("run_dir=2024", "a text that looks like a number needs quotes: 'run_dir=\"2024\"'"),
        ("data=image_folder data.root=x data.classes=[1,2]", 'quotes: \'data.classes=["1","2"]\''),
        ("model=resnet18", "torchvision has a resnet18; type model=torchvision model.name=resnet18"),
        ("model=vit_b_16", "type model=torchvision model.name=vit_b_16"),
        ("seed=1,2", "`seed=1,2` has several values: to start a run for each, add -m; for a list, type 'seed=[1,2]'; "),
        ("model=lenet5,alexnet", "`model=lenet5,alexnet` has several values: to start a run for each, add -m"),
        ("seed=range(0,5)", "`seed=range(0,5)` has several values: to start a run for each, add -m"),
        ("model=[lenet5,alexnet]", "`model=[lenet5,alexnet]`: a group takes the name of one of its files; there are a"),
        ("-m --cfg job seed=0,1", "Only one of --run, --multirun, --cfg, --info and --shell_completion can be spec"),
        ("--resolve seed=1", "The --resolve flag can only be used in conjunction with --cfg or --help"),
        ("--shell-completion", "Expecting one subcommand from ['install', 'uninstall', 'query'] to be set"),
        ("model=resnet19", "torchvision has a resnet18; type model=torchvision model.name=resnet18"),
        ("model=VGG16", "torchvision has a vgg16; type model=torchvision model.name=vgg16"),
        ("model=lenet", "there is no `model=lenet`; did you mean `lenet5`?"),
    ],
)
def test_what_cannot_be_read_is_explained_in_one_line(line, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = call(check_train, "train", *line.split())
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert message in outcome.err
    assert list(tmp_path.iterdir()) == []


REPORTS = REPOSITORY / "src" / "alexnet_lab" / "report" / "config"


@pytest.mark.parametrize(
    ("script", "line", "message"),
    [
        ("eval", "run=A --dry-run", "unknown flag `--dry-run`"),
        ("report", "runs=A --dry-run", "unknown flag `--dry-run`"),
        ("eval", "run=[A,1]", 'a text that looks like a number needs quotes: \'run=["A","1"]\''),
        ("report", "runs=[A,true]", 'a text that looks like a number needs quotes: \'runs=["A","true"]\''),
        ("report", "runs=[]", "`runs` is [] (list); allowed: string or "),
        (
            "report",
            "runs=A wandb=true project=my/proj",
            "`project` is 'my/proj', but W&B accepts none of the characters",
        ),
        ("report", "runs=A entity=a:b", "`entity` is 'a:b', but W&B accepts none of the characters"),
        ("eval", "run=A figures=[kernels,mistake]", "`figures.1` is 'mistake' (str); allowed: "),
    ],
)
def test_wrong_words_of_evaluations_and_reports(script, line, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check, configs = (check_evaluate, CONFIGS) if script == "eval" else (check_report, REPORTS)
    outcome = call(check, script, *line.split(), configs=configs)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert message in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", HARD)
def test_quotes_hold_any_text(text):
    for sign in "'\"":
        assert OverridesParser.create().parse_overrides([f"a={quoted(text, sign)}"])[0].value() == text


@pytest.mark.parametrize("text", [text for text in HARD if text[0] not in "[{"])
def test_printed_advice_works_when_pasted(text):
    """Through a real shell, and through Hydra's grammar."""
    advice = explain_unreadable(f"logger.notes={text}").partition("; type ")[2]
    assert (
        shlex.split(advice)
        == subprocess.run(
            ["bash", "-c", f"printf '%s\\n' {advice}"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
    )
    assert compose_raw(*shlex.split(advice))["logger"]["notes"] == text


def seen(name: str, check: Callable[[dict[str, Any]], Seen], *words: str) -> Seen:
    """The config that a command gets, checked."""
    found: list[Seen] = []
    outcome = call(lambda config: found.append(check(config)), name, *words)
    assert outcome.code == 0, outcome.err
    return found[0]


@pytest.mark.parametrize("text", [*HARD, "~/x", "~/a=b", "~nobody-here/x"])
def test_every_path_key_takes_any_path(text, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    expected = f"/home/me{text[1:]}" if text.startswith("~/") else text
    config = seen("train", check_train, f"run_dir={text}", f"data.dir={text}")
    assert (config.run_dir, config.data["dir"]) == (expected,) * 2
    evaluated = seen("eval", check_evaluate, f"run={text}", f"data.dir={text}", f"data.root={text}")
    assert (evaluated.run, evaluated.data.dir, evaluated.data.root) == (expected,) * 3


def test_every_path_key_of_reports_and_of_image_folders(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found: list[Report] = []
    for words in (("sweep=~/a=b", "out=~/c"), ("runs=[~/a,~/b=c]",)):
        outcome = call(lambda config: found.append(check_report(config)), "report", *words, configs=REPORTS)
        assert outcome.code == 0, outcome.err
    assert (found[0].sweep, found[0].out) == ("/home/me/a=b", "/home/me/c")
    assert found[1].runs == ["/home/me/a", "/home/me/b=c"]


def test_home_in_a_yaml_file_and_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("ALEXNET_LAB_DATA", "~/sets")
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\nrun_dir: ~/run\n")
    config = compose_raw(f"--config-dir={tmp_path}", "experiment=mine")
    assert (config["run_dir"], config["data"]["dir"]) == ("/home/me/run", "/home/me/sets")


@pytest.mark.parametrize("place", ["~/sweep=1", "~/a b"])
def test_home_in_the_directory_of_a_sweep(place, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    seen_dirs: list[str] = []
    outcome = call(
        lambda config: seen_dirs.append(check_train(config).run_dir),
        "train", "seed=0", "-m", f"hydra.sweep.dir={place}", "launcher.retries=0",
    )  # fmt: skip
    assert seen_dirs == [f"{tmp_path}{place[1:]}/job"], outcome.err
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("flag", ["--config-dir=", "--config-dir ", "-cd "])
def test_home_in_a_flag(flag, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a b" / "experiment").mkdir(parents=True)
    (tmp_path / "a b" / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    name, sign = flag[:-1], flag[-1]
    words = [f"{name}=~/a b"] if sign == "=" else [name, "~/a b"]
    assert compose_raw(*words, "experiment=mine")["seed"] == 7


def test_home_in_what_changes_of_a_run(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found: list[dict[str, Any]] = []
    outcome = call(found.append, "train", "resume=~/a=b", "data.root=~/c#d", "data.dir=~/e")
    assert outcome.code == 0, outcome.err
    assert (found[0]["resume"], found[0]["changes"]) == (
        "/home/me/a=b", {"data.root": "/home/me/c#d", "data.dir": "/home/me/e"},
    )  # fmt: skip


def test_keys_that_hold_paths_are_known():
    """A key that is added to the schema or a data set and holds a path belongs into the table too."""
    schemas: dict[str, Any] = {"": Train, "data.": EvaluatedData, "sweep.": Sweep}
    fields = {f"{group}{name}" for group, schema in schemas.items() for name in schema.model_fields}
    for path in (REPOSITORY / "configs" / "data").glob("*.yaml"):
        target = read_signature(yaml.safe_load(path.read_text(encoding="utf-8"))["_target_"])
        assert target is not None
        fields |= {f"data.{name}" for name in target.fields}
    found = {key for key in fields if key.rpartition(".")[2].endswith(("dir", "root", "folder", "path", "file"))}
    assert {"run_dir", "data.dir", "data.root", "data.val_folder", "sweep.dir"} <= found
    assert set(PATHS) == found | {"resume", "init_from", "hydra.sweep.dir", "run", "runs", "sweep", "out"}


def test_several_values_of_an_evaluation():
    outcome = call(check_evaluate, "eval", "run=A,B")
    assert outcome.code == 2
    expected = "error: `run=A,B` has several values: for a list, type 'run=[A,B]'; for a text, type 'run=\"A,B\"'\n"
    assert outcome.err == expected


@pytest.mark.parametrize(("script", "check"), [("train", check_train), ("eval", check_evaluate)])
def test_unknown_key_lists_each_key_and_group_of_its_command_once(script, check):
    outcome = call(check, script, "zzz=1")
    names = outcome.err.rpartition("allowed: ")[2].strip().split(", ")
    assert len(names) == len(set(names))
    assert ("model" in names) is (script == "train")


def test_config_error_of_a_field_in_a_list():
    with pytest.raises(ConfigError, match=r"`tags\.1` is 3 \(int\)"):
        check_train({**compose_raw(), "tags": ["a", 3]})


def test_the_classes_below_home_are_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("apple", "fig", "pear"):
        (tmp_path / "mine" / "train" / name).mkdir(parents=True)
    config = compose_raw("data=image_folder", "data.root=~/mine")
    assert (config["data"]["num_classes"], config["data"]["root"]) == (3, f"{tmp_path}/mine")
