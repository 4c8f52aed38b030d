"""How all figures look, and how they reach the disk.

No pyplot: figures are made of `matplotlib.figure.Figure`, which draws with Agg and needs no screen and no global
state. The background is white, so that a figure can be read on a dark page too. Import this module where a figure
is made, not earlier: matplotlib takes half a second.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, fontManager, get_font
from matplotlib.text import Text

from alexnet_lab.base.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, which the colour-blind can tell apart; in this order."""

RIGHT, WRONG, OTHER = "#009e73", "#d55e00", "#9aa5b1"
"""The true class, a class that was called wrongly, any other."""

INK, FAINT = "#222222", "#d8dde3"

DOTS_PER_INCH = 150

RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same figure everywhere
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
    "text.parse_math": False,  # a class or a file may be called "$x$"
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
    """Within the block figures are made and saved in the style of the house."""
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
    """Writes `<name>.png` and `<name>.svg` into `folder`, whole or not at all, and returns their paths."""
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    missing = _write(figure, paths[0])
    if missing:  # a class in a script that the usual font lacks
        fonts, still_missing = fonts_with(missing)
        _warn(still_missing - WARNED)
        for text in figure.findobj(Text) if fonts else ():
            text.set_fontfamily([*RC["font.sans-serif"], *fonts])
        if fonts:
            _write(figure, paths[0])
    figure.set_layout_engine("none")  # once is enough: that is what takes long where there are many images
    _write(figure, paths[1])
    return paths


METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
"""What each kind of file would hold of the date and of versions."""

WARNED: set[str] = set()
"""Characters that a warning has named."""


def _write(figure: Figure, path: Path) -> set[str]:
    """Writes one file, whole or not at all; returns the characters that its fonts lack."""
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
"""In the names of fonts that have a picture for a character: coloured ones, which matplotlib cannot draw, and its own
font that has a box for each script."""


def fonts_with(characters: Collection[str]) -> tuple[list[str], set[str]]:
    """Installed fonts that have the characters, as few as the search finds, and the characters that none has."""
    wanted, found = {ord(character) for character in characters}, []
    for entry in sorted(installed(), key=lambda entry: (entry.style != "normal", entry.weight != 400, entry.name)):
        if not wanted or any(word in entry.name for word in NO_LETTERS):
            continue
        try:
            has = wanted & set(get_font(entry.fname).get_charmap())
        except (OSError, RuntimeError):  # deleted since, or of a kind that matplotlib cannot read
            continue
        if has:
            found.append(entry.name)
            wanted -= has
    return found, {chr(number) for number in wanted}


def installed() -> list[FontEntry]:
    """The fonts that matplotlib knows."""
    return fontManager.ttflist


def _warn(characters: set[str]) -> None:
    """Says once which characters become boxes."""
    if not characters:
        return
    WARNED.update(characters)
    shown = "".join(sorted(characters))
    log.warning("no installed font has %s: in figures they are boxes; install one, such as Noto Sans CJK", shown[:40])


def show_image(axes: Axes, image: NDArray) -> None:
    """Puts an image (C, H, W), uint8, into axes without ticks; its pixels stay visible where it is small."""
    if len(image) == 1:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    else:
        axes.imshow(image.transpose(1, 2, 0), interpolation="nearest" if image.shape[-1] < 100 else "antialiased")
    bare(axes)


def bare(axes: Axes) -> None:
    """Takes ticks and frame away."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def shorten(text: str, length: int) -> str:
    """At most `length` characters of a text."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
