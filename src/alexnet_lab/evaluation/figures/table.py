"""The figures of eval.py by name, and what each is made of."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.printable import printable, printable_texts
from alexnet_lab.base.random import generator
from alexnet_lab.evaluation.errors import confident_mistakes, confusion
from alexnet_lab.evaluation.factors import single_factors
from alexnet_lab.evaluation.figures import alike, network, predictions, style, training
from alexnet_lab.evaluation.kernels import colour_saturation, first_kernels
from alexnet_lab.evaluation.layers import activation_curves, layer_maps
from alexnet_lab.evaluation.predict import UNKNOWN, count_views
from alexnet_lab.evaluation.search import CODE_BITS, Found, Search
from alexnet_lab.training.metrics import TOP_K, best_classes, called

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure

    from alexnet_lab.evaluation.evaluate import Evaluated

log = logging.getLogger(__name__)

MISTAKES, EXAMPLES, QUERIES, SHOWN_NEIGHBOURS, AUGMENTED = 24, 8, 5, 6, 4
"""How many images the sheets show."""


class Studio:
    """What figures are made of; what takes long is made once, for all that need it."""

    def __init__(self, subject: Evaluated) -> None:
        self.subject = subject
        self.run = subject.runs[0]
        self.predictions = subject.predictions
        self.names = printable_texts(subject.predictions.class_names)

    @cached_property
    def search(self) -> Search:
        """Retrieval among the training images."""
        return Search(self.subject)

    @property
    def title(self) -> str:
        """What was evaluated, in short."""
        what = self.subject.own.root.name if self.subject.own else self.subject.split
        runs = self.run.name if len(self.subject.runs) == 1 else f"mean of {len(self.subject.runs)} runs"
        counts = dict.fromkeys(count_views(run, self.subject.views) for run in self.subject.runs)
        views = "" if self.subject.views == "center" else f", {' and '.join(map(str, counts))} views"
        return printable(f"{style.shorten(runs, 40)}, {what}{views}")

    def shown(self, places: torch.Tensor) -> list[predictions.Shown]:
        """Evaluated images with their most probable classes."""
        best = best_classes(self.predictions.logits[places])
        values = self.predictions.probabilities[places].gather(1, best)
        labels = self.predictions.labels[places].tolist()
        images = self.subject.images(places.numpy()) if len(places) else []
        return [
            predictions.Shown(image, self.label(label), [self.names[index] for index in row], shares)
            for image, label, row, shares in zip(images, labels, best.tolist(), values.tolist(), strict=True)
        ]

    def label(self, label: int) -> str | None:
        """The name of a class, or None where it is unknown."""
        return None if label == UNKNOWN else self.names[label]


class Drawn(NamedTuple):
    """A figure, and the numbers that it tells."""

    figure: Figure
    numbers: dict[str, Any] = {}  # noqa: RUF012 - never written to


def _confusion(studio: Studio) -> Drawn:
    matrix = confusion(studio.predictions)
    return Drawn(predictions.confusion_figure(matrix, studio.names, f"Confusion: {studio.title}"))


def _reliability(studio: Studio) -> Drawn:
    bins = studio.subject.reliability
    title = f"{studio.title}\nexpected calibration error {bins.calibration_error:.1%}"
    return Drawn(predictions.reliability_figure(bins, title))


def _mistakes(studio: Studio) -> Drawn:
    places = confident_mistakes(studio.predictions, MISTAKES)
    title = f"Most confident mistakes: {studio.title}\nabove: what it was called; below: what it is"
    return Drawn(predictions.mistakes_figure(studio.shown(places), title))


def _top5(studio: Studio) -> Drawn:
    """Half of the examples are mistakes, if there are so many: right ones alone would tell little."""
    labels = studio.predictions.labels
    order = torch.from_numpy(generator(studio.run.config["seed"], "examples").permutation(len(labels)))
    wrong = ((called(studio.predictions.logits) != labels) & (labels != UNKNOWN))[order]
    errors = order[wrong][: EXAMPLES // 2]
    places = torch.cat([order[~wrong][: EXAMPLES - len(errors)], errors])
    note = f"; {len(errors)} of {len(places)} chosen among the mistakes" if len(errors) else ""
    title = f"The {TOP_K} most probable classes: {studio.title}{note}"
    return Drawn(predictions.top5_figure(studio.shown(places), title))


def _kernels(studio: Studio) -> Drawn:
    model = studio.run.config["model"]
    kernels = first_kernels(studio.run.classifier.net, model.get("towers", 1))
    numbers = {}
    if kernels.colour:
        numbers = {"colour_saturation": [float(colour_saturation(tower).mean()) for tower in kernels.towers]}
    return Drawn(network.kernels_figure(kernels), numbers)


def _feature_maps(studio: Studio) -> Drawn:
    """Of the first image that is called what it is."""
    right = torch.nonzero(called(studio.predictions.logits) == studio.predictions.labels)[:, 0].tolist()
    place = right[0] if right else 0
    image = studio.subject.images(np.array([place]))[0]
    name = studio.label(int(studio.predictions.labels[place])) or "unknown class"
    return Drawn(network.feature_maps_figure(image, name, layer_maps(studio.run, image)))


def _activations(studio: Studio) -> Drawn:
    x, curves = activation_curves()
    return Drawn(network.activations_figure(curves, x, studio.run.config["model"].get("activation")))


def _retrieval(studio: Studio) -> Drawn:
    search = studio.search
    features, pixels = search.by_features, search.by_pixels
    order = generator(studio.run.config["seed"], "shown queries").permutation(len(search.queries))
    _, firsts = np.unique(search.labels.numpy()[order], return_index=True)  # one of each class
    places = order[np.sort(firsts)][:QUERIES]
    images = studio.subject.images(search.queries.numpy()[places])
    gallery = studio.run.data.rows("train").images

    def tiles(row: torch.Tensor) -> list[tuple[Any, str]]:
        found = search.gallery[row[:SHOWN_NEIGHBOURS]]
        stored, labels = search.train.indices[found].tolist(), search.train.labels[found].tolist()
        return [(gallery[index], studio.names[label]) for index, label in zip(stored, labels, strict=True)]

    queries = [
        alike.Query(
            image, studio.names[int(search.labels[place])],
            tiles(features.neighbours.indices[place]), tiles(pixels.neighbours.indices[place]),
        )
        for place, image in zip(places, images, strict=True)
    ]  # fmt: skip
    k = max(k for k in features.precision if k <= 10)
    heads = (
        f"nearest by features: precision@{k} {features.precision[k]:.2f}",
        f"nearest by pixels: precision@{k} {pixels.precision[k]:.2f}",
    )
    title = f"Among {len(search.gallery):,} training images: {studio.title} ({len(search.queries):,} queries)"
    numbers = _told(search, {"features": features, "pixels": pixels})
    return Drawn(alike.retrieval_figure(queries, title, heads), {"retrieval": numbers})


def _codes(studio: Studio) -> Drawn:
    search = studio.search
    exact, codes, pixels = search.by_features, search.by_codes, search.by_pixels
    dimension = search.train.features.shape[1]
    precision = {
        f"{dimension} features, exact ({exact.seconds:.2f} s)": exact.precision,
        f"codes of {CODE_BITS} bits ({codes.seconds:.2f} s)": codes.precision,
        "pixels": pixels.precision,
    }
    title = f"{len(search.queries):,} queries among {len(search.gallery):,} training images\n{studio.title}"
    numbers = {"bits": CODE_BITS} | _told(search, {"features": exact, "codes": codes, "pixels": pixels})
    return Drawn(alike.precision_figure(precision, title), {"codes": numbers})


def _told(search: Search, ways: dict[str, Found]) -> dict[str, Any]:
    """The numbers of some ways to search, as JSON holds them."""
    told: dict[str, Any] = {"queries": len(search.queries), "gallery": len(search.gallery)}
    for name, found in ways.items():
        told[f"precision_by_{name}"] = {str(k): value for k, value in found.precision.items()}
        told[f"seconds_by_{name}"] = found.seconds
    return told


def _augmentation(studio: Studio) -> Drawn:
    columns = single_factors(studio.run, AUGMENTED)
    return Drawn(training.augmentation_figure(columns, f"Augmentation, each factor alone: {studio.run.name}"))


def _training_error(studio: Studio) -> Drawn:
    curves = {}
    for run in studio.subject.runs:
        rows = [row for row in run.directory.read_metrics() if row.get("train/top1_error")]
        if not rows:
            raise ConfigError(f"figures=training_error: {run.directory.metrics} holds no training errors")
        curves[run.name] = [(int(row["epoch"]), float(row["train/top1_error"])) for row in rows]
    return Drawn(training.training_error_figure(curves, "Training error, as counted in training"))


class Entry(NamedTuple):
    """A figure, and what it needs."""

    make: Callable[[Studio], Drawn]
    labels: bool = False  # the images' classes
    one_run: bool = False  # it looks into one network


FIGURES = {
    "confusion": Entry(_confusion, labels=True),
    "reliability": Entry(_reliability, labels=True),
    "mistakes": Entry(_mistakes, labels=True),
    "top5": Entry(_top5),
    "kernels": Entry(_kernels, one_run=True),
    "feature_maps": Entry(_feature_maps, one_run=True),
    "retrieval": Entry(_retrieval, labels=True, one_run=True),
    "codes": Entry(_codes, labels=True, one_run=True),
    "activations": Entry(_activations),
    "augmentation": Entry(_augmentation, one_run=True),
    "training_error": Entry(_training_error),
}
"""What `figures=` may name; `alexnet_lab.config.schema.Figure` repeats the names."""


def make_figures(subject: Evaluated, wanted: str | Sequence[str]) -> dict[str, Any]:
    """Draws figures and writes them to `eval/figures/`, or `eval/figures/<name>/` of another than the plain test set.

    Args:
        subject: What was evaluated.
        wanted: "all", a name or several.

    Returns:
        `figures`, paths relative to the folder `eval`, and the numbers that the figures tell.

    Raises:
        ConfigError: A figure that was asked for by its name cannot be made of this.
    """
    names = list(FIGURES) if wanted == "all" else [wanted] if isinstance(wanted, str) else list(wanted)
    reasons = {name: reason for name in names if (reason := _obstacle(subject, FIGURES[name]))}
    if reasons and wanted != "all":
        name, reason = next(iter(reasons.items()))
        raise ConfigError(f"figures={name} {reason}")
    folder = subject.folder / "figures"
    if subject.name != "test_center":
        folder /= subject.name
    studio = Studio(subject)
    found: dict[str, Any] = {"figures": []}
    for name in names:
        if name in reasons:
            log.info("no figure %s: it %s", name, reasons[name])
            continue
        with style.styled():
            figure, numbers = FIGURES[name].make(studio)
        found["figures"] += [str(path.relative_to(subject.folder)) for path in style.save(figure, folder, name)]
        found |= numbers
    return found


def _obstacle(subject: Evaluated, entry: Entry) -> str | None:
    """Why a figure cannot be made."""
    if entry.labels and not subject.predictions.metrics:
        return "needs the classes of the images; put them into class folders"
    if entry.one_run and len(subject.runs) > 1:
        return "looks into one network; give one run"
    return None
