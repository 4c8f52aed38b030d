"""What is printed or documented for users to paste works in bash and zsh."""

from __future__ import annotations

import ast
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from commands import QUICK, REPOSITORY, call, finished, forked, wait_for
from hydra.core.override_parser.overrides_parser import OverridesParser

from alexnet_lab.base import shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNQUOTED = re.compile(r"""(?<![\w'"./%-])[a-z_][\w.@/]*=[^\s'"`{)]*[\[(*?~$][^\s`]*""")
"""An override with a sign that zsh or bash would expand, outside quotes."""

PYTHON = re.compile(r"^```python\n.*?^```$", re.MULTILINE | re.DOTALL)
"""A block of Python on a page."""

NAMES = [
    "logs/runs/A", "a=b", "a b", "a  b", "[x]", "{a,b}", "*", "~/x", "$HOME", "it's", "a\\", "a\\'b", "a'b\"c", "x\ny",
    "\x1b[31m", "数据", "caf\udce9", "null", "True", "1", "1e5", "-x", "#a", "!x", "a,b", "(x)", "`ls`", "%a", "=x",
    " a ", "a;b", "a: b", "\t", "é|b", "",
]  # fmt: skip
ALPHABET = "ab '\"\\$`!*[]{}()~#=,;|&<>?%^:\n\t\x1b数"


def printed_texts() -> Iterator[tuple[str, str]]:
    """Each page's lines, each yaml file's comments, each string of the code that is no docstring, with its place."""
    pages = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), REPOSITORY / "Makefile"]
    for path in pages:
        text = PYTHON.sub(lambda block: "\n" * block.group().count("\n"), path.read_text(encoding="utf-8"))
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{path.name}:{number}", line
    for path in [*(REPOSITORY / "configs").rglob("*.yaml"), *(REPOSITORY / "src").rglob("*.yaml")]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield f"{path.name}:{number}", line.partition("#")[2]
    for path in [*REPOSITORY.glob("*.py"), *(REPOSITORY / "src/alexnet_lab").rglob("*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        documentation = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                yield f"{path.name}:{node.lineno}", node.value


QUOTED_BY_CODE = (
    "resuming.py trusted_packages=[", "search_runner.py seed=range(0,5)", "messages.py hydra.searchpath=[file://",
    "page.py sourceMappingURL=.*", "command_line.py logger=\\[([\\w,",
)  # fmt: skip
"""Words that the code itself quotes, or hands to Hydra; and patterns."""


def test_nothing_is_documented_or_printed_unquoted():
    found = [(place, match.group()) for place, text in printed_texts() for match in UNQUOTED.finditer(text)]
    found = [f"{place}: {word}" for place, word in found if f"{place.split(':')[0]} {word}" not in QUOTED_BY_CODE]
    assert found == []


def test_the_search_finds_what_it_should():
    assert UNQUOTED.search("python eval.py figures=[kernels,top5]")
    assert UNQUOTED.search("with `seed=range(0,5)`")
    assert not UNQUOTED.search("python eval.py 'figures=[kernels,top5]' run=logs/runs/A")


def texts() -> list[str]:
    rng = random.Random(0)
    made = ("".join(rng.choices(ALPHABET, k=rng.randint(1, 8))) for _ in range(300))
    return NAMES + [text for text in made if "${" not in text]


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_any_value_survives_the_shell_and_hydra(name):
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here")
    words = [shell.override("resume", text) for text in texts()]
    line = shell.join(words)
    assert "\n" not in line
    assert shell.split(line) == words
    assert shell.split(shlex.join(words)) == words
    done = subprocess.run([name, "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    assert done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1] == words
    parser = OverridesParser.create()
    for text, word in zip(texts(), words, strict=True):
        value: Any = parser.parse_override(word).value()
        assert (value if isinstance(value, str) else value.text) == text


def test_a_command_names_the_interpreter_and_the_script_that_were_used(monkeypatch):
    script = str(REPOSITORY / "eval.py")
    monkeypatch.setattr(sys, "argv", [script, "run=A"])
    monkeypatch.setattr(sys, "orig_argv", [".venv/bin/python", "-X", "dev", script, "run=A", "x=[1]"])
    assert shell.typed() == f".venv/bin/python -X dev {script} run=A 'x=[1]'"
    assert shell.command("train.py", "resume=A") == f".venv/bin/python -X dev {REPOSITORY / 'train.py'} resume=A"
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert shell.command("train.py", "resume=A") == "python train.py resume=A"


def pasted(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def interrupted(*words: str, begun: Path, cwd: Path) -> str:
    """The last line of a command that got Ctrl-C."""
    process = forked("train.py", *words, cwd=cwd, group=True)
    wait_for(begun, process)
    process.send_signal(signal.SIGINT)
    outcome = finished(process)
    assert outcome.code == 130, outcome.err
    assert "error:" not in outcome.err
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("interrupted by Ctrl-C")]  # once
    return line


def test_the_printed_command_resumes_an_interrupted_run(tmp_path, digits_dir):
    run = tmp_path / "it's [my] run, a=b"
    words = (f"data.dir={digits_dir}", shell.override("run_dir", run), *QUICK)
    words += ("trainer.limit_train_batches=4", "trainer.max_epochs=40")
    line = interrupted(*words, begun=run / "checkpoints/last.ckpt", cwd=tmp_path)
    problem, _, line = line.partition("; resume it: ")
    assert problem.startswith("interrupted by Ctrl-C in epoch ")
    assert shlex.split(line)[:2] == [sys.executable, str(REPOSITORY / "train.py")]
    done = pasted(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "epoch 40/40" in (run / "train.log").read_text()


def test_the_printed_command_resumes_an_interrupted_sweep(tmp_path, digits_dir):
    words = ("-m", "seed=range(0,2)", "hydra.sweep.dir=my sweep", f"data.dir={digits_dir}", *QUICK)
    begun = tmp_path / "my sweep/seed-0/checkpoints/last.ckpt"
    line = interrupted(*words, "trainer.limit_train_batches=4", "trainer.max_epochs=40", begun=begun, cwd=tmp_path)
    problem, _, line = line.partition("; resume with the same command: ")
    assert "2 jobs: " in problem
    done = pasted(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "my sweep/seed-1/result.json").is_file()


@pytest.mark.parametrize("script", ["train.py", "eval.py", "report.py"])
def test_outside_the_environment_one_line_says_what_to_do(tmp_path, script):
    words = [sys.executable, "-S", "-I", str(REPOSITORY / script)]  # no site-packages: no package of ours
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: No module named 'alexnet_lab'; run `source .venv/bin/activate`, or `make train`"
    )
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [(), ("-m", "seed=0")], ids=["one run", "a sweep"])
def test_a_package_that_is_missing_is_reported_in_one_line(words, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'")

    monkeypatch.setattr("alexnet_lab.sweeps.preflight.plan", fail)
    outcome = call(fail, "train", *words, f"hydra.sweep.dir={tmp_path}")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("error: No module named 'torch'; `make train` installs missing packages; ")
    assert outcome.err.count("\n") == 1
