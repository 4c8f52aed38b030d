"""Nearest neighbours by a network's features, by pixels, or by short binary codes (Krizhevsky 2012, sec. 6.1).

Comparing 4096-dimensional vectors is slow, and "could be made efficient by training an auto-encoder to compress these
vectors to short binary codes" (Krizhevsky and Hinton 2011). The autoencoder here has one hidden layer on each side and
is trained with Adam. Its code layer is a tanh whose outputs noise drives to -1 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from alexnet_lab.data.preparation_bar import progress_bar

SPARE = 16
"""Additional candidates: they are chosen by fast, rounded distances, then ranked by exact ones."""

QUERIES_AT_ONCE = 256
"""Their distances to 50,000 images take 50 MB."""


class Neighbours(NamedTuple):
    """The k nearest gallery items of each of Q queries, nearest first."""

    indices: torch.Tensor  # int64 (Q, k), rows of the gallery
    distances: torch.Tensor  # (Q, k)


def nearest(queries: torch.Tensor, gallery: torch.Tensor, k: int) -> Neighbours:
    """Finds the k nearest by Euclidean distance, comparing each query with the whole gallery.

    |q - g|^2 = |q|^2 - 2 q.g + |g|^2 turns this into a matrix product, which loses digits where two vectors are close.
    The best `k + SPARE` are therefore measured again as exact differences. Of equal distances among these, the lower
    row comes first.

    Args:
        queries: (Q, D), float.
        gallery: (N, D), float.
        k: 1 to N.
    """
    norms = gallery.square().sum(1)  # |q|^2 is the same for all candidates of a query
    parts = [_nearest(part, gallery, norms, k) for part in queries.split(QUERIES_AT_ONCE)]
    return Neighbours(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _nearest(queries: torch.Tensor, gallery: torch.Tensor, norms: torch.Tensor, k: int) -> Neighbours:
    rough = torch.addmm(norms, queries, gallery.T, alpha=-2)  # (Q, N)
    candidates = rough.topk(min(k + SPARE, len(gallery)), dim=1, largest=False).indices.sort(1).values
    exact = torch.stack([
        (gallery[rows].double() - query.double()).norm(dim=1) for query, rows in zip(queries, candidates, strict=True)
    ])  # fmt: skip
    distances, order = exact.sort(dim=1, stable=True)
    return Neighbours(candidates.gather(1, order[:, :k]), distances[:, :k])


def hits_of(neighbours: torch.Tensor, gallery_labels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Which neighbours have the query's class, bool (Q, K).

    Args:
        neighbours: (Q, K), rows of the gallery, nearest first.
        gallery_labels: (N,).
        labels: (Q,), of the queries.
    """
    return gallery_labels[neighbours] == labels[:, None]


def precision_at(hits: torch.Tensor, ks: Sequence[int]) -> dict[int, float]:
    """The share of hits among the k nearest, mean over queries, for each k.

    Args:
        hits: (Q, K), bool.
        ks: Each 1 to K.
    """
    return {k: float(hits[:, :k].double().mean()) for k in ks}


class Autoencoder(nn.Module):
    """Encodes features (B, D) as codes in [-1, 1]^bits, and decodes them.

    Args:
        mean: (D,), of the features.
        scale: One number for all features, so that the autoencoder learns which of them vary much.
        bits: Length of a code, a multiple of 64.
        hidden: Units of the layer on each side of the code.
        noise: Standard deviation of the noise before the tanh in training. Codes near 0 are lost in this noise.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self, mean: torch.Tensor, scale: torch.Tensor, *, bits: int, hidden: int = 512, noise: float = 1.0
    ) -> None:
        super().__init__()
        size = len(mean)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.noise = noise
        balance = nn.BatchNorm1d(bits, affine=False)  # each bit is 1 for half of the images, so none is wasted
        self.encoder = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, bits), balance)
        self.decoder = nn.Sequential(nn.Linear(bits, hidden), nn.ReLU(), nn.Linear(hidden, size))

    def normalise(self, features: torch.Tensor) -> torch.Tensor:
        """Scales features to mean 0 and, over all features, variance 1."""
        return (features - self.mean) / self.scale

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The mean squared reconstruction error, a scalar."""
        inputs = self.normalise(features)
        signal = self.encoder(inputs)
        codes = torch.tanh(signal + self.noise * torch.randn_like(signal))
        return (self.decoder(codes) - inputs).square().mean()

    @torch.no_grad()
    def encode(self, features: torch.Tensor) -> NDArray[np.uint64]:
        """The codes (N, bits / 64) of features (N, D): each bit is the sign of its unit."""
        self.eval()
        signs = [(self.encoder(self.normalise(part)) > 0).numpy() for part in features.split(4096)]
        return pack(np.concatenate(signs))


def train_autoencoder(
    features: torch.Tensor, bits: int, *, epochs: int = 5, batch_size: int = 256, seed: int = 0
) -> Autoencoder:
    """Trains an autoencoder for features (N, D); the same seed gives the same result.

    Args:
        features: Of the gallery, D >= 1.
        bits: Length of a code, a multiple of 64.
        epochs: Passes over the features.
        batch_size: Features per step.
        seed: Of the initial weights, the noise and the order.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        net = Autoencoder(features.mean(0), features.std().clamp_min(1e-6), bits=bits)
        steps = epochs * -(-len(features) // batch_size)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        with progress_bar("autoencoder", steps) as advance:
            for _ in range(epochs):
                for rows in torch.randperm(len(features)).split(batch_size):
                    if len(rows) > 1:  # a single one has no variance
                        optimizer.zero_grad()
                        net(features[rows]).backward()
                        optimizer.step()
                    schedule.step()
                    advance(1)
    return net.eval()


def pack(signs: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Packs bits (N, bits) into words (N, bits / 64)."""
    return np.packbits(signs, axis=1).view(np.uint64)


def hamming_nearest(queries: NDArray[np.uint64], gallery: NDArray[np.uint64], k: int) -> Neighbours:
    """Finds the k nearest codes of each query by Hamming distance; ties go to the lower row.

    Args:
        queries: (Q, words).
        gallery: (N, words).
        k: 1 to N.
    """
    words = np.ascontiguousarray(gallery.T)  # compares a whole column at once
    indices = np.empty((len(queries), k), dtype=np.int64)
    distances = np.empty((len(queries), k), dtype=np.int64)

    def search(places: NDArray[np.int64]) -> None:
        for place in places:
            indices[place], distances[place] = _nearest_code(queries[place], words, k)

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:  # numpy releases the GIL
        list(pool.map(search, np.array_split(np.arange(len(queries)), threads)))
    return Neighbours(torch.from_numpy(indices), torch.from_numpy(distances))


SAMPLE = 4096
"""The number of codes that give an upper bound for the distance of the nearest."""


def _nearest_code(
    query: NDArray[np.uint64], words: NDArray[np.uint64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """Rows (k,) and distances (k,) of the codes `words` (words, N) that are nearest to `query` (words,).

    The k-th smallest distance in a sample of codes is an upper bound for that in all of them; only codes within this
    bound are sorted.
    """
    total = np.zeros(words.shape[1], dtype=np.uint16)
    for column, word in zip(words, query, strict=True):
        total += np.bitwise_count(column ^ word)
    some = total[:: max(1, len(total) // max(SAMPLE, k))]  # spread out, because codes of a class may be neighbours
    near = np.flatnonzero(total <= np.partition(some, k - 1)[k - 1])
    best = near[np.argsort(total[near], kind="stable")[:k]]
    return best, total[best]
