"""The site that `make docs` builds: complete, without a warning, and without a request to another host."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from commands import REPOSITORY
from filelock import FileLock
from test_api import documented

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.site, pytest.mark.timeout(600)]

SITE = REPOSITORY / "build" / "docs"
ADDRESS = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))["repository-code"]
GITHUB = re.compile(re.escape(ADDRESS) + r"/(?:blob|raw|edit)/main/")
SOURCES = ("*.md", "docs/**/*.md", "notebooks/*.ipynb", "results/**/README.md")


@pytest.fixture(scope="session", autouse=True)
def built() -> str:
    """What `make docs` prints; it rebuilds the pages that have changed. Two workers of pytest take turns."""
    lines = subprocess.run(["make", "-n", "docs"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    _, *words = shlex.split(lines.splitlines()[-1])
    SITE.parent.mkdir(exist_ok=True)
    with FileLock(SITE.with_suffix(".lock")):
        done = subprocess.run([sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


class Page(HTMLParser):
    """The links of a page, what it loads by itself, and its anchors."""

    LOADS: ClassVar = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src",
             "embed": "src", "object": "data", "form": "action"}  # fmt: skip

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors.add(found.get("id", ""))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link":
            self.loads.append(found["href"])
        elif self.LOADS.get(tag) in found:
            self.loads.append(found[self.LOADS[tag]])
        self.loads += [part.split()[0] for part in found.get("srcset", "").split(",") if part]
        self.loads += re.findall(r"url\(([^)]+)\)", found.get("style", ""))


@cache
def page(path: Path) -> Page:
    return Page(path)


def pages() -> list[Path]:
    return sorted(SITE.rglob("*.html"))


def is_local(address: str) -> bool:
    parts = urlsplit(address)
    return (not parts.scheme and not parts.netloc) or parts.scheme == "data"


def test_it_builds_without_a_warning(built):
    assert built == ""


def test_each_document_is_a_page():
    written = {path.relative_to(REPOSITORY) for pattern in SOURCES for path in REPOSITORY.glob(pattern)}
    missing = [path for path in written if not (SITE / path.with_suffix(".html")).is_file()]
    assert not missing
    assert len(written) > 25
    assert (SITE / "index.html").read_bytes() == (SITE / "README.html").read_bytes()


def test_it_loads_nothing_from_elsewhere():
    loaded = {(path.name, address) for path in pages() for address in page(path).loads}
    assert not [pair for pair in loaded if not is_local(pair[1])]
    for sheet in SITE.rglob("*.css"):
        addresses = re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')]+)", sheet.read_text(encoding="utf-8"))
        assert not [address for address in addresses if not is_local(address)], sheet


def test_each_link_leads_somewhere():
    dead = [
        f"{path.relative_to(SITE)}: {address}"
        for path in pages()
        for address in page(path).links
        if is_dead(path, address)
    ]
    assert not dead


def is_dead(path: Path, address: str) -> bool:
    """Whether a link of a page leads nowhere; addresses of other hosts are not followed."""
    if GITHUB.match(address):
        return not (REPOSITORY / unquote(urlsplit(GITHUB.sub("", address)).path)).exists()
    if not is_local(address):
        return False
    parts = urlsplit(address)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_file():
        return True
    return target.suffix == ".html" and unquote(parts.fragment) not in page(target).anchors


def test_each_public_name_has_its_entry():
    anchors = set().union(*(page(path).anchors for path in SITE.glob("docs/api/*.html")))
    names = {f"{module}.{name}" for module, name in documented()}
    assert not names - anchors


@pytest.mark.parametrize("width", [390, 1280])
def test_each_page_fits_the_screen(browser, width):
    context = browser.new_context(offline=True, viewport={"width": width, "height": 900})
    shown = context.new_page()
    complaints, requests = [], []
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.on("request", lambda request: requests.append(request.url))
    wide = {}
    for path in pages():
        shown.goto(path.as_uri())
        wide[path.name] = shown.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert complaints == []
    assert not [address for address in requests if not address.startswith(("file:", "data:"))]
    assert max(wide.values()) <= width, wide


def test_the_search_finds_a_page(browser):
    context = browser.new_context(offline=True)
    shown = context.new_page()
    shown.goto((SITE / "search.html").as_uri() + "?q=overlapping")
    shown.wait_for_selector("#search-results li")
    assert shown.locator("#search-results li").count() >= 2
    context.close()
