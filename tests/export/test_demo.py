"""format=demo in Chromium: the page's probabilities are torch's, and what is drawn is recognised."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from commands import REPOSITORY, call

from alexnet_lab.config import check_export
from alexnet_lab.data import MNISTDataModule
from alexnet_lab.evaluation.load import load
from alexnet_lab.export import export
from alexnet_lab.export.command import export_checked
from alexnet_lab.export.description import whole_test_set
from alexnet_lab.run import train

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PUBLISHED = REPOSITORY / "demo" / "index.html"

DIGITS = {  # strokes in shares of the drawing's side
    "0": [[(0.5 + 0.2 * np.sin(angle), 0.5 - 0.32 * np.cos(angle)) for angle in np.linspace(0, 2 * np.pi, 25)]],
    "1": [[(0.52, 0.15), (0.5, 0.85)]],
    "4": [[(0.35, 0.15), (0.3, 0.55), (0.7, 0.55)], [(0.62, 0.2), (0.6, 0.88)]],
    "7": [[(0.25, 0.2), (0.72, 0.2), (0.5, 0.85)]],
}


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page; it must make no request and no complaint."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    page, complaints, requests = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))

    def go(path: Path) -> Any:
        page.goto(path.as_uri())
        return page

    yield go
    assert complaints == []
    assert [url for url in requests if not url.startswith("file:")] == []
    context.close()


def draw(page: Any, strokes: list[list[tuple[float, float]]]) -> str:
    """Draws with the mouse on a cleared page; returns the answer."""
    page.get_by_role("button", name="Clear").click()
    page.locator("#answer", has_text="?").wait_for()  # wait_for_function would evaluate a text, which the page forbids
    frame = page.locator("#pad").bounding_box()
    for stroke in strokes:
        places = [(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=8)
        page.mouse.up()
    page.evaluate("alexnetLab.update()")
    return page.locator("#answer").text_content()


def test_the_published_page_recognises_what_is_drawn(opened):
    page = opened(PUBLISHED)
    assert {digit: draw(page, strokes) for digit, strokes in DIGITS.items()} == {digit: digit for digit in DIGITS}
    assert page.locator("#stages canvas").count() == 6 + 6 + 16 + 16 + 1 + 1  # C1, S2, C3, S4, C5, F6
    image = "(canvas) => Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data)"
    levels = np.array(page.locator("#seen").evaluate(image)).reshape(28, 28, 4)[..., 0]
    assert levels.max() == 255
    assert np.ptp(levels.nonzero()[0]) + 1 in range(19, 23)  # the longer side fills 20 px
    page.get_by_role("button", name="Clear").click()
    page.locator("#answer", has_text="?").wait_for()  # wait_for_function would evaluate a text, which the page forbids
    assert page.locator("progress").evaluate_all("(bars) => bars.every((bar) => bar.value === 0)")


def test_the_published_page_is_small_and_states_its_accuracy():
    text = PUBLISHED.read_text(encoding="utf-8")
    assert len(text) < 400_000
    found = re.search(r"It recognises (\d\d\.\d\d) % of the 10,000 test images", text)
    assert found
    assert float(found[1]) >= 99
    assert "http" not in re.sub(r'<script type="application/json".*?</script>', "", text).replace("http-equiv", "")


@pytest.mark.parametrize(
    ("trainer", "images"),
    [
        ({}, 10_000),
        ({"limit_test_batches": 1}, None),
        ({"limit_test_batches": 0.5}, None),
        ({"fast_dev_run": True}, None),
    ],
)
def test_only_a_test_on_all_images_counts_as_one(trainer, images):
    run = load(REPOSITORY / "results" / "weights" / "lenet5_mnist.safetensors")
    run.trained_by = run.trained_by.with_trainer(**trainer)
    assert whole_test_set(run) == images


def test_the_published_page_is_what_export_py_writes_today(tmp_path):
    """From the published weights; after a change of the page: export.py run=WEIGHTS format=demo out=demo/index.html."""
    page = tmp_path / "index.html"
    words = (f"run={REPOSITORY / 'results' / 'weights' / 'lenet5_mnist.safetensors'}", "format=demo", f"out={page}")
    outcome = call(lambda config: export_checked(check_export(config)), "export", *words)
    assert outcome.code == 0, outcome.err
    wanted, found = (path.read_text(encoding="utf-8").splitlines() for path in (page, PUBLISHED))
    assert found == wanted


def test_a_drawing_is_centred_by_its_mass(opened):
    """A bar of 100 x 25 px at the side becomes 20 x 5 px in the middle of the 28 px."""
    ink = np.zeros((280, 280))
    ink[10:110, 5:30] = 1
    page = opened(PUBLISHED)
    pixels = np.array(page.evaluate("(ink) => alexnetLab.centred(ink, 280)", ink.ravel().tolist())).reshape(28, 28)
    assert pixels[4:24].sum() == pixels.sum() == pytest.approx(20 * 5 * 255, rel=0.01)
    rows, columns = np.indices((28, 28)) + 0.5
    assert [(pixels * places).sum() / pixels.sum() for places in (rows, columns)] == pytest.approx([14, 14], abs=0.15)
    assert page.evaluate("alexnetLab.centred(new Float32Array(280 * 280), 280)") is None


NETWORKS = {
    "digits": [],  # 8 px, enlarged to 28
    "average": ["model.pool=average", "model.activation=sigmoid", "model.c5=conv_same", "model.dropout=0.5"],
    "min": ["model.pool=min", "model.activation=tanh", "model.c1_padding=full", "model.legacy_softmax=true"],
    "published": ["model=lenet5_1998", "loss=lenet5_1998", "data.normalization=unit"],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_page_of_any_lenet5_gives_torchs_probabilities(name, compose, tmp_path, opened):
    run = tmp_path / name
    train(compose(f"run_dir={run}", "debug=fast", *NETWORKS[name]))
    page = opened(export(run, format="demo"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 8, 8), dtype=np.uint8)
    found = [
        page.evaluate("(pixels) => alexnetLab.classify(pixels).probabilities", image.ravel().tolist())
        for image in pixels
    ]
    assert np.array(found) == pytest.approx(load(run).predict(pixels).numpy(), abs=1e-5)


@pytest.mark.real_data
def test_the_published_page_recognises_mnists_test_images(opened, real_data):
    data = MNISTDataModule(dir=str(real_data))
    data.prepare_data()
    data.setup()
    rows = data.rows("test")
    images, labels = rows.images[rows.indices[:400]], rows.labels[rows.indices[:400]]
    script = """(images) => images.map((pixels) => {
        const found = alexnetLab.classify(pixels).probabilities; return found.indexOf(Math.max(...found)); })"""
    found = opened(PUBLISHED).evaluate(script, images.reshape(400, -1).tolist())
    assert (np.array(found) != labels).mean() <= 0.02


def test_another_network_has_no_page(compose, tmp_path):
    run = tmp_path / "alexnet"
    train(
        compose(
            f"run_dir={run}",
            "debug=fast",
            "model=alexnet",
            "model.width=0.0625",
            "model.image_size=32",
            "data.image_size=32",
        )
    )
    outcome = call(lambda config: export_checked(check_export(config)), "export", f"run={run}", "format=demo")
    assert outcome.code == 2
    line = outcome.err.splitlines()[-1]
    assert line.startswith("error: format=demo shows LeNet-5 (model=lenet5, lenet5_1998 and their variants), but ")
    assert not (run / "export").exists() or not list((run / "export").iterdir())
