"""The page as Chromium shows it: no request, no complaint, charts that follow what is chosen."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from made import make_run, make_sweep

from alexnet_lab.report.page import page
from alexnet_lab.report.sources import from_runs, from_sweep

if TYPE_CHECKING:
    from pathlib import Path

FIRST_DOT = """() => { const chart = alexnetLab.charts.dots;
    const { x, y } = chart.getDatasetMeta(0).data[0].getProps(["x", "y"]);
    const box = chart.canvas.getBoundingClientRect(); return [box.x + x, box.y + y]; }"""
"""Where the page shows the first run's dot."""

EVIL = "<img src=x onerror=document.title='taken'><script>"


class Shown:
    """A page in the browser, with whatever it asked for or complained about."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.context = browser.new_context(offline=True, **context)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def datasets(self, chart: str, kind: str) -> list[dict[str, Any]]:
        """What a chart draws, of one kind."""
        script = "([chart, kind]) => alexnetLab.charts[chart].data.datasets.filter((set) => set.kind === kind)"
        return self.page.evaluate(f"{script}.map((set) => ({{label: set.label, data: set.data}}))", [chart, kind])

    def has_ink(self, canvas: str) -> bool:
        """Whether anything was drawn."""
        return self.page.evaluate(
            """(id) => { const canvas = document.getElementById(id);
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            return pixels.some((value) => value !== 0); }""",
            canvas,
        )


def written(study: Any, folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text(page(study, folder), encoding="utf-8")
    return path


@pytest.fixture
def shown(browser, sweep):
    shown = Shown(browser, written(from_sweep(sweep), sweep))
    yield shown
    assert shown.complaints == []
    assert len(shown.requests) == 1  # the page itself
    shown.context.close()


def test_draws_runs_means_and_curves(shown):
    assert shown.has_ink("dots")
    assert shown.has_ink("curves")
    dots = shown.datasets("dots", "run")
    assert [[point["x"] for point in level["data"]] for level in dots] == [[0.1, 0.12, 0.14], [0.2, 0.21]]
    relu, tanh = shown.datasets("curves", "mean")
    assert (relu["label"], tanh["label"]) == ("relu", "tanh")
    assert [point["x"] for point in relu["data"]] == [1, 2, 3]
    assert relu["data"][0]["y"] == pytest.approx(1.12)
    low, high = (level["data"][0]["y"] for level in shown.datasets("curves", "band")[:2])
    assert (low, high) == (pytest.approx(1.10), pytest.approx(1.14))  # the sample deviation of 0.10, 0.12, 0.14 is 0.02


def test_a_run_switched_off_leaves_the_means(shown):
    boxes = shown.page.locator("input[data-run]")
    assert [boxes.nth(number).is_checked() for number in range(6)] == [True] * 5 + [False]  # the failed one is off
    boxes.nth(2).uncheck()
    assert shown.datasets("curves", "mean")[0]["data"][0]["y"] == pytest.approx(1.11)
    assert [point["x"] for point in shown.datasets("dots", "run")[0]["data"]] == [0.1, 0.12]


def test_a_level_switched_off_and_on(shown):
    button = shown.page.get_by_role("button", name="relu")
    button.click()
    assert [level["label"] for level in shown.datasets("curves", "mean")] == ["tanh"]
    assert button.evaluate("(button) => button === document.activeElement")  # where a keyboard goes on
    shown.page.keyboard.press("Enter")
    assert len(shown.datasets("curves", "mean")) == 2


def test_a_level_without_a_result_has_no_button_to_press(browser, tmp_path):
    folder = make_sweep(tmp_path / "sweep", {"relu": [0.1], "tanh": [None]})
    shown = Shown(browser, written(from_sweep(folder), folder))
    names = ("relu", "tanh")
    assert [shown.page.get_by_role("button", name=name).is_enabled() for name in names] == [True, False]
    shown.context.close()


def test_other_metrics_and_columns(shown):
    shown.page.select_option("#metric", "test/loss")
    assert shown.datasets("dots", "run")[0]["data"][0]["x"] == pytest.approx(0.3)
    assert shown.page.locator("[data-metric='test/loss']").is_visible()
    assert not shown.page.locator("[data-metric='test/top1_error']").is_visible()
    shown.page.check("#logarithmic-dots")
    assert shown.page.evaluate("alexnetLab.charts.dots.options.scales.x.type") == "logarithmic"
    shown.page.select_option("#curve", "learning_rate")
    shown.page.check("#logarithmic")
    assert shown.datasets("curves", "mean")[0]["data"][1]["y"] == pytest.approx(0.05)
    assert shown.page.evaluate("alexnetLab.charts.curves.options.scales.y.type") == "logarithmic"
    shown.page.check("#each")
    assert len(shown.datasets("curves", "run")) == 5


def test_hovering_shows_mean_and_deviation(shown):
    shown.page.locator("#curves").scroll_into_view_if_needed()
    point = shown.page.evaluate("""() => { const chart = alexnetLab.charts.curves;
        const { x, y } = chart.getDatasetMeta(2).data[0].getProps(["x", "y"]);
        const box = chart.canvas.getBoundingClientRect(); return [box.x + x + 1, box.y + y]; }""")
    shown.page.mouse.move(*point)
    end = time.monotonic() + 120
    while not shown.page.evaluate("alexnetLab.charts.curves.tooltip?.opacity > 0") and time.monotonic() < end:
        shown.page.wait_for_timeout(20)
    lines = shown.page.evaluate("alexnetLab.charts.curves.tooltip.body.map((item) => item.lines[0])")
    assert lines == ["relu: 112.00 % ± 2.00 % (n=3)", "tanh: 120.50 % ± 0.71 % (n=2)"]
    assert shown.page.evaluate("alexnetLab.charts.curves.tooltip.title[0]") == "epoch 1"


def test_a_click_on_a_dot_leads_to_the_run(shown):
    shown.page.locator("#dots").scroll_into_view_if_needed()
    with shown.page.expect_navigation():
        shown.page.mouse.click(*shown.page.evaluate(FIRST_DOT))
    assert shown.page.url.endswith("/model.activation-relu_seed-0/")
    del shown.complaints[:], shown.requests[1:]  # of Chromium's own list of a directory's files


def test_a_tap_on_a_dot_shows_its_numbers(browser, sweep):
    page = written(from_sweep(sweep), sweep)
    shown = Shown(browser, page, viewport={"width": 390, "height": 800}, is_mobile=True, has_touch=True)
    shown.page.locator("#dots").scroll_into_view_if_needed()
    shown.page.touchscreen.tap(*shown.page.evaluate(FIRST_DOT))
    shown.page.wait_for_timeout(500)
    assert shown.page.evaluate("alexnetLab.charts.dots.tooltip.opacity") > 0
    assert shown.page.url.endswith("/report.html")
    shown.context.close()


def test_a_column_that_some_runs_lack_comes_last_and_its_axis_ends_with_it(browser, tmp_path):
    make_run(tmp_path / "a", more={"val/top5_error": 0.1})
    make_run(tmp_path / "b", seed=1, epochs=6)
    make_run(tmp_path / "c", seed=2, epochs=6)
    shown = Shown(browser, written(from_runs([f"{tmp_path}/*"]), tmp_path))
    assert shown.page.locator("#curve option").all_inner_texts()[-1] == "val/top5_error"
    shown.page.select_option("#curve", "val/top5_error")
    assert shown.page.evaluate("alexnetLab.charts.curves.scales.x.max") == 3
    shown.context.close()


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(21, 24, 28)")])
def test_light_and_dark(scheme, paper, browser, sweep):
    shown = Shown(browser, written(from_sweep(sweep), sweep), color_scheme=scheme)
    assert shown.page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    ink = shown.page.evaluate("alexnetLab.charts.curves.options.scales.x.title.color")
    assert ink == {"light": "#1c2126", "dark": "#e8ebee"}[scheme]
    shown.context.close()


@pytest.mark.parametrize("width", [768, 1024, 1280])
def test_no_column_lies_beyond_the_edge(width, browser, tmp_path):
    words = ["trainer.limit_train_batches=20", "augment=flip_crop", "data.val_fraction=0.25"]
    for number, name in enumerate(("LeNet5", "AlexNet", "LeNet51998")):
        for seed in (0, 1):
            path = tmp_path / f"a_long_name_of_a_run_{number}_{seed}"
            error = 0.1 + 0.1 * number + 0.01 * seed
            make_run(path, error=error, seed=seed, overrides=words[:number], _target_=f"alexnet_lab.models.{name}")
    page = written(from_runs([f"{tmp_path}/*"]), tmp_path)
    shown = Shown(browser, page, viewport={"width": width, "height": 800})
    widths = "[...document.querySelectorAll('.scroll')].map((box) => [box.scrollWidth, box.clientWidth])"
    for needed, there in shown.page.evaluate(widths):
        assert needed <= there
    shown.context.close()


def test_a_phone_needs_no_scrolling_sideways(browser, sweep):
    shown = Shown(browser, written(from_sweep(sweep), sweep), viewport={"width": 360, "height": 740}, is_mobile=True)
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 360
    shown.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_difference_and_interval(scheme, browser, sweep):
    page = written(from_sweep(sweep), sweep)
    shown = Shown(browser, page, viewport={"width": 390, "height": 800}, is_mobile=True, color_scheme=scheme)
    for text in ("+9.50", "+3.15 to +15.85"):
        box = shown.page.locator("#result td:visible", has_text=text).first.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    size = "(text) => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a"
    assert shown.page.locator(".forest .level").first.evaluate(size) >= 11
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 390
    shown.context.close()


def test_an_interrupted_run_is_dotted_and_counts_towards_no_mean(browser, tmp_path):
    make_run(tmp_path / "a", error=0.2)
    make_run(tmp_path / "b", error=0.4, seed=1, status="interrupted", reason="Ctrl-C", epochs=3)
    shown = Shown(browser, written(from_runs([f"{tmp_path}/*"]), tmp_path))
    assert shown.datasets("curves", "mean")[0]["data"][0]["y"] == pytest.approx(1.2)
    assert shown.datasets("curves", "partial")[0]["data"][0]["y"] == pytest.approx(1.4)
    assert shown.complaints == []
    shown.context.close()


@pytest.mark.parametrize(("metric", "shares"), [("test/top1_error", True), ("to_error/epochs", False)])
def test_only_shares_are_in_per_cent(metric, shares, browser, tmp_path):
    for seed in (0, 1):
        path = make_run(tmp_path / f"{seed}", seed=seed, error=0.1 + seed / 10) / "result.json"
        content = json.loads(path.read_text()) | {"to_error": {"error": 0.25, "epochs": 7.5 + seed}}
        path.write_text(json.dumps(content))
    shown = Shown(browser, written(from_runs([f"{tmp_path}/[01]"]), tmp_path))
    shown.page.select_option("#metric", metric)
    ticks = shown.page.evaluate("alexnetLab.charts.dots.scales.x.ticks.map((tick) => tick.label)")
    assert ticks
    assert {tick.endswith(" %") for tick in ticks} == {shares}
    shown.context.close()


def test_names_are_text(browser, tmp_path):
    folder = make_sweep(tmp_path / "sweep", {"relu": [0.1, 0.2], EVIL: [0.2]}, name=EVIL, claim=EVIL)
    shown = Shown(browser, written(from_sweep(folder), folder))
    assert shown.page.title() == EVIL
    assert shown.page.locator("h1").inner_text() == EVIL
    assert EVIL in shown.page.locator("#legend").inner_text()
    assert shown.complaints == []
    shown.context.close()


def test_one_run_is_a_page_too(browser, tmp_path):
    shown = Shown(browser, written(from_runs([str(make_run(tmp_path / "run", epochs=1))]), tmp_path))
    assert shown.has_ink("curves")
    assert shown.complaints == []
    shown.context.close()
