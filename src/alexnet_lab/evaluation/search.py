"""Retrieval with a run's features: training images are searched for those most like the evaluated ones."""

from __future__ import annotations

import logging
import time
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit

from alexnet_lab.base.random import generator
from alexnet_lab.evaluation.cache import predict_once
from alexnet_lab.evaluation.codes import hamming_nearest, train_autoencoder
from alexnet_lab.evaluation.retrieval import Neighbours, nearest, precision_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from alexnet_lab.evaluation.evaluate import Evaluated

log = logging.getLogger(__name__)

MOST_QUERIES = 1000
MOST_GALLERY = 50_000
"""More are drawn from at random: their features fill the memory."""

KS = (1, 2, 5, 10, 20, 50, 100)

CODE_BITS = 256

PIXEL_SIDE = 32
"""Larger images are averaged down to this, in pixels, before they are compared."""


class Found(NamedTuple):
    """The result of one way to search."""

    neighbours: Neighbours
    precision: dict[int, float]  # by k
    seconds: float  # for all queries


class Search:
    """Queries from the evaluated images, and a gallery of the run's training images, unaugmented.

    Attributes:
        queries: Places (Q,) of the queries among the evaluated images.
        gallery: Places (N,) of the gallery among the training images.
    """

    def __init__(self, subject: Evaluated) -> None:
        self.subject = subject
        self.run = subject.runs[0]
        self.predictions = subject.each[0]
        self.train = predict_once(self.run, "train")
        seed = self.run.config["seed"]
        self.queries = _some(len(self.predictions.labels), MOST_QUERIES, seed, "queries")
        self.gallery = _some(len(self.train.labels), MOST_GALLERY, seed, "gallery")
        self.labels = self.predictions.labels[self.queries]
        self.gallery_labels = self.train.labels[self.gallery]

    @cached_property
    def by_features(self) -> Found:
        """Exact, in the space of the last hidden layer."""
        queries, gallery = self.predictions.features[self.queries], self.train.features[self.gallery]
        return self._found(lambda: nearest(queries, gallery, self.most))

    @cached_property
    def by_pixels(self) -> Found:
        """Exact, in the space of the pixels."""
        rows = self.run.data.rows("train")
        gallery = pixel_vectors(np.asarray(rows.images), self.train.indices[self.gallery].numpy())
        wanted = self.queries.numpy()
        images = self.subject.images(wanted)
        queries = pixel_vectors(images, np.arange(len(images)))
        return self._found(lambda: nearest(queries, gallery, self.most))

    @cached_property
    def by_codes(self) -> Found:
        """By binary codes of the features."""
        gallery = self.train.features[self.gallery]
        log.info("training an autoencoder on the features of %d images", len(gallery))
        net = train_autoencoder(gallery, CODE_BITS, seed=self.run.config["seed"])
        codes, queries = net.encode(gallery), net.encode(self.predictions.features[self.queries])
        return self._found(lambda: hamming_nearest(queries, codes, self.most))

    @property
    def most(self) -> int:
        """Neighbours that are looked for."""
        return min(max(KS), len(self.gallery))

    def _found(self, search: Callable[[], Neighbours]) -> Found:
        start = time.perf_counter()
        neighbours = search()
        seconds = time.perf_counter() - start
        ks = [k for k in KS if k <= self.most]
        return Found(neighbours, precision_at(neighbours.indices, self.gallery_labels, self.labels, ks), seconds)


def _some(count: int, most: int, seed: int, stream: str) -> torch.Tensor:
    """All places 0..count-1, or `most` of them at random, rising."""
    if count <= most:
        return torch.arange(count)
    return torch.from_numpy(np.sort(generator(seed, stream).permutation(count)[:most]))


def pixel_vectors(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> torch.Tensor:
    """Grey levels (n, D), float32, of some rows of images (N, C, S, S), at `PIXEL_SIDE` where they are larger."""
    parts = []
    for some in np.array_split(rows, max(1, len(rows) // 512)):
        pixels = torch.from_numpy(images[some]).float()
        if pixels.shape[-1] > PIXEL_SIDE:
            pixels = F.adaptive_avg_pool2d(pixels, PIXEL_SIDE)
        parts.append(pixels.flatten(1))
    return torch.cat(parts)
