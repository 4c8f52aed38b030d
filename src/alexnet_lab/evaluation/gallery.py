"""Retrieval with a run's features: finds the training images most similar to the evaluated ones."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from numpy.typing import NDArray

from alexnet_lab.base.random import generator
from alexnet_lab.evaluation.cache import predict_once
from alexnet_lab.evaluation.comparisons import Comparison, paired
from alexnet_lab.evaluation.evaluated import Evaluated
from alexnet_lab.evaluation.retrieval import (
    Neighbours,
    hamming_nearest,
    hits_of,
    nearest,
    precision_at,
    train_autoencoder,
)

log = logging.getLogger(__name__)

MOST_QUERIES = 1000
MOST_GALLERY = 50_000
"""Larger sets are sampled at random, because their features would fill the memory."""

KS = (1, 2, 5, 10, 20, 50, 100)

CODE_BITS = 256

PIXEL_SIDE = 32
"""Larger images are averaged down to this side, in pixels, before they are compared."""


class Found(NamedTuple):
    """The result of one search method."""

    neighbours: Neighbours
    hits: torch.Tensor  # bool (Q, k): whether a neighbour has the query's class
    precision: dict[int, float]  # by k
    seconds: float  # for all queries


class Search:
    """Queries from the evaluated images, and a gallery of a run's training images, unaugmented.

    All methods, and all runs on the same data, use the same queries and gallery. Of equal distances, the first in the
    gallery wins, so the gallery is shuffled: stored images may be sorted by class. Queries that are training images
    themselves (`split=train`) are not in the gallery.

    Args:
        subject: The evaluation.
        number: Of the run.

    Attributes:
        queries: Places (Q,) of the queries among the evaluated images, ascending.
        gallery: Places (N,) of the gallery among the training images.
    """

    def __init__(self, subject: Evaluated, number: int = 0) -> None:
        self.subject, self.number = subject, number
        self.run = subject.runs[number]
        self.predictions = subject.each[number]
        self.train = predict_once(self.run, "train")
        within = subject.own is None and subject.split == "train"
        images = len(self.predictions.labels)
        most = min(MOST_QUERIES, images // 2) if within else MOST_QUERIES
        self.queries = _drawn(torch.arange(images), most, "queries").sort().values
        others = torch.ones(len(self.train.labels), dtype=torch.bool)
        if within:
            others[self.queries] = False
        self.gallery = _drawn(others.nonzero()[:, 0], MOST_GALLERY, "gallery")
        self.labels = self.predictions.labels[self.queries]
        self.gallery_labels = self.train.labels[self.gallery]

    @property
    def chance(self) -> torch.Tensor:
        """The precision of a random order, (Q,): the share of each query's class in the gallery."""
        counts = self.gallery_labels.bincount(minlength=len(self.predictions.class_names))
        return counts[self.labels] / len(self.gallery_labels)

    @cached_property
    def by_features(self) -> Found:
        """Exact search in the space of the last hidden layer."""
        queries, gallery = self.predictions.features[self.queries], self.train.features[self.gallery]
        return self._found(lambda: nearest(queries, gallery, self.most))

    @cached_property
    def by_pixels(self) -> Found:
        """Exact search in the space of pixels."""
        rows = self.run.data.rows("train")
        gallery = pixel_vectors(np.asarray(rows.images), self.train.indices[self.gallery].numpy())
        wanted = self.queries.numpy()
        images = self.subject.images(wanted, self.number)
        queries = pixel_vectors(images, np.arange(len(images)))
        return self._found(lambda: nearest(queries, gallery, self.most))

    @cached_property
    def by_codes(self) -> Found:
        """Search by binary codes of the features."""
        gallery = self.train.features[self.gallery]
        log.info("training an autoencoder on the features of %d images", len(gallery))
        net = train_autoencoder(gallery, CODE_BITS, seed=self.run.settings.seed)
        codes, queries = net.encode(gallery), net.encode(self.predictions.features[self.queries])
        return self._found(lambda: hamming_nearest(queries, codes, self.most))

    @property
    def most(self) -> int:
        """The number of neighbours to find."""
        return min(max(KS), len(self.gallery))

    def _found(self, search: Callable[[], Neighbours]) -> Found:
        start = time.perf_counter()
        neighbours = search()
        seconds = time.perf_counter() - start
        hits = hits_of(neighbours.indices, self.gallery_labels, self.labels)
        return Found(neighbours, hits, precision_at(hits, [k for k in KS if k <= self.most]), seconds)


