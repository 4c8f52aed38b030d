"""The figures of eval.py by name, with their inputs and requirements."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from alexnet_lab.base.errors import ConfigError
from alexnet_lab.base.printable import printable, printable_texts
from alexnet_lab.base.random import generator
from alexnet_lab.evaluation.augmentation_steps import single_factors
from alexnet_lab.evaluation.comparisons import Comparison, tower_comparisons
from alexnet_lab.evaluation.error_rates import confident_mistakes, confusion
from alexnet_lab.evaluation.evaluated import Evaluated
from alexnet_lab.evaluation.figures import network, predictions, retrieval_figures, style, training
from alexnet_lab.evaluation.gallery import CODE_BITS, Search, SearchMethods
from alexnet_lab.evaluation.kernels import kernels_of
from alexnet_lab.evaluation.layer_outputs import activation_curves, layer_maps
from alexnet_lab.evaluation.loaded_run import FinishedRun
from alexnet_lab.evaluation.predict import UNKNOWN, count_views
from alexnet_lab.training.metrics import TOP_K, best_classes, predicted_classes

log = logging.getLogger(__name__)

MISTAKES, EXAMPLES, QUERIES, SHOWN_NEIGHBOURS, AUGMENTED = 24, 8, 5, 6, 4
"""The number of images in each figure."""


class FigureInputs:
    """The inputs of the figures; expensive ones are computed once and shared."""

    def __init__(self, subject: Evaluated) -> None:
        self.subject = subject
        self.run = subject.runs[0]
        self.predictions = subject.predictions
        self.names = printable_texts(subject.predictions.class_names)

    @cached_property
    def search(self) -> Search:
        """Retrieval among the training images of the first run."""
        return Search(self.subject)

    @cached_property
    def methods(self) -> SearchMethods:
        """The retrieval results of each run."""
        return SearchMethods(self.subject, self.search)

    @property
    def title(self) -> str:
        """A short description of the evaluation."""
        what = self.subject.own.name if self.subject.own else self.subject.split
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
        """The name of a class, or None if it is unknown."""
        return None if label == UNKNOWN else self.names[label]


class Drawn(NamedTuple):
    """A figure with its numbers and comparisons."""

    figure: Figure
    numbers: dict[str, Any] = {}  # noqa: RUF012 - never written to
    comparisons: Sequence[Comparison] = ()


def _confusion(inputs: FigureInputs) -> Drawn:
    matrix = confusion(inputs.predictions)
    return Drawn(predictions.confusion_figure(matrix, inputs.names, f"Confusion: {inputs.title}"))


def _reliability(inputs: FigureInputs) -> Drawn:
    bins = inputs.subject.reliability
    title = f"{inputs.title}\nexpected calibration error {bins.calibration_error:.1%}"
    return Drawn(predictions.reliability_figure(bins, title))


def _mistakes(inputs: FigureInputs) -> Drawn:
    places = confident_mistakes(inputs.predictions, MISTAKES)
    title = f"Most confident mistakes: {inputs.title}\nabove: predicted class; below: true class"
    return Drawn(predictions.mistakes_figure(inputs.shown(places), title))


def _top5(inputs: FigureInputs) -> Drawn:
    """Half of the examples are mistakes, if there are as many: correct ones alone would show little."""
    labels = inputs.predictions.labels
    order = torch.from_numpy(generator(inputs.run.settings.seed, "examples").permutation(len(labels)))
    wrong = ((predicted_classes(inputs.predictions.logits) != labels) & (labels != UNKNOWN))[order]
    errors = order[wrong][: EXAMPLES // 2]
    places = torch.cat([order[~wrong][: EXAMPLES - len(errors)], errors])
    note = f"; {len(errors)} of {len(places)} chosen among the mistakes" if len(errors) else ""
    title = f"The {TOP_K} most probable classes: {inputs.title}{note}"
    return Drawn(predictions.top5_figure(inputs.shown(places), title))


def _kernels(inputs: FigureInputs) -> Drawn:
    """For one run its kernels; for several the colour saturation of their towers."""
    runs = inputs.subject.runs
    each = [kernels_of(run) for run in runs]
    means = [[float(tower.mean()) for tower in kernels.saturations] for kernels in each if kernels.colour]
    if len(runs) > 1:
        rows = tower_comparisons([run.label for run in runs], each)
        figure = network.saturation_figure([printable(run.label) for run in runs], means, rows[0])
        return Drawn(figure, {"colour_saturation": means}, rows)
    reason = each[0].untestable
    if reason:
        log.info("no test of the towers' colour: %s %s", runs[0].path, reason)
    rows = [] if reason else tower_comparisons([runs[0].label], each)
    return Drawn(network.kernels_figure(each[0]), {"colour_saturation": means[0]} if means else {}, rows)


def _feature_maps(inputs: FigureInputs) -> Drawn:
    """The maps of the first correctly classified image."""
    right = torch.nonzero(predicted_classes(inputs.predictions.logits) == inputs.predictions.labels)[:, 0].tolist()
    place = right[0] if right else 0
    image = inputs.subject.images(np.array([place]))[0]
    name = inputs.label(int(inputs.predictions.labels[place])) or "unknown class"
    return Drawn(network.feature_maps_figure(image, name, layer_maps(inputs.run, image)))


def _activations(inputs: FigureInputs) -> Drawn:
    x, curves = activation_curves()
    return Drawn(network.activations_figure(curves, x, inputs.run.settings.model.get("activation")))


def _neighbours(inputs: FigureInputs) -> Figure:
    search = inputs.search
    features, pixels = search.by_features, search.by_pixels
    order = generator(inputs.run.settings.seed, "shown queries").permutation(len(search.queries))
    _, firsts = np.unique(search.labels.numpy()[order], return_index=True)  # one of each class
    places = order[np.sort(firsts)][:QUERIES]
    images = inputs.subject.images(search.queries.numpy()[places])
    gallery = inputs.run.data.rows("train").images

    def tiles(row: torch.Tensor) -> list[tuple[Any, str]]:
        found = search.gallery[row[:SHOWN_NEIGHBOURS]]
        stored, labels = search.train.indices[found].tolist(), search.train.labels[found].tolist()
        return [(gallery[index], inputs.names[label]) for index, label in zip(stored, labels, strict=True)]

    queries = [
        retrieval_figures.Query(
            image, inputs.names[int(search.labels[place])],
            tiles(features.neighbours.indices[place]), tiles(pixels.neighbours.indices[place]),
        )
        for place, image in zip(places, images, strict=True)
    ]  # fmt: skip
    k = inputs.methods.k
    heads = (
        f"nearest by features: precision@{k} {features.precision[k]:.2f}",
        f"nearest by pixels: precision@{k} {pixels.precision[k]:.2f}",
    )
    return retrieval_figures.retrieval_figure(queries, _among(inputs), heads)


def _retrieval(inputs: FigureInputs) -> Drawn:
    """For one run the neighbours of some queries; for several their precision."""
    methods = inputs.methods
    several = len(inputs.subject.runs) > 1
    precision = {name: methods.precision(name) for name in ("features", "pixels")}
    figure = retrieval_figures.precision_figure(precision, _among(inputs)) if several else _neighbours(inputs)
    return Drawn(figure, {"retrieval": methods.numbers(precision)}, methods.comparisons(("features", "pixels")))


def _codes(inputs: FigureInputs) -> Drawn:
    methods = inputs.methods
    names = ("features", "codes", "pixels")
    dimension = inputs.search.train.features.shape[1]
    seconds = {name: f" ({methods.seconds(name):.2f} s)" for name in names}
    precision = {
        f"{dimension} features, exact{seconds['features']}": methods.precision("features"),
        f"codes of {CODE_BITS} bits{seconds['codes']}": methods.precision("codes"),
        "pixels": methods.precision("pixels"),
    }
    numbers = {"bits": CODE_BITS} | methods.numbers(names)
    pairs = methods.comparisons(("features", "codes"), ("codes", "pixels"))
    return Drawn(retrieval_figures.precision_figure(precision, _among(inputs)), {"codes": numbers}, pairs)


def _among(inputs: FigureInputs) -> str:
    search = inputs.search
    return f"{len(search.queries):,} queries among {len(search.gallery):,} training images\n{inputs.title}"


def _augmentation(inputs: FigureInputs) -> Drawn:
    columns = single_factors(inputs.run, AUGMENTED)
    return Drawn(training.augmentation_figure(columns, f"Augmentation, each factor alone: {inputs.run.name}"))


def _training_error(inputs: FigureInputs) -> Drawn:
    curves = []
    for run in inputs.subject.runs:
        rows = [row for row in run.directory.read_metrics() if row.get("train/top1_error")]
        if not rows:
            raise ConfigError(f"figures=training_error: {run.directory.metrics} contains no training errors")
        curves.append((run.label, [(int(row["epoch"]), float(row["train/top1_error"])) for row in rows]))
    return Drawn(training.training_error_figure(curves, "Training error, as measured during training"))


class Entry(NamedTuple):
    """A figure and its requirements."""

    make: Callable[[FigureInputs], Drawn]
    labels: bool = False  # needs the images' classes
    one_run: bool = False  # needs a single network
    towers: bool = False  # with several runs, compares two towers by their colour


FIGURES = {
    "confusion": Entry(_confusion, labels=True),
    "reliability": Entry(_reliability, labels=True),
    "mistakes": Entry(_mistakes, labels=True),
    "top5": Entry(_top5),
    "kernels": Entry(_kernels, towers=True),
    "feature_maps": Entry(_feature_maps, one_run=True),
    "retrieval": Entry(_retrieval, labels=True),
    "codes": Entry(_codes, labels=True),
    "activations": Entry(_activations),
    "augmentation": Entry(_augmentation, one_run=True),
    "training_error": Entry(_training_error),
}
"""The values of `figures=`; `alexnet_lab.config.schema.Figure` repeats the names."""


def make_figures(subject: Evaluated, wanted: str | Sequence[str]) -> tuple[dict[str, Any], list[Comparison]]:
    """Draws figures and writes them to `figures/`, or to `figures/<name>/` unless they show a run's plain test set.

    Args:
        subject: The evaluation.
        wanted: "all", one name or several.

    Returns:
        `figures`, paths relative to the folder of the evaluation, with the numbers that the figures show; and the
        comparisons that belong to them, each once.

    Raises:
        ConfigError: A figure requested by name cannot be drawn.
    """
    reasons = obstacles(subject.runs, wanted, labelled=bool(subject.predictions.metrics))
    folder = subject.folder / "figures"
    if subject.name != "test_center":
        folder /= subject.name
    inputs = FigureInputs(subject)
    found: dict[str, Any] = {"figures": []}
    compared: dict[Comparison, None] = {}
    for name, reason in reasons.items():
        if reason:
            log.info("no figure %s: it %s", name, reason)
            continue
        try:
            with style.styled():
                drawn = FIGURES[name].make(inputs)
        except ConfigError as error:
            if wanted != "all":
                raise
            log.info("no figure %s: %s", name, error)
            continue
        found["figures"] += [str(path.relative_to(subject.folder)) for path in style.save(drawn.figure, folder, name)]
        found |= drawn.numbers
        compared |= dict.fromkeys(drawn.comparisons)
    return found, list(compared)


def obstacles(runs: Sequence[FinishedRun], wanted: str | Sequence[str], *, labelled: bool) -> dict[str, str | None]:
    """The figures that `wanted` names, each with the reason why it cannot be drawn, or None.

    Args:
        runs: The evaluated runs.
        wanted: "all", one name or several.
        labelled: Whether the classes of the images are known.

    Raises:
        ConfigError: A figure requested by name cannot be drawn.
    """
    names = list(FIGURES) if wanted == "all" else [wanted] if isinstance(wanted, str) else wanted
    reasons = {name: _obstacle(FIGURES[name], runs, labelled=labelled) for name in names}
    for name, reason in reasons.items():
        if reason and wanted != "all":
            raise ConfigError(f"figures={name} {reason}")
    return reasons


def _obstacle(entry: Entry, runs: Sequence[FinishedRun], *, labelled: bool) -> str | None:
    if entry.labels and not labelled:
        return "needs the classes of the images; put them into class folders"
    if entry.one_run and len(runs) > 1:
        return "shows one network; give one run"
    for run in runs if entry.towers and len(runs) > 1 else ():
        try:
            reason = kernels_of(run).untestable
        except ConfigError:
            reason = "has no convolution"
        if reason:
            return f"of several runs compares two towers that see colour, but {run.path} {reason}; give one run"
    return None
