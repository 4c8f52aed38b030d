"""The style of all figures, and how they are saved.

There is no pyplot: `matplotlib.figure.Figure` draws with Agg and needs no screen and no global state. The background is
white, so that a figure is legible on a dark page too. Import this module only where a figure is drawn: matplotlib takes
half a second.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, fontManager, get_font
from matplotlib.text import Text
from numpy.typing import NDArray

from alexnet_lab.base.files import atomic_path

log = logging.getLogger(__name__)

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""The palette of Okabe and Ito, which is safe for colour-blind readers; use it in this order."""

RIGHT, WRONG, OTHER = "#009e73", "#d55e00", "#9aa5b1"
"""The true class, a wrong prediction, any other class."""

INK, FAINT = "#222222", "#d8dde3"

DOTS_PER_INCH = 150

RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so figures are the same everywhere
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "text.color": INK,
    "text.parse_math": False,  # the name of a class or file may be "$x$"
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "alexnet-lab",  # the same bytes each time
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Within the block figures are drawn and saved in this style."""
    with mpl.rc_context(RC):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure.

    Args:
        width: In inches.
        height: In inches.
    """
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes `<name>.png` and `<name>.svg` into `folder` atomically and returns their paths."""
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    missing = _write(figure, paths[0])
    if missing:  # a class name in a script that the usual font lacks
        fonts, still_missing = fonts_with(missing)
        _warn(still_missing - WARNED)
        for text in figure.findobj(Text) if fonts else ():
            text.set_fontfamily([*RC["font.sans-serif"], *fonts])
        if fonts:
            _write(figure, paths[0])
    figure.set_layout_engine("none")  # the layout is computed already; with many images it takes long
    _write(figure, paths[1])
    return paths


METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
"""Removes dates and versions from each kind of file."""

WARNED: set[str] = set()
"""Characters that a warning has named."""


def _write(figure: Figure, path: Path) -> set[str]:
    """Writes one file atomically; returns the characters that its fonts lack."""
    kind = path.suffix[1:]
    with styled(), warnings.catch_warnings(record=True) as caught, atomic_path(path) as part:
        warnings.simplefilter("always")
        figure.savefig(part, format=kind, dpi=DOTS_PER_INCH, metadata=METADATA[kind])
    missing = set()
    for warning in caught:
        glyph = re.match(r"Glyph (\d+) .*missing", str(warning.message))
        if glyph:
            missing.add(chr(int(glyph.group(1))))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return missing


NO_LETTERS = ("Emoji", "Last Resort")
"""Parts of font names to skip: coloured fonts, which matplotlib cannot draw, and its own font of boxes."""


def fonts_with(characters: Collection[str]) -> tuple[list[str], set[str]]:
    """Installed fonts that contain the characters, as few as possible, and the characters that none contains."""
    wanted, found = {ord(character) for character in characters}, []
    for entry in sorted(installed(), key=lambda entry: (entry.style != "normal", entry.weight != 400, entry.name)):
        if not wanted or any(word in entry.name for word in NO_LETTERS):
            continue
        try:
            has = wanted & set(get_font(entry.fname).get_charmap())
        except (OSError, RuntimeError):  # deleted since, or in a format that matplotlib cannot read
            continue
        if has:
            found.append(entry.name)
            wanted -= has
    return found, {chr(number) for number in wanted}


def installed() -> list[FontEntry]:
    """The fonts that matplotlib knows."""
    return fontManager.ttflist


def _warn(characters: set[str]) -> None:
    """Warns once about characters that become boxes."""
    if not characters:
        return
    WARNED.update(characters)
    shown = "".join(sorted(characters))
    log.warning("no installed font has %s: figures show boxes instead; install e.g. Noto Sans CJK", shown[:40])


def show_image(axes: Axes, image: NDArray) -> None:
    """Draws an image (C, H, W), uint8, in axes without ticks; the pixels of small images stay visible."""
    if len(image) == 1:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    else:
        axes.imshow(image.transpose(1, 2, 0), interpolation="nearest" if image.shape[-1] < 100 else "antialiased")
    bare(axes)


def bare(axes: Axes) -> None:
    """Removes ticks and frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def shorten(text: str, length: int) -> str:
    """Cuts a text to at most `length` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
