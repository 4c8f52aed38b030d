"""The site: `make docs` builds it from README.md, docs/, notebooks/ and results/ as they are on GitHub.

The source directory is the repository, so a link between pages is the same path on GitHub and on the site. A link to
any other file of the repository, such as a config, opens it on GitHub; a link to a file that does not exist fails the
build. Pages load nothing from other hosts: no fonts, no scripts, and formulas become MathML.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes

from alexnet_lab import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
REPOSITORY: str = CITATION["repository-code"]

project, version, author = CITATION["title"], __version__, CITATION["authors"][0]["name"]
copyright = author  # noqa: A001 - Sphinx's name
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "notebooks/*.ipynb", "results/**.md"]
exclude_patterns = [
    ".*",
    "build",
    "data",
    "logs",
    "benchmarks",
    "configs",
    "src",
    "tests",
    "tools",
    "results/*/*/**",
    "results/*/summary.md",
]  # its README.md has the table
show_warning_types = True

nb_execution_mode = "off"  # `make course` executes the notebooks; the site shows their outputs
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "code"  # docstrings write `name` as Markdown does
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_rtype, napoleon_use_ivar = False, True
python_maximum_signature_line_length = 88
add_module_names = False

html_theme = "furo"
html_title = f"{project} {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sourcelink = html_copy_source = False
html_theme_options = {"source_repository": REPOSITORY, "source_branch": "main", "source_directory": ""}
pygments_style, pygments_dark_style = "friendly", "github-dark"

CONTENTS = {
    "Learn": ["docs/course", "docs/models", "docs/gallery"],
    "Use": [
        "docs/recipes",
        "docs/sweeps",
        "docs/evaluation",
        "docs/trained_networks",
        "docs/export",
        "Weights & Biases <docs/wandb>",
        "GPUs <docs/gpu>",
        "docs/imagenet",
    ],
    "Results": [
        "docs/results",
        "docs/more_results",
        "The paper's claims <results/README>",
        "Fidelity <docs/fidelity>",
        "docs/speed",
        "docs/reliability",
    ],
    "Develop": ["docs/api/index", "CONTRIBUTING", "CHANGELOG", "SECURITY"],
}
"""The pages of the sidebar; further pages of docs/ follow at the end of *Use*."""

LISTED = " ".join(itertools.chain(*CONTENTS.values()))
CONTENTS["Use"] += [f"docs/{path.stem}" for path in sorted(ROOT.glob("docs/*.md")) if f"docs/{path.stem}" not in LISTED]

PARTS = {
    "docs/course": "notebooks/*.ipynb",
    "results/README": "results/*/README.md",
    "docs/api/index": "docs/api/[!i]*.md",
}
"""By page, a pattern of the pages below it."""

FILE_NAME = re.compile(r"\[([\w./-]+\.md)\]\(\1\)")
"""A link that shows its own path."""


def toctree(pages: list[str], *options: str) -> str:
    """An invisible table of contents in MyST, of pages `path` or `Title <path>`."""
    rooted = (page.replace("<", "</") if "<" in page else f"/{page}" for page in pages)
    return "\n".join(["\n```{toctree}", ":hidden:", *options, *rooted, "```\n"])


def add_contents(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Adds the tables of contents, which GitHub does not need, and shows titles where links show a file's name."""
    source[0] = FILE_NAME.sub(r"[](\1)", source[0])
    if docname == root_doc:
        source[0] += "".join(toctree(pages, f":caption: {caption}") for caption, pages in CONTENTS.items())
    elif parts := sorted(ROOT.glob(PARTS.get(docname, "no/page"))):
        source[0] += toctree([path.relative_to(ROOT).with_suffix("").as_posix() for path in parts])


def always_read(*_: object) -> list[str]:
    """The pages whose content comes from other files: the tables of contents and the API."""
    return [root_doc, *PARTS, *(f"docs/api/{path.stem}" for path in ROOT.glob("docs/api/*.md"))]


def link_to_github(app: Sphinx, doctree: nodes.document) -> None:
    """Makes links to files of the repository that are no pages links to GitHub, and badges of other hosts text."""
    folder = Path(app.env.doc2path(app.env.docname)).parent
    for node in list(doctree.findall(addnodes.download_reference)):
        path = os.path.relpath(ROOT / folder / node["reftarget"], ROOT)
        link = nodes.reference("", "", *node.children, refuri=f"{REPOSITORY}/blob/main/{path}")
        node.replace_self(link)
    for image in list(doctree.findall(nodes.image)):
        if "://" in image["uri"]:
            image.replace_self(nodes.Text(image["alt"]))


def math_in_line(self: Any, node: nodes.math) -> None:
    """Writes a formula as MathML."""
    self.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def math_block(self: Any, node: nodes.math_block) -> None:
    """Writes a formula in a line of its own as MathML."""
    self.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def make_index(app: Sphinx, error: Exception | None) -> None:
    """The README is the start, at the address of the site too."""
    if error is None:
        shutil.copy(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))


def setup(app: Sphinx) -> None:
    """Registers the functions above."""
    app.add_html_math_renderer("mathml", (math_in_line, None), (math_block, None))
    app.connect("env-get-outdated", always_read)
    app.connect("source-read", add_contents)
    app.connect("doctree-read", link_to_github)
    app.connect("build-finished", make_index)
