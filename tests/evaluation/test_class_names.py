"""Names in any script, and names that would command a terminal, on their way to tables, logs, pages and figures."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pytest
from commands import REPOSITORY, call, evaluated
from matplotlib.font_manager import fontManager
from PIL import Image

from alexnet_lab.base.errors import RunError
from alexnet_lab.base.log import close_file, log_to_file, start_log
from alexnet_lab.base.printable import printable, printable_texts
from alexnet_lab.config import check_report
from alexnet_lab.evaluation.figures import style
from alexnet_lab.report import make_report
from alexnet_lab.run import train

if TYPE_CHECKING:
    from pathlib import Path

RED, TITLE, MIRRORED = "cat\x1b[31m", "dog\x1b]0;owned\x07", "\u202egnp.exe"

EVIL = (RED, TITLE, MIRRORED, "a|b<b>", "猫")


def commands_in(text: str) -> set[str]:
    """The control characters of a text other than line breaks."""
    return {sign for sign in text if printable(sign) != sign} - {"\n"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat\x1b[31m", r"cat\x1b[31m"), ("a\nb\tc\rd", r"a\nb\tc\rd"), ("\x9b31m", r"\x9b31m"),
        ("\u202eabc", r"\u202eabc"), ("caf\udce9", r"caf\udce9"), ("\u2066x\u2069", r"\u2066x\u2069"),
        ("猫 é 😀 א", "猫 é 😀 א"), ("\x7f\x00", r"\x7f\x00"),
    ],
)  # fmt: skip
def test_control_characters_are_escaped_and_letters_stay(text, shown):
    assert printable(text) == shown
    assert printable_texts({text: [text, {"a": (text, 1, None)}]}) == {shown: [shown, {"a": [shown, 1, None]}]}


def test_logs_and_errors_show_no_control_characters(tmp_path, capsys):
    start_log()
    handler = log_to_file(tmp_path / "train.log")
    logging.getLogger("alexnet_lab.x").warning("class %s and %s\nnext", RED, "caf\udce9")
    close_file(handler)
    printed, kept = capsys.readouterr().err, (tmp_path / "train.log").read_text(encoding="utf-8")
    assert r"class cat\x1b[31m and caf\udce9" in printed
    assert r"class cat\x1b[31m and caf\udce9" in kept
    assert commands_in(printed) == commands_in(kept) == set()
    assert str(RunError(f"no {TITLE}\n!")) == r"no dog\x1b]0;owned\x07 !"


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory: pytest.TempPathFactory, compose) -> Path:
    """A short run on a folder whose classes are called `EVIL`."""
    folder = tmp_path_factory.mktemp("evil")
    rng = np.random.default_rng(0)
    for name in EVIL:
        (folder / "images" / "train" / name).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / "train" / name / f"{number}.png")
    run = folder / "run"
    train(
        compose("data=image_folder", f"data.root={folder / 'images'}", f"run_dir={run}", "trainer.max_epochs=1",
                "model=lenet5", "data.batch_size=8", "data.image_size=32", "data.stored_size=32")
    )  # fmt: skip
    return run


def test_an_evaluation_shows_them_escaped_and_keeps_them_as_they_are(evil_run):
    style.WARNED.clear()
    outcome = evaluated(f"run={evil_run}", "figures=[confusion,top5,mistakes]")
    assert outcome.code == 0, outcome.err
    assert commands_in(outcome.out + outcome.err) == set()
    assert r"cat\x1b[31m" in outcome.out
    assert outcome.err.count("no installed font has") <= 1
    found = json.loads((evil_run / "eval/test_center.json").read_text())
    assert set(found["class_names"]) == set(EVIL)
    with (evil_run / "eval/test_center_classes.csv").open(encoding="utf-8") as file:
        assert {row["class"] for row in csv.DictReader(file)} == set(EVIL)


def test_a_report_of_a_run_with_an_evil_name_is_harmless(digits_run, tmp_path):
    run = tmp_path / f"{RED}|<b>{MIRRORED}"
    shutil.copytree(digits_run, run)
    folder = REPOSITORY / "src/alexnet_lab/report/config"
    words = (f"runs={tmp_path}/*", f"out={tmp_path / 'out'}")
    outcome = call(lambda config: make_report(check_report(config)), "report", *words, configs=folder)
    assert outcome.code == 0, outcome.err
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    data = page.split('id="data">')[1].split("</script>")[0]
    assert commands_in(outcome.out + outcome.err) == set()
    assert commands_in(json.dumps(json.loads(data), ensure_ascii=False)) == set()
    assert r"cat\x1b[31m|&lt;b&gt;\u202egnp.exe" in page


def figure_with(title: str):
    with style.styled():
        figure = style.new_figure(2, 1)
        figure.subplots().set_title(title)
    return figure


def fonts_of_matplotlib() -> list[Any]:
    """Those that it brings: one of them has a box for every script."""
    return [entry for entry in fontManager.ttflist if entry.fname.startswith(mpl.get_data_path())]


@pytest.mark.parametrize("installed", [list, fonts_of_matplotlib])
def test_a_script_that_no_font_has_is_warned_of_once(installed, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(style, "installed", installed)
    monkeypatch.setattr(style, "WARNED", set())
    for name in ("a", "b"):
        style.save(figure_with("猫 犬"), tmp_path, name)
    assert [record.getMessage() for record in caplog.records] == [
        "no installed font has 犬猫: figures show boxes instead; install e.g. Noto Sans CJK"
    ]


def test_an_installed_font_that_has_the_script_is_taken(tmp_path, monkeypatch, caplog):
    sign = "\u1d81"  # of the fonts that matplotlib brings, STIXGeneral alone has it
    entries = [entry for entry in style.installed() if entry.name in {"DejaVu Sans", "STIXGeneral"}]
    monkeypatch.setattr(style, "installed", lambda: entries)
    assert style.fonts_with({sign, "猫"}) == (["STIXGeneral"], {"猫"})
    lacking = []
    write = style._write
    monkeypatch.setattr(style, "_write", lambda *given: lacking.append(write(*given)) or lacking[-1])
    style.save(figure_with(sign), tmp_path, "a")
    assert lacking == [{sign}, set(), set()]
    assert not caplog.records