HEADLINE = 10
"""The k of the precision that is compared; in a smaller gallery the largest of `KS` that it has images for."""


class Kept(NamedTuple):
    """The kept results of one search method in one run."""

    precision: dict[int, float]  # by k
    of_queries: NDArray[np.float64]  # (Q,), precision at the headline k
    seconds: float


class SearchMethods:
    """The precision of each search method over all runs. Only one run's features are in memory at a time.

    Args:
        subject: The evaluation.
        first: The search in its first run.
    """

    def __init__(self, subject: Evaluated, first: Search) -> None:
        self.subject, self.first = subject, first
        self.k = max(k for k in KS if k <= min(HEADLINE, first.most))
        self._kept: dict[str, list[Kept]] = {}
        self._chance: dict[int, NDArray[np.float64]] = {}

    def _of(self, name: str) -> list[Kept]:
        """The results of a method in each run."""
        if name not in self._kept:
            self._kept[name] = [self._searched(name, number) for number in range(len(self.subject.runs))]
        return self._kept[name]

    def _searched(self, name: str, number: int) -> Kept:
        search = self.first if number == 0 else Search(self.subject, number)
        self._chance[number] = search.chance.double().numpy()
        found: Found = getattr(search, f"by_{name}")
        return Kept(found.precision, found.hits[:, : self.k].double().mean(1).numpy(), found.seconds)

    def precision(self, name: str) -> dict[int, float]:
        """Mean over runs, by k."""
        each = self._of(name)
        return {k: statistics.fmean(kept.precision[k] for kept in each) for k in each[0].precision}

    def seconds(self, name: str) -> float:
        """The time of the search for all queries, mean over runs."""
        return statistics.fmean(kept.seconds for kept in self._of(name))

    def numbers(self, names: Iterable[str]) -> dict[str, Any]:
        """The numbers of some methods, for JSON."""
        found: dict[str, Any] = {"queries": len(self.first.queries), "gallery": len(self.first.gallery)}
        for name in names:
            found[f"precision_by_{name}"] = {str(k): value for k, value in self.precision(name).items()}
            found[f"seconds_by_{name}"] = self.seconds(name)
        return found | {"chance": float(self.first.chance.double().mean())}

    def comparisons(self, *pairs: tuple[str, str]) -> list[Comparison]:
        """Compares each method with chance, and the two methods of each pair."""
        names = dict.fromkeys(name for pair in pairs for name in pair)
        shares = {name: np.stack([kept.of_queries for kept in self._of(name)]) for name in names}  # (R, Q)
        shares["chance"] = np.stack([self._chance[number] for number in range(len(self.subject.runs))])
        runs, metric = [run.label for run in self.subject.runs], f"precision_at_{self.k}"
        return [
            row
            for one, other in (*((name, "chance") for name in names), *pairs)
            for row in paired(metric, f"{one} - {other}", runs, shares[one], shares[other], unit="queries")
        ]


def _drawn(places: torch.Tensor, most: int, stream: str) -> torch.Tensor:
    """At most `most` of the places, in a random order that is the same for all runs."""
    return places[torch.from_numpy(generator(0, stream).permutation(len(places))[:most])]


def pixel_vectors(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> torch.Tensor:
    """Grey levels (n, D), float32, of some rows of images (N, C, S, S), averaged down to `PIXEL_SIDE` if larger."""
    parts = []
    for some in np.array_split(rows, max(1, len(rows) // 512)):
        pixels = torch.from_numpy(images[some]).float()
        if pixels.shape[-1] > PIXEL_SIDE:
            pixels = F.adaptive_avg_pool2d(pixels, PIXEL_SIDE)
        parts.append(pixels.flatten(1))
    return torch.cat(parts)
